"""Tagging presets: TOML files under configs/tag, each a set of TagSettings without the dataset."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from engine.errors import NotFound
from engine.settings import checked
from taggers.settings import TagSettings

FOLDER = Path(__file__).resolve().parent.parent / "configs" / "tag"


def preset_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset as it writes them. Raises NotFound, UnknownSetting or InvalidSetting."""
    if name not in preset_names():
        raise NotFound(
            what="preset",
            what_zh="预设",
            name=name,
            remedy=f"There are: {', '.join(preset_names())}.",
            remedy_zh=f"现有：{', '.join(preset_names())}。",
        )
    data = tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
    checked(TagSettings, {"dataset": "any", **data}, f"{name}.toml")
    return data


def settings_from(name: str, dataset: str, **changes: Any) -> TagSettings:
    """A preset for one dataset, with some settings changed."""
    return checked(TagSettings, {**preset(name), "dataset": dataset, **changes}, f"preset {name}")
