"""Where things lie: the workspace folder, its model folders (ComfyUI's names) and safe paths inside them.

It knows paths, not what is in the files.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from engine.errors import DiskFull, NotFound, OutsideWorkspace, StorageError

# ComfyUI's folder names; the first name of a row is where we write, the rest are read as well.
MODEL_FOLDERS: dict[str, tuple[str, ...]] = {
    "checkpoints": ("checkpoints",),
    "diffusion_models": ("diffusion_models", "unet"),
    "text_encoders": ("text_encoders", "clip"),
    "vae": ("vae",),
    "loras": ("loras",),
    "controlnet": ("controlnet",),
    "embeddings": ("embeddings",),
    "upscale_models": ("upscale_models",),
    "clip_vision": ("clip_vision",),
    "style_models": ("style_models",),
    "diffusers": ("diffusers",),
    "configs": ("configs",),
    "vae_approx": ("vae_approx",),
    "taggers": ("taggers",),
    "captioners": ("captioners",),
}
# Where nodes put models that are made here, in the output folder.
MADE_HERE = {
    "checkpoints": "checkpoints",
    "diffusion_models": "diffusion_models",
    "text_encoders": "clip",
    "vae": "vae",
    "loras": "loras",
}
MODEL_SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")
FOLDER_MARK = "model_index.json"  # what a model has that is a folder, as diffusers saves them
SUFFIXES_OF = {"configs": (".yaml", ".yml"), "diffusers": (FOLDER_MARK,)}
BUNDLED = Path(__file__).resolve().parent.parent / "configs" / "demo"


class NotWritable(StorageError):
    en = "The folder {path} can't be made ({reason}). Choose a workspace that you may write to with --workspace."
    zh = "无法创建文件夹 {path}（{reason}）。请用 --workspace 选择可写入的工作区。"


@dataclass(frozen=True)
class Workspace:
    """One folder that holds everything of one studio. Model roots of others, {folder: [path, ...]}, are searched before
    our own (`first`) or after them (`extra`)."""

    root: Path
    extra: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    output_dir: Path | None = None
    allow_pickle: bool = False  # the machine's owner lets pickle files be read (weights_only)
    first: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def tag_lists(self) -> Path:
        """CSV files of tags that are offered while somebody types."""
        return self.root / "tags"

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def output(self) -> Path:
        return self.output_dir or self.root / "output"

    @property
    def temp(self) -> Path:
        return self.root / "cache" / "temp"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def database(self) -> Path:
        return self.root / "studio.db"

    @property
    def settings_file(self) -> Path:
        return self.root / "studio.toml"

    def create(self) -> Workspace:
        """Make the folders that are missing. Returns itself. Raises NotWritable, DiskFull."""
        models = (self.models / names[0] for names in MODEL_FOLDERS.values())
        for path in (self.datasets, self.runs, self.input, self.output, self.cache, self.temp, *models):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise DiskFull(path=path, need=str(error)) from error
                raise NotWritable(path=path, reason=error.strerror or error) from error
        return self

    def model_roots(self, folder: str) -> list[Path]:
        """Folders searched for models of one kind, in order; among them the output folder's, where nodes save those
        that they make. The bundled demo models come last."""
        if folder not in MODEL_FOLDERS:
            raise NotFound(
                what="model folder",
                what_zh="模型文件夹",
                name=folder,
                remedy=f"Known: {', '.join(MODEL_FOLDERS)}.",
                remedy_zh=f"可用：{', '.join(MODEL_FOLDERS)}。",
            )
        own = [self.models / name for name in MODEL_FOLDERS[folder]]
        bundled = {"checkpoints": [BUNDLED], "taggers": [BUNDLED]}.get(folder, [])
        made = [self.output / MADE_HERE[folder]] if folder in MADE_HERE else []
        roots = (*self.first.get(folder, ()), *own, *self.extra.get(folder, ()), *made, *bundled)
        return [path for path in dict.fromkeys(roots) if os.path.isdir(path)]

    @property
    def pack_roots(self) -> list[Path]:
        """Folders of node packs, in the order they load."""
        kind = "custom_nodes"
        return list(dict.fromkeys((*self.first.get(kind, ()), self.root / kind, *self.extra.get(kind, ()))))

    def list_models(self, folder: str) -> list[str]:
        """Names relative to their root, with forward slashes, sorted, each once; of "diffusers" those of folders."""
        names: set[str] = set()
        suffixes = SUFFIXES_OF.get(folder, MODEL_SUFFIXES)
        for root in self.model_roots(folder):
            for directory, folders, files in os.walk(root, followlinks=True):
                folders[:] = [one for one in folders if not _leads_back(directory, one)]
                for file in files:
                    if not file.lower().endswith(suffixes) or not self._belongs(folder, root, file):
                        continue
                    path = Path(directory) if folder == "diffusers" else Path(directory, file)
                    name = path.relative_to(root).as_posix()
                    if is_text(name) and os.path.isfile(os.path.join(directory, file)):  # no link to nowhere
                        names.add(name)
        return sorted(names)

    def model_path(self, folder: str, name: str) -> Path:
        """The file (of "diffusers" the folder) of a model by its listed name. Links lead where they lead: the owner of
        the machine made them.

        Raises NotFound, or OutsideWorkspace for absolute names and those with '..'.
        """
        parts = name.replace("\\", "/").split("/")
        if "\0" in name or ".." in parts or name.startswith(("/", "\\")) or Path(name).drive:
            raise OutsideWorkspace(path=name.replace("\0", "\\0"), root=self.models / folder)
        for root in self.model_roots(folder):
            if os.path.isfile(root / name / FOLDER_MARK if folder == "diffusers" else root / name):
                return root / name
        raise NotFound(
            what=f"file in models/{folder}",
            what_zh=f" models/{folder} 中的文件",
            name=name,
            remedy=f"Put it into {self.models / folder}.",
            remedy_zh=f"请将其放入 {self.models / folder}。",
        )

    @staticmethod
    def _belongs(folder: str, root: Path, file: str) -> bool:
        if root != BUNDLED:
            return True
        return file.endswith(".onnx") == (folder == "taggers")


def is_text(name: str) -> bool:
    """Whether a file name can be shown and sent: names on disk may hold bytes that are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def inside(root: Path, name: str) -> Path:
    """`root / name` when that stays inside root (links followed), else OutsideWorkspace."""
    if "\0" in name:
        raise OutsideWorkspace(path=name.replace("\0", "\\0"), root=root)
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise OutsideWorkspace(path=name, root=root)
    return root / name


@contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO]:
    """A file to write that takes the place of `path` only when all went well; nothing half-written is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    try:
        encoding, newline = (None, None) if "b" in mode else ("utf-8", "")
        with os.fdopen(handle, mode, encoding=encoding, newline=newline) as file:
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise DiskFull(path=path, need=str(error)) from error
        raise
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _leads_back(directory: str, folder: str) -> bool:
    """A link to a folder that it lies in would be walked for ever."""
    path = os.path.join(directory, folder)
    return os.path.islink(path) and Path(os.path.realpath(directory)).is_relative_to(os.path.realpath(path))
