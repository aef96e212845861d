"""`comfy_api.latest.ui`: what a node shows, and files that are saved for it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage

from engine.custom.links import missing
from engine.custom.surface import folder_paths
from engine.custom.surface.comfy_api.latest.options import FolderType
from engine.graph.metadata import Metadata, save_picture
from engine.graph.pictures import next_files, to_picture
from engine.workspace import replacing


def __getattr__(name: str) -> Any:
    raise missing("comfy_api.latest.ui", name, "previews of pictures, masks, texts, videos and 3D, and ImageSaveHelper")


class SavedResult(dict[str, str]):
    def __init__(self, filename: str, subfolder: str, type: FolderType) -> None:
        super().__init__(filename=filename, subfolder=subfolder, type=str(type))

    @property
    def filename(self) -> str:
        return self["filename"]

    @property
    def subfolder(self) -> str:
        return self["subfolder"]

    @property
    def type(self) -> FolderType:
        return FolderType(self["type"])


class _UIOutput:
    def as_dict(self) -> dict[str, Any]:
        raise NotImplementedError


class SavedImages(_UIOutput):
    def __init__(self, results: Sequence[SavedResult], is_animated: bool = False) -> None:
        self.results = list(results)
        self.is_animated = is_animated

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.results, "animated": (self.is_animated,)}


class SavedAudios(_UIOutput):
    def __init__(self, results: Sequence[SavedResult]) -> None:
        self.results = list(results)

    def as_dict(self) -> dict[str, Any]:
        return {"audio": self.results}


class PreviewImage(_UIOutput):
    """The pictures, saved into the temp folder."""

    def __init__(self, image: torch.Tensor, animated: bool = False, cls: Any = None, **_: Any) -> None:
        prefix = f"Easel_temp_{secrets.token_hex(4)}"
        self.values = ImageSaveHelper.save_images(image, prefix, FolderType.temp, cls, compress_level=1)
        self.animated = animated

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (self.animated,)}


class PreviewMask(PreviewImage):
    def __init__(self, mask: torch.Tensor, animated: bool = False, cls: Any = None, **more: Any) -> None:
        grey = mask.reshape((-1, *mask.shape[-2:])).unsqueeze(-1).expand(-1, -1, -1, 3)
        super().__init__(grey, animated, cls, **more)


class PreviewText(_UIOutput):
    def __init__(self, value: str, **_: Any) -> None:
        self.value = value

    def as_dict(self) -> dict[str, Any]:
        return {"text": (self.value,)}


class PreviewVideo(_UIOutput):
    def __init__(self, values: Sequence[SavedResult], **_: Any) -> None:
        self.values = list(values)

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (True,)}


class PreviewUI3D(_UIOutput):
    def __init__(self, model_file: str, camera_info: Any = None, **_: Any) -> None:
        self.shown = [model_file, camera_info]

    def as_dict(self) -> dict[str, Any]:
        return {"result": self.shown}


class ImageSaveHelper:
    """Saves pictures with the workflow that made them."""

    @staticmethod
    def save_images(
        images: torch.Tensor,
        filename_prefix: str,
        folder_type: FolderType,
        cls: Any = None,
        compress_level: int = 4,
    ) -> list[SavedResult]:
        height, width = images.shape[1:3]
        files = next_files(_folder(folder_type), filename_prefix, width, height)
        saved = []
        for offset, image in enumerate(images):
            name = files.name(offset, ".png")
            with replacing(files.folder / name) as file:
                picture = to_picture(image.cpu().numpy())
                save_picture(picture, file, "PNG", _metadata(cls), compress_level=compress_level)
            saved.append(SavedResult(name, files.subfolder, folder_type))
        return saved

    @staticmethod
    def get_save_images_ui(
        images: torch.Tensor, filename_prefix: str, cls: Any = None, compress_level: int = 4
    ) -> SavedImages:
        return SavedImages(ImageSaveHelper.save_images(images, filename_prefix, FolderType.output, cls, compress_level))

    @staticmethod
    def save_animated_png(
        images: torch.Tensor,
        filename_prefix: str,
        folder_type: FolderType,
        cls: Any = None,
        fps: float = 12.0,
        compress_level: int = 4,
    ) -> SavedResult:
        return _animated(images, filename_prefix, folder_type, cls, fps, "PNG", compress_level=compress_level)

    @staticmethod
    def get_save_animated_png_ui(
        images: torch.Tensor, filename_prefix: str, cls: Any = None, fps: float = 12.0, compress_level: int = 4
    ) -> SavedImages:
        one = ImageSaveHelper.save_animated_png(images, filename_prefix, FolderType.output, cls, fps, compress_level)
        return SavedImages([one], is_animated=len(images) > 1)

    @staticmethod
    def save_animated_webp(
        images: torch.Tensor,
        filename_prefix: str,
        folder_type: FolderType,
        cls: Any = None,
        fps: float = 12.0,
        lossless: bool = True,
        quality: int = 80,
        method: int = 4,
    ) -> SavedResult:
        how = {"lossless": lossless, "quality": quality, "method": method}
        return _animated(images, filename_prefix, folder_type, cls, fps, "WEBP", **how)

    @staticmethod
    def get_save_animated_webp_ui(
        images: torch.Tensor,
        filename_prefix: str,
        cls: Any = None,
        fps: float = 12.0,
        lossless: bool = True,
        quality: int = 80,
        method: int = 4,
    ) -> SavedImages:
        one = ImageSaveHelper.save_animated_webp(
            images, filename_prefix, FolderType.output, cls, fps, lossless, quality, method
        )
        return SavedImages([one], is_animated=len(images) > 1)


def _animated(
    images: torch.Tensor, prefix: str, folder_type: FolderType, cls: Any, fps: float, kind: str, **how: Any
) -> SavedResult:
    frames: list[PILImage.Image] = [to_picture(image.cpu().numpy()) for image in images]
    files = next_files(_folder(folder_type), prefix, *frames[0].size)
    name = files.name(0, f".{kind.lower()}")
    motion = {"save_all": True, "append_images": frames[1:], "duration": int(1000 / fps), "loop": 0}
    with replacing(files.folder / name) as file:
        save_picture(frames[0], file, kind, _metadata(cls), **motion, **how)
    return SavedResult(name, files.subfolder, folder_type)


def _folder(kind: FolderType) -> Path:
    folder = folder_paths.get_directory_by_type(str(kind))
    assert folder
    return Path(folder)


def _metadata(cls: Any) -> Metadata:
    hidden = getattr(cls, "hidden", None)
    more = dict(getattr(hidden, "extra_pnginfo", None) or {})
    return Metadata(prompt=getattr(hidden, "prompt", None), workflow=more.pop("workflow", None), other=more)
