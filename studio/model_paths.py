"""More model folders, as ComfyUI's extra_model_paths.yaml names them."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import InvalidSetting, NotFound
from engine.workspace import MODEL_FOLDERS


def read_extra_model_paths(path: Path) -> dict[str, tuple[Path, ...]]:
    """{folder: paths}, with "custom_nodes" among the folders. Kinds that we have no folder for are left out, as is
    `is_default`."""
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
    names = {alias: folder for folder, aliases in MODEL_FOLDERS.items() for alias in aliases} | {
        "custom_nodes": "custom_nodes"
    }
    found: dict[str, list[Path]] = {}
    for section in (data or {}).values() if isinstance(data, dict) else ():
        if not isinstance(section, dict):
            continue
        base = path.parent / os.path.expandvars(os.path.expanduser(str(section.get("base_path") or ".")))
        for name, value in section.items():
            for line in str(value or "").splitlines() if name in names else ():
                if line.strip():
                    found.setdefault(names[name], []).append((base / os.path.expanduser(line.strip())).resolve())
    return {folder: tuple(dict.fromkeys(paths)) for folder, paths in found.items()}
