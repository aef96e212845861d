"""The Dataset tab: pictures, their tags with source and score, and everything done to them."""

from __future__ import annotations

from tabs.app import App
from tabs.live import part
from tabs.shell import Pages


def build(app: App, pages: Pages) -> None:
    pages.inputs["dataset.part"] = part("easel-dataset")
