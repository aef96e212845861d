"""The Queue tab: every job of everybody, in the order they run."""

from __future__ import annotations

from tabs.app import App
from tabs.live import part
from tabs.shell import Pages


def build(app: App, pages: Pages) -> None:
    part("easel-queue")
