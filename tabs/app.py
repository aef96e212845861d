"""What the tabs may use of the studio: a Protocol, because tabs do not import studio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import gradio as gr

from engine.errors import EaselError, Language
from engine.graph.catalogue import Catalogue
from engine.jobs.store import JobStore
from engine.jobs.supervisor import Supervisor
from engine.jobs.types import Job
from engine.workspace import Workspace
from tabs.drafts import Drafts
from tabs.words import say


class App(Protocol):
    @property
    def workspace(self) -> Workspace: ...
    @property
    def jobs(self) -> JobStore: ...
    @property
    def supervisor(self) -> Supervisor: ...
    @property
    def catalogue(self) -> Catalogue: ...
    @property
    def drafts(self) -> Drafts: ...

    def submit(self, kind: str, settings: Mapping[str, Any], *, front: bool = False, **spec: Any) -> Job:
        """Check the settings with the kind's model and queue a job. Raises SettingsError or GraphError."""
        ...

    def submit_prompt(self, prompt: Any, *, draft: bool = False, **spec: Any) -> tuple[Job, Any]:
        """Judge an API prompt and queue it. Raises GraphError with every reason."""
        ...


def language_of(request: gr.Request | None) -> Language:
    """The language of whoever asks: the page's own switch, else the browser's."""
    if request is None:
        return "en"
    chosen = request.cookies.get("easel_lang") or request.headers.get("accept-language", "")
    return "zh" if chosen.lower().startswith("zh") else "en"


def refuse(error: EaselError, request: gr.Request | None) -> gr.Error:
    """A refusal as Gradio shows it, in the words of the asker's language. Nothing on the page is changed.

    Clients of the API read the title; the page draws its own (static/chrome.js), because Gradio 6 shows none.
    """
    language = language_of(request)
    return gr.Error(error.text(language), title=say("refused", language), print_exception=False)
