"""`nodes`: the studio's own nodes as V1 classes, for packs that call or inherit them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from engine.custom.facade import facade_of
from engine.custom.host import host
from engine.custom.links import missing, node
from engine.custom.surface import folder_paths
from engine.custom.surface.comfy.model_management import throw_exception_if_processing_interrupted
from engine.graph.limits import MAX_SIDE
from engine.graph.metadata import Metadata, save_picture
from engine.graph.pictures import next_files, to_picture
from engine.workspace import replacing

MAX_RESOLUTION = MAX_SIDE
EXTENSION_WEB_DIRS: dict[str, str] = {}  # {name: folder}: what a pack adds while it loads is served as WEB_DIRECTORY is


class SaveImage:
    """Saves pictures; packs inherit it and set where they go."""

    RETURN_TYPES: ClassVar[tuple[str, ...]] = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "image"

    def __init__(self) -> None:
        self.output_dir = folder_paths.get_output_directory()
        self.type = "output"
        self.prefix_append = ""
        self.compress_level = 4

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save_images(
        self,
        images: torch.Tensor,
        filename_prefix: str = "ComfyUI",
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        height, width = images.shape[1:3]
        files = next_files(Path(self.output_dir), filename_prefix + self.prefix_append, width, height)
        more = dict(extra_pnginfo or {})
        metadata = Metadata(prompt=prompt, workflow=more.pop("workflow", None), other=more)
        shown = []
        for offset, image in enumerate(images):
            name = files.name(offset, ".png")
            with replacing(files.folder / name) as file:
                picture = to_picture(image.cpu().numpy())
                save_picture(picture, file, "PNG", metadata, compress_level=self.compress_level)
            shown.append({"filename": name, "subfolder": files.subfolder, "type": self.type})
        return {"ui": {"images": shown}}


class PreviewImage(SaveImage):
    def __init__(self) -> None:
        super().__init__()
        self.output_dir = folder_paths.get_temp_directory()
        self.type = "temp"
        self.prefix_append = "_temp_" + secrets.token_hex(3)
        self.compress_level = 1

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE", {})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }


class _Classes(Mapping[str, type]):
    """Every node by class_type: packs' own classes, the studio's nodes as classes."""

    def __getitem__(self, name: str) -> type:
        own = {"SaveImage": SaveImage, "PreviewImage": PreviewImage}
        if name not in own and name not in host().classes:
            host().classes[name] = facade_of(host().registry[name])
        return own.get(name) or host().classes[name]

    def __iter__(self) -> Iterator[str]:
        return (kind.name for kind in host().registry if not kind.declaration.internal)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in host().registry


class _Titles(Mapping[str, str]):
    def __getitem__(self, name: str) -> str:
        return host().registry[name].declaration.title

    def __iter__(self) -> Iterator[str]:
        return iter(NODE_CLASS_MAPPINGS)

    def __len__(self) -> int:
        return len(NODE_CLASS_MAPPINGS)


NODE_CLASS_MAPPINGS = _Classes()
NODE_DISPLAY_NAME_MAPPINGS = _Titles()


def __getattr__(name: str) -> Any:
    if not name.startswith("__") and name in NODE_CLASS_MAPPINGS:
        return NODE_CLASS_MAPPINGS[name]
    raise missing("nodes", name, "the studio's nodes, by the class_type that GET /object_info lists")


def before_node_execution() -> None:
    throw_exception_if_processing_interrupted()


def common_ksampler(
    model: Any,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Any,
    negative: Any,
    latent: dict[str, Any],
    denoise: float = 1.0,
    disable_noise: bool = False,
    start_step: int | None = None,
    last_step: int | None = None,
    force_full_denoise: bool = False,
) -> Any:
    """What KSampler does, or KSamplerAdvanced where steps or noise are named."""
    about = {"model": model, "steps": steps, "cfg": cfg, "sampler_name": sampler_name, "scheduler": scheduler}
    about |= {"positive": positive, "negative": negative, "latent_image": latent}
    ksampler, advanced = node("KSampler"), node("KSamplerAdvanced")
    if start_step is None and last_step is None and not disable_noise and not force_full_denoise:
        return ksampler(seed=seed, denoise=denoise, **about)
    if denoise != 1.0:
        raise ValueError(f"common_ksampler: denoise ({denoise}) together with steps or noise is not offered here")
    return advanced(
        noise_seed=seed,
        add_noise="disable" if disable_noise else "enable",
        start_at_step=start_step or 0,
        end_at_step=10_000 if last_step is None else last_step,
        return_with_leftover_noise="disable" if force_full_denoise else "enable",
        **about,
    )
