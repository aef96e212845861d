"""Every kind of tagger and captioner we know, and those on disk. Adding one = a file with its spec and a line here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from engine.errors import FileError, InvalidSetting, NotFound
from engine.settings import checked
from engine.workspace import BUNDLED, Workspace, replacing
from taggers.camie import CAMIE
from taggers.cl_tagger import CL_TAGGER
from taggers.described import as_file_error, described
from taggers.endpoint import ENDPOINT
from taggers.florence import FLORENCE
from taggers.folder import ModelFolder, model_folders
from taggers.joycaption import JOYCAPTION
from taggers.joytag import JOYTAG
from taggers.minicpm import MINICPM
from taggers.onnx_header import OnnxHeader, read_onnx_header
from taggers.pixai import PIXAI_V09, PIXAI_V10
from taggers.qwen_vl import QWEN_VL
from taggers.similarity import SIMILARITY
from taggers.spec import TaggerSpec
from taggers.tool import CaptionerKind
from taggers.wd import WD, WD_MODELS

TAGGERS: tuple[TaggerSpec, ...] = (*WD_MODELS, WD, PIXAI_V09, PIXAI_V10, CL_TAGGER, CAMIE, JOYTAG)


CAPTIONERS: tuple[CaptionerKind, ...] = (FLORENCE, JOYCAPTION, QWEN_VL, MINICPM, ENDPOINT, SIMILARITY)


class UnknownCaptioner(FileError):
    en = (
        "{name} is no captioner that runs here ({known}): its config.json says {found}. Serve it with Ollama, vLLM or "
        "llama.cpp and use the endpoint tool."
    )
    zh = (
        "{name} 不是可在此运行的描述模型（{known}）：其 config.json 为 {found}。"
        "请用 Ollama、vLLM 或 llama.cpp 提供服务，并使用接口工具。"
    )


class UnknownTagger(FileError):
    en = "{path} is no tagger of a kind we know ({known}): {reason}. Put its tag list beside it as it was published."
    zh = "{path} 不是已知类型的打标器（{known}）：{reason}。请将其发布时附带的标签列表放在同一文件夹。"


class Own(BaseModel):
    """What thresholds.json beside a model keeps of the user's wishes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    thresholds: dict[str, float] = {}
    mcut: tuple[str, ...] = ()


@dataclass(frozen=True)
class InstalledTagger:
    """A tagger on disk. `name` is how it is listed and asked for: its folder, or its file where it lies alone."""

    name: str
    file: Path
    own_thresholds: Path

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def nbytes(self) -> int:
        """Weights in a file of their own included."""
        return sum(
            f.stat().st_size for f in self.folder.iterdir() if f == self.file or f.name.startswith(self.file.name)
        )

    def header(self) -> OnnxHeader:
        return read_onnx_header(self.file)

    def spec(self) -> TaggerSpec:
        """Its kind: as its tagger.toml says, or by its files and shapes. Raises UnknownTagger or NotOnnx."""
        header = self.header()
        told = described(self.folder, TAGGERS)
        if told is not None:
            return told
        for spec in TAGGERS:
            if spec.recognise(self.folder, header):
                return spec
        reason = f"input {header.inputs[0].shape}, files {', '.join(sorted(os.listdir(self.folder))[:8])}"
        raise UnknownTagger(
            path=self.name, known=", ".join(spec.title for spec in TAGGERS if spec not in WD_MODELS), reason=reason
        )

    def thresholds(self) -> dict[str, float]:
        """By category: the kind's own, with those that the user keeps for this model over them."""
        return {**self.spec().thresholds, **self._own().thresholds}

    def mcut(self) -> tuple[str, ...]:
        """Categories that the user keeps MCut on for with this model."""
        return self._own().mcut

    def keep(self, thresholds: Mapping[str, float], mcut: Sequence[str]) -> None:
        """Store both with the model: every dataset tagged with it for the first time from now on starts with them."""
        own = Own(thresholds=dict(thresholds), mcut=tuple(mcut))
        with replacing(self.own_thresholds, "w") as file:
            file.write(own.model_dump_json(indent=2) + "\n")

    def _own(self) -> Own:
        with as_file_error(self.own_thresholds):
            try:
                data = json.loads(self.own_thresholds.read_text("utf-8"))
            except FileNotFoundError:
                return Own()
            except ValueError as error:
                raise InvalidSetting(where=self.own_thresholds, name="JSON", value="", reason=str(error)) from error
            return checked(Own, data if isinstance(data, dict) else {"thresholds": data}, self.own_thresholds.name)


def installed(workspace: Workspace) -> list[InstalledTagger]:
    """Taggers under models/taggers and the bundled one. Nothing but names is read."""
    found = []
    for name in workspace.list_models("taggers"):
        if not name.endswith(".onnx"):
            continue
        file = workspace.model_path("taggers", name)
        short = name.removesuffix("/model.onnx")
        own = file.parent / "thresholds.json"
        if file.is_relative_to(BUNDLED):
            own = workspace.models / "taggers" / f"{short}.thresholds.json"
        found.append(InstalledTagger(short, file, own))
    return found


def tagger(workspace: Workspace, name: str) -> InstalledTagger:
    """An installed tagger by its name; its file name will do as well."""
    known = installed(workspace)
    for one in known:
        if name in (one.name, f"{one.name}/model.onnx"):
            return one
    listed = ", ".join(one.name for one in known) or "none"
    raise NotFound(
        what="tagger",
        what_zh="打标器",
        name=name,
        remedy=f"Installed: {listed}. Put model and tag list into models/taggers/NAME.",
        remedy_zh=f"已安装：{listed}。请将模型和标签表放入 models/taggers/名称。",
    )


def all_folders(workspace: Workspace) -> list[ModelFolder]:
    """Under models/captioners, and those of models/clip_vision with another name."""
    own = model_folders(workspace)
    names = {folder.name for folder in own}
    return [*own, *(one for one in model_folders(workspace, "clip_vision") if one.name not in names)]


def kind_of(folder: ModelFolder) -> CaptionerKind:
    """The kind of a captioner's folder, from its config.json. Raises UnknownCaptioner, BrokenFolder."""
    config = folder.config()
    for kind in CAPTIONERS:
        if kind.recognise is not None and kind.recognise(config):
            return kind
    known = ", ".join(kind.title for kind in CAPTIONERS if kind.recognise is not None)
    raise UnknownCaptioner(name=folder.name, known=known, found=repr(config.get("model_type")))


def captioner(workspace: Workspace, name: str) -> ModelFolder:
    """An installed captioner by its name."""
    known = all_folders(workspace)
    for one in known:
        if one.name == name:
            return one
    listed = ", ".join(one.name for one in known) or "none"
    raise NotFound(
        what="captioner",
        what_zh="描述模型",
        name=name,
        remedy=f"Installed: {listed}. Put the whole folder into models/captioners/NAME.",
        remedy_zh=f"已安装：{listed}。请将整个文件夹放入 models/captioners/NAME。",
    )
