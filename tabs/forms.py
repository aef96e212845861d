"""Forms that a reload does not lose: what is typed goes to the server's drafts, and comes back when the page opens."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
from gradio.blocks import Blocks
from gradio.components import Component

from tabs.app import App

# Run in the page when the draft has come: a field that somebody has changed meanwhile stays as it is. What has been
# brought back is said at the page's root, for whoever has to wait for it.
BRING_BACK = """(held, ...values) => {
  const { names, first, draft } = JSON.parse(held), root = document.documentElement.dataset;
  root.restored = `${root.restored ?? ''} TAB`.trim();
  const untouched = (i) => JSON.stringify(values[i] ?? '') === JSON.stringify(first[i] ?? '');
  return names.map((name, i) => (name in draft && untouched(i) ? draft[name] : values[i]));
}"""


def keep(app: App, page: Blocks, tab: str, fields: dict[str, Component]) -> None:
    """Tie a form to its draft. Must be called inside the page's Blocks, after every field of the form is made."""
    names, components = list(fields), list(fields.values())
    first = [getattr(component, "value", None) for component in components]

    def save(*values: Any) -> None:
        app.drafts.put(tab, dict(zip(names, values, strict=True)))

    def load() -> str:
        return json.dumps({"names": names, "first": first, "draft": app.drafts.get(tab)})

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
    held = gr.Textbox(visible="hidden")
    page.load(load, None, held, **quiet).then(
        None, [held, *components], components, js=BRING_BACK.replace("TAB", tab), **quiet
    )
