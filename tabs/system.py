"""The System tab: API tokens, node packs of others, device, memory, machine and log."""

from __future__ import annotations

from tabs.app import App
from tabs.live import part
from tabs.shell import Pages


def build(app: App, pages: Pages) -> None:
    part("easel-tokens")
    part("easel-packs")
    part("easel-system")
