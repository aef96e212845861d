"""The live parts of the page (static/*.js) as Gradio components.

A part talks to the server's /studio routes by itself. What a person does in it that Python must know of arrives as one
Gradio event, `select`, whose data say what it is: {"name": "send", ...}.
"""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

LISTEN = "element.addEventListener('easel-send', (event) => trigger('select', event.detail));"
HOLD = "element.addEventListener('easel-value', (event) => { props.value = event.detail; trigger('change'); });"


def part(tag: str, **attributes: str) -> gr.HTML:
    """`part("easel-result", kinds="generate")` -> the element on the page."""
    words = "".join(f' {name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return gr.HTML(
        html_template=f"<{tag}{words}></{tag}>", js_on_load=LISTEN, apply_default_css=False, elem_classes=["ez-part"]
    )


def field(tag: str, attribute: str, value: str = "", **options: Any) -> gr.HTML:
    """A live part that is a field of a form: its value is text, shown to the element as an attribute."""
    return gr.HTML(
        value,
        html_template=f'<{tag} {attribute}="{{{{value}}}}"></{tag}>',
        js_on_load=HOLD,
        apply_default_css=False,
        elem_classes=["ez-part"],
        **options,
    )
