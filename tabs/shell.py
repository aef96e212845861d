"""The page: its tabs in order, its look, and what every tab shares. It knows no job and no model."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.themes import Base, Default

from tabs.app import App
from tabs.live import part
from tabs.words import T

STATIC = Path(__file__).parent / "static"
TABS = ("generate", "workflow", "dataset", "train", "gallery", "queue", "models", "system")

FONTS = ["Inter", "system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]

# The language a person chose stands in a cookie; Gradio asks navigator.language once, before it adds the head.
# {own} is what the owner's settings say: zh-CN, en, or nothing.
FIRST = """<script>
  (() => {
    const asked = new URLSearchParams(location.search).get('lang');
    const keep = (value) => { document.cookie = `easel_lang=${value}; path=/; max-age=31536000; SameSite=Lax`; };
    const now = () => document.cookie.match(/easel_lang=([\\w-]+)/)?.[1];
    if (asked) keep(asked === 'zh' ? 'zh-CN' : 'en');
    else if ('{own}' && !now()) keep('{own}');
    const chosen = now();
    if (chosen) Object.defineProperty(navigator, 'language', { get: () => chosen });
  })();
</script>"""
HEAD = """
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="studio/static/easel.css">
<link rel="stylesheet" href="studio/static/workflow.css">
<script type="module" src="studio/static/main.js"></script>
"""


def theme() -> Base:
    """Gradio's default, denser, with labels and hints dark enough to read in both themes."""
    return Default(
        primary_hue="indigo",
        secondary_hue="violet",
        neutral_hue="slate",
        font=FONTS,
        text_size="sm",
        spacing_size="sm",
        radius_size="md",
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_title_text_weight="500",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        block_padding="4px 6px",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        checkbox_border_color="*neutral_400",
        checkbox_border_color_dark="*neutral_500",
        checkbox_background_color_dark="*neutral_900",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
        color_accent="*primary_600",
    )


class Pages:
    """What tabs hand to each other. A tab that shows pictures offers its part; a tab that can use them receives from
    every part that is offered, whichever of the two is built first."""

    def __init__(self, page: gr.Blocks, bar: gr.Tabs) -> None:
        self.page = page
        self.bar = bar
        self.inputs: dict[str, Component] = {}
        self._offered: list[gr.HTML] = []
        self._receivers: list[Callable[[gr.HTML], object]] = []

    def offer(self, source: gr.HTML) -> None:
        """`source` lets people send what it shows to other tabs."""
        self._offered.append(source)

    def receive(self, wire: Callable[[gr.HTML], object]) -> None:
        """`wire(source)` ties one offering part to the receiving tab."""
        self._receivers.append(wire)

    def tie(self) -> None:
        for wire in self._receivers:
            for source in self._offered:
                wire(source)


def build(app: App) -> gr.Blocks:
    """All tabs over one app. A tab is a module here with `build(app, pages)`."""
    with gr.Blocks(title="Easel", fill_width=True, analytics_enabled=False) as page:
        with gr.Row(elem_classes=["ez-head"]):
            gr.HTML("<h1>Easel</h1>", apply_default_css=False)
            switches = part("easel-switches")
        with gr.Tabs(elem_id="ez-tabs") as bar:
            pages = Pages(page, bar)
            for name in TABS:
                with gr.Tab(T(f"tab.{name}"), id=name, elem_id=f"tab-{name}"):
                    import_module(f"tabs.{name}").build(app, pages)
        switches.select(_open, None, bar, show_progress="hidden", api_visibility="private")
        pages.tie()
    return page


def _open(event: gr.EventData) -> Any:
    """A tab that the page's edge asks for by name."""
    return gr.Tabs(selected=event._data["tab"])
