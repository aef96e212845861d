"""The Gallery tab: every picture made, what it was made from, and where it can go."""

from __future__ import annotations

from tabs.app import App
from tabs.live import part
from tabs.shell import Pages


def build(app: App, pages: Pages) -> None:
    pages.offer(part("easel-gallery"))
