"""Forms that a reload does not lose: what is typed goes to the server's drafts, and comes back when the page opens."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.blocks import Blocks
from gradio.components import Component

from tabs.app import App


def keep(app: App, page: Blocks, tab: str, fields: dict[str, Component]) -> None:
    """Tie a form to its draft. Must be called inside the page's Blocks, after every field of the form is made."""
    names, components = list(fields), list(fields.values())

    def save(*values: Any) -> None:
        app.drafts.put(tab, dict(zip(names, values, strict=True)))

    def load() -> list[Any]:
        draft = app.drafts.get(tab)
        return [draft[name] if name in draft else gr.skip() for name in names]

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    changes = [component.change for component in components]  # type: ignore[attr-defined]  # every input has it
    gr.on(
        changes,
        save,
        components,
        None,
        trigger_mode="always_last",
        **quiet,
    )
    page.load(load, None, components, **quiet)
