"""`folder_paths`: where models, inputs and outputs lie, as packs ask for it."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, Literal

from engine.custom.host import host
from engine.errors import EaselError
from engine.graph.pictures import next_files
from engine.workspace import MODEL_FOLDERS, MODEL_SUFFIXES

supported_pt_extensions: set[str] = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}
_OLD_NAMES = {"unet": "diffusion_models", "clip": "text_encoders"}
_MORE_FOLDERS = ("configs", "style_models", "diffusers", "gligen", "hypernetworks", "photomaker", "classifiers")

FolderEntry = tuple[list[str], set[str]]


class _Folders(MutableMapping[str, FolderEntry]):
    """{kind: (folders, suffixes)}. Those of the workspace are read from it; packs add their own."""

    def __init__(self) -> None:
        self._added: dict[str, FolderEntry] = {}

    def __getitem__(self, kind: str) -> FolderEntry:
        kind = map_legacy(kind)
        if kind in self._added:
            return self._added[kind]
        workspace = host().workspace
        entry: FolderEntry
        if kind in MODEL_FOLDERS:
            entry = ([str(path) for path in workspace.model_roots(kind)], set(MODEL_SUFFIXES))
        elif kind == "custom_nodes":
            entry = ([str(path) for path in workspace.pack_roots], set[str]())
        elif kind in _MORE_FOLDERS:
            entry = ([str(workspace.models / kind)], set(supported_pt_extensions))
        else:
            raise KeyError(kind)
        return self._added.setdefault(kind, entry)

    def __setitem__(self, kind: str, entry: Any) -> None:
        paths, suffixes = entry
        self._added[map_legacy(kind)] = ([str(path) for path in paths], set(suffixes))

    def __delitem__(self, kind: str) -> None:
        del self._added[map_legacy(kind)]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*MODEL_FOLDERS, *_MORE_FOLDERS, "custom_nodes", *self._added]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, kind: object) -> bool:
        return isinstance(kind, str) and map_legacy(kind) in set(self)


folder_names_and_paths = _Folders()


def __getattr__(name: str) -> Any:
    match name:
        case "base_path":
            return str(host().workspace.root)
        case "models_dir":
            return str(host().workspace.models)
        case "output_directory":
            return get_output_directory()
        case "input_directory":
            return get_input_directory()
        case "temp_directory":
            return get_temp_directory()
        case "user_directory":
            return get_user_directory()
    raise AttributeError(f"folder_paths has no {name!r} here (docs/custom-nodes.md)")


def map_legacy(folder_name: str) -> str:
    return _OLD_NAMES.get(folder_name, folder_name)


def get_output_directory() -> str:
    return str(host().workspace.output)


def get_input_directory() -> str:
    return str(host().workspace.input)


def get_temp_directory() -> str:
    return str(host().workspace.temp)


def get_user_directory() -> str:
    return str(host().workspace.root / "user")


def get_public_user_directory(user_id: str) -> str | None:
    return None if user_id.startswith("__") else os.path.join(get_user_directory(), user_id)


def get_directory_by_type(type_name: str) -> str | None:
    folders = {"output": get_output_directory, "input": get_input_directory, "temp": get_temp_directory}
    return folders[type_name]() if type_name in folders else None


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """("a.png", the output folder) of "a.png [output]"; the folder is None where the name says none."""
    for kind in ("output", "input", "temp"):
        if name.endswith(f"[{kind}]"):
            return name.removesuffix(f"[{kind}]").rstrip(), get_directory_by_type(kind)
    return name, None


def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
    name, folder = annotated_filepath(name)
    return os.path.join(folder or default_dir or get_input_directory(), name)


def exists_annotated_filepath(name: str) -> bool:
    return os.path.exists(get_annotated_filepath(name))


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    kind = map_legacy(folder_name)
    paths, suffixes = folder_names_and_paths[kind] if kind in folder_names_and_paths else ([], set[str]())
    others = [path for path in paths if path != str(full_folder_path)]
    place = 0 if is_default else len(others)
    folder_names_and_paths[kind] = ([*others[:place], str(full_folder_path), *others[place:]], suffixes)


def get_folder_paths(folder_name: str) -> list[str]:
    return list(folder_names_and_paths[folder_name][0])


def get_filename_list(folder_name: str) -> list[str]:
    """Files of a kind, relative to their folder. Raises KeyError for a kind that nobody has named."""
    kind = map_legacy(folder_name)
    if kind in MODEL_FOLDERS and kind not in folder_names_and_paths._added:
        return host().workspace.list_models(kind)
    paths, suffixes = folder_names_and_paths[kind]
    found: set[str] = set()
    for path in paths:
        found.update(filter_files_extensions(recursive_search(path, [".git"])[0], suffixes))
    return sorted(found)


def get_full_path(folder_name: str, filename: str) -> str | None:
    """The file of that name, in the first folder that has it. Names that lead out of the folders are nobody's."""
    for root in get_folder_paths(folder_name):
        path = os.path.join(root, os.path.relpath(os.path.join("/", filename), "/"))
        if os.path.isfile(path):
            return path
    return None


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    path = get_full_path(folder_name, filename)
    if path is None:
        raise FileNotFoundError(
            f"there is no {filename!r} in the {folder_name} folders {get_folder_paths(folder_name)}"
        )
    return path


def name_in(folder_name: str, path: Path) -> str:
    """The name by which nodes know a file of that kind. Ours: packs have no such function."""
    for root in map(Path, get_folder_paths(folder_name)):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    raise FileNotFoundError(f"{path} is in none of the {folder_name} folders {get_folder_paths(folder_name)}")


def recursive_search(directory: str, excluded_dir_names: list[str] | None = None) -> tuple[list[str], dict[str, float]]:
    """(files relative to `directory`, {folder: time of its last change})"""
    files: list[str] = []
    folders: dict[str, float] = {}
    for folder, inner, names in os.walk(directory, followlinks=True):
        inner[:] = [name for name in inner if name not in (excluded_dir_names or ())]
        folders[folder] = os.path.getmtime(folder)
        files.extend(os.path.relpath(os.path.join(folder, name), directory) for name in names)
    return files, folders


def filter_files_extensions(files: Any, extensions: Any) -> list[str]:
    """Those with one of the suffixes; all of them when no suffix is named."""
    return sorted(name for name in files if not extensions or os.path.splitext(name)[-1].lower() in extensions)


def filter_files_content_types(
    files: list[str], content_types: list[Literal["image", "video", "audio", "model"]]
) -> list[str]:
    def kind(name: str) -> str:
        if name.lower().endswith((".glb", ".gltf", ".obj", ".stl", ".fbx", ".ply")):
            return "model"
        return (mimetypes.guess_type(name)[0] or "").partition("/")[0]

    return [name for name in files if kind(name) in content_types]


def get_input_subfolders() -> list[str]:
    root = Path(get_input_directory())
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir())


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """(folder, stem, number, subfolder, prefix) of the next files of a prefix."""
    try:
        files = next_files(Path(output_dir), filename_prefix, image_width, image_height)
    except EaselError as error:
        raise ValueError(error.text("en")) from error
    return str(files.folder), files.stem, files.first, files.subfolder, filename_prefix
