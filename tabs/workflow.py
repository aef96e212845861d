"""The Workflow tab: the node editor where it is installed, else a drawing of the graph; and a form of chosen inputs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from engine.errors import EaselError
from tabs import workbench
from tabs.app import App, refuse
from tabs.live import part
from tabs.restoring import sent_picture
from tabs.shell import Pages

SEND = "send.graph"  # what a part says whose picture is to be opened here


def build(app: App, pages: Pages) -> None:
    part("easel-workflow")

    def receive(event: gr.EventData, request: gr.Request) -> Any:
        sent = event._data
        if sent.get("name") != "send" or sent.get("to") != SEND:
            return gr.skip()
        try:
            workbench.open_picture(app, sent_picture(app, sent))
        except EaselError as error:
            raise refuse(error, request) from error
        return gr.Tabs(selected="workflow")

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    pages.receive(lambda source: source.select(receive, None, pages.bar, **quiet))
