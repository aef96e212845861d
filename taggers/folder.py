"""A captioner's folder under models/captioners as its publisher gives it: config.json, safetensors, tokenizer files.

Read here are names, sizes and headers; torch-free, and nothing is fetched.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import FileError
from engine.weights.header import PickleFile, TensorInfo, read_header
from engine.workspace import Workspace

_EDGE = 1 << 20  # bytes at both ends of a weights file that its fingerprint covers, beside its header


class BrokenFolder(FileError):
    en = "The captioner {name} can't be used: {reason}. Download the whole folder again."
    zh = "无法使用描述模型 {name}：{reason}。请重新下载整个文件夹。"


@dataclass(frozen=True)
class ModelFolder:
    """`name` is relative to models/captioners, with forward slashes."""

    name: str
    path: Path

    def config(self) -> dict[str, Any]:
        return self.json("config.json")

    def json(self, file: str) -> dict[str, Any]:
        try:
            data = json.loads((self.path / file).read_bytes().decode("utf-8-sig"))
        except FileNotFoundError as error:
            raise BrokenFolder(name=self.name, reason=f"{file} is missing") from error
        except (ValueError, OSError, RecursionError) as error:
            raise BrokenFolder(name=self.name, reason=f"{file} can't be read ({error})") from error
        if not isinstance(data, dict):
            raise BrokenFolder(name=self.name, reason=f"{file} is no JSON object")
        return data

    def has(self, *files: str) -> bool:
        return any((self.path / file).is_file() for file in files)

    def weights(self) -> list[Path]:
        """The safetensors files, every shard that the index names. Raises BrokenFolder, PickleFile."""
        if self.has("model.safetensors.index.json"):
            table = self.json("model.safetensors.index.json").get("weight_map")
            names = sorted({str(file) for file in table.values()}) if isinstance(table, dict) else []
        else:
            names = ["model.safetensors"] if self.has("model.safetensors") else []
        if not names:
            found = next(iter(sorted(self.path.glob("*.bin"))), None)
            if found is not None:
                raise PickleFile(path=found.name)
            raise BrokenFolder(name=self.name, reason="it has no model.safetensors")
        missing = [file for file in names if not self.has(file) or "/" in file]
        if missing:
            raise BrokenFolder(name=self.name, reason=f"{missing[0]} is missing")
        return [self.path / file for file in names]

    def tensors(self) -> dict[str, TensorInfo]:
        """All tensors of all files by name. Raises what read_header does for broken and cut-off files."""
        found: dict[str, TensorInfo] = {}
        for path in self.weights():
            found |= read_header(path).tensors
        return found

    def nbytes(self) -> int:
        return sum(path.stat().st_size for path in self.weights())

    def version(self) -> str:
        """The model's identity, whatever its folder is called: a hash of its config, and of each weights file's size,
        header and both ends. Seventeen gigabytes are not read for it."""
        digest = hashlib.blake2b(json.dumps(self.config(), sort_keys=True).encode(), digest_size=12)
        for path in self.weights():
            size = path.stat().st_size
            with open(path, "rb") as file:
                length = min(int.from_bytes(file.read(8), "little"), size)
                digest.update(str(size).encode() + file.read(length + _EDGE))
                file.seek(max(0, size - _EDGE))
                digest.update(file.read(_EDGE))
        return digest.hexdigest()


def model_folders(workspace: Workspace, folder: str = "captioners") -> list[ModelFolder]:
    """Folders with a config.json under models/captioners and the extra roots. Nothing but names is read."""
    found: dict[str, ModelFolder] = {}
    for root in workspace.model_roots(folder):
        for directory, folders, files in os.walk(root, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            place = Path(directory)
            if "config.json" in files and place != root:
                folders.clear()  # a model's own subfolders are its business; this also ends loops of links
                name = place.relative_to(root).as_posix()
                found.setdefault(name, ModelFolder(name, place))
            elif len(place.relative_to(root).parts) >= 3:
                folders.clear()
    return [found[name] for name in sorted(found)]


def config_value(config: Mapping[str, Any], *names: str, default: Any = None) -> Any:
    """The first of several names that the config has, in its text config as well."""
    for place in (config, config.get("text_config") or {}):
        for name in names:
            if isinstance(place, Mapping) and place.get(name) is not None:
                return place[name]
    return default


def first_line(error: BaseException) -> str:
    """What a library's error says, short enough for one of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
