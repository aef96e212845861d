"""More model folders, as ComfyUI's extra_model_paths.yaml names them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import InvalidSetting, NotFound
from engine.workspace import MODEL_FOLDERS


@dataclass(frozen=True)
class ModelPaths:
    """{folder: paths} to search after our own folders, and those of sections with `is_default`, to search before."""

    extra: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    first: dict[str, tuple[Path, ...]] = field(default_factory=dict)


def read_extra_model_paths(path: Path) -> ModelPaths:
    """With "custom_nodes" among the folders. Kinds that we have no folder for are left out.

    As in ComfyUI a later default goes before an earlier one, and paths are relative to base_path, that to the file.
    """
    names = {alias: folder for folder, aliases in MODEL_FOLDERS.items() for alias in aliases} | {
        "custom_nodes": "custom_nodes"
    }
    extra: dict[str, list[Path]] = {}
    first: dict[str, list[Path]] = {}
    for section in _sections(path):
        base = path.parent / os.path.expandvars(os.path.expanduser(str(section.get("base_path") or ".")))
        default = bool(section.get("is_default"))
        for name, value in section.items():
            for line in str(value or "").splitlines() if name in names else ():
                if not line.strip():
                    continue
                found = (base / os.path.expanduser(line.strip())).resolve()
                if default:
                    first.setdefault(names[name], []).insert(0, found)
                else:
                    extra.setdefault(names[name], []).append(found)
    return ModelPaths(_each_once(extra), _each_once(first))


def _each_once(found: dict[str, list[Path]]) -> dict[str, tuple[Path, ...]]:
    return {folder: tuple(dict.fromkeys(paths)) for folder, paths in found.items()}


def _sections(path: Path) -> list[dict[str, Any]]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise NotFound(
            what="file",
            what_zh="文件",
            name=str(path),
            remedy="--extra-model-paths names a ComfyUI yaml file.",
            remedy_zh="--extra-model-paths 应指向 ComfyUI 的 yaml 文件。",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidSetting(
            where=path.name, name="yaml", value=str(path), reason=f"it can't be read: {error}"
        ) from error
    return [section for section in data.values() if isinstance(section, dict)] if isinstance(data, dict) else []
