"""Presets of training, TOML files in configs/train: partial settings over the defaults. And runs' own TOML files.

Torch-free.
"""

from __future__ import annotations

import logging
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import SettingsError
from engine.settings import checked, read_toml
from trainers.settings import TrainSettings

_log = logging.getLogger(__name__)

PRESETS = Path(__file__).resolve().parent.parent / "configs" / "train"


@dataclass(frozen=True)
class Preset:
    """A named start for the form. `settings` holds only what differs from the defaults."""

    name: str
    title: str
    title_zh: str
    settings: dict[str, Any]


class _PresetFile(TrainSettings):
    """A preset's TOML: any settings, and what it is called."""

    title: str = ""
    title_zh: str = ""


def presets(folder: Path = PRESETS) -> list[Preset]:
    """Every preset of a folder, by file name. One that can't be read is left out with a line in the log."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        try:
            found.append(read_preset(path))
        except SettingsError as error:  # the page must come up all the same
            _log.error("the preset %s is left out: %s", path, error)
    return found


def read_preset(path: Path) -> Preset:
    """One preset. An unknown key is refused with the nearest name, as in a run's own file."""
    both = read_toml(_PresetFile, path)
    given = both.model_dump(exclude_unset=True)
    title, title_zh = given.pop("title", path.stem), given.pop("title_zh", "")
    return Preset(path.stem, title, title_zh or title, given)


def read_settings(path: Path) -> TrainSettings:
    """A run's TOML file, as `studio train FILE` takes it. It may stand on a preset: preset = "sd1-character"."""
    try:
        base = tomllib.loads(path.read_bytes().decode("utf-8-sig")).get("preset")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        base = None
    if not isinstance(base, str):
        return read_toml(TrainSettings, path)
    data = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    del data["preset"]
    return checked(TrainSettings, read_preset(PRESETS / f"{Path(base).name}.toml").settings | data, path.name)
