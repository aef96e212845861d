"""The Models tab: which files there are, what they are, and what is on the device."""

from __future__ import annotations

from tabs.app import App
from tabs.live import part
from tabs.shell import Pages


def build(app: App, pages: Pages) -> None:
    part("easel-models")
