"""A tagger that its owner describes in a tagger.toml beside the model: a known kind with what differs from it.

kind = "pixai-v1.0"              # the vocabulary and all that is not said below come from this kind
output = "probability"
output_name = "prediction"
thresholds = { general = 0.4 }
[pixels]
size = 384
fit = "pad"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from engine.errors import FileError, InvalidSetting, SettingsError
from engine.settings import read_toml
from taggers.spec import Fit, Resample, TaggerSpec

FILE = "tagger.toml"
Colour = tuple[int, int, int]
Three = tuple[float, float, float]


class WrongDescription(FileError):
    """A file that the owner wrote beside a model. `en_reason` and `zh_reason` are the settings error's own words."""

    en = "{path} beside the model is wrong: {en_reason} Correct it, or delete it."
    zh = "模型旁的 {path} 有误：{zh_reason}请更正或删除。"


class _Pixels(BaseModel):
    model_config = ConfigDict(extra="forbid")

    layout: Literal["NHWC", "NCHW"] | None = None
    channels: Literal["RGB", "BGR"] | None = None
    fit: Fit | None = None
    pad_colour: Colour | None = None
    resample: Resample | None = None
    mean: Three | None = None
    std: Three | None = None
    size: int | None = None


class Description(BaseModel):
    """What a tagger.toml may say."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    output: Literal["probability", "logit"] | None = None
    output_name: str | None = None
    thresholds: dict[str, float] = {}
    licence: str | None = None
    pixels: _Pixels = _Pixels()


@contextmanager
def as_file_error(path: Path) -> Iterator[None]:
    """A wrong setting inside is the fault of a file beside a model, which whoever lists models can show."""
    try:
        yield
    except SettingsError as error:
        raise WrongDescription(path=path.name, en_reason=error.text("en"), zh_reason=error.text("zh")) from error


def described(folder: Path, kinds: Sequence[TaggerSpec]) -> TaggerSpec | None:
    """The spec of a folder with a tagger.toml; None without one. Raises WrongDescription."""
    if not (folder / FILE).is_file():
        return None
    known = {spec.name: spec for spec in kinds}
    with as_file_error(folder / FILE):
        told = read_toml(Description, folder / FILE)
        if told.kind not in known:
            raise InvalidSetting(where=FILE, name="kind", value=told.kind, reason=f"known are {', '.join(known)}")
    base = known[told.kind]
    own = told.model_dump(exclude_none=True, exclude={"kind", "pixels", "thresholds"})
    return replace(
        base,
        **own,
        thresholds={**base.thresholds, **told.thresholds},
        pixels=replace(base.pixels, **told.pixels.model_dump(exclude_none=True)),
    )
