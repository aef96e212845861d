"""Small autoencoders that stand in for a family's own (TAESD, https://github.com/madebyollin/taesd): a thousandth of
the work, near enough for previews. Torch-free; the files lie in models/vae_approx under the names they came by.

An encoder and a decoder each in a file of its own (`taesd_encoder`, `taesd_decoder`), or both in one of diffusers'
(`taesd`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import FileError, NotFound
from engine.families.base import Vae
from engine.families.discover import family
from engine.weights.header import Header

if TYPE_CHECKING:
    from engine.models.device import Device
    from engine.models.loaded import Loaded
    from engine.models.manager import ModelManager
    from engine.workspace import Workspace

FOLDER = "vae_approx"
FAMILIES: Mapping[str, str] = {"taesd": "sd1", "taesdxl": "sdxl", "taesd3": "sd3", "taef1": "flux"}


class NotApproximate(FileError):
    en = "{path} is not the {part} of a TAESD autoencoder: {name} is missing. Get the file again."
    zh = "{path} 不是 TAESD 自编码器的 {part}：缺少 {name}。请重新获取该文件。"


def approximate_names(workspace: Workspace) -> list[str]:
    """Those whose files are there."""
    return [name for name in FAMILIES if _files(workspace, name)]


def vae_names(workspace: Workspace) -> list[str]:
    """What VAELoader may load."""
    return [*workspace.list_models("vae"), *approximate_names(workspace)]


def approximate_of(workspace: Workspace, family_name: str) -> str | None:
    """The name of the stand-in for a family's VAE, where it is there. SD 2 and 1 have the same latents."""
    wanted = {"sd2": "sd1", "sdxl_refiner": "sdxl"}.get(family_name, family_name)
    return next((name for name in approximate_names(workspace) if FAMILIES[name] == wanted), None)


def files_of(workspace: Workspace, name: str) -> tuple[Path, ...]:
    """Raises NotFound."""
    files = _files(workspace, name)
    if not files:
        remedy = f"Put {name}_encoder.safetensors and {name}_decoder.safetensors into models/{FOLDER}."
        remedy_zh = f"请将 {name}_encoder.safetensors 和 {name}_decoder.safetensors 放入 models/{FOLDER}。"
        raise NotFound(what="VAE", what_zh="VAE", name=name, remedy=remedy, remedy_zh=remedy_zh)
    return files


def load_approximate(manager: ModelManager, workspace: Workspace, name: str) -> Vae:
    """Raises NotFound, NotApproximate."""
    from engine.families.parts.precision import compute_dtype
    from engine.models.manager import ModelSpec
    from engine.weights.load import open_header

    files = files_of(workspace, name)
    headers = [open_header(path, allow_pickle=workspace.allow_pickle) for path in files]
    halves = _halves(headers)
    dtype = compute_dtype(manager.device, "vae")
    own = family(FAMILIES[name])
    width, channels = halves["decoder"].shape("layers.0.weight")[:2]
    config = {"width": width, "channels": channels, "scale": own.spec.latent.scale, "shift": own.spec.latent.shift}

    def load(device: Device) -> Loaded:
        from engine.families.parts import tiny_vae
        from engine.models.loaded import TorchModel

        return TorchModel(tiny_vae.filled(halves, config, dtype))

    nbytes = sum(tensor.nbytes for header in headers for tensor in header.tensors.values())
    digest = "+".join(header.digest for header in headers)
    ref = manager.add(ModelSpec(f"{digest}/{name}/{dtype}", "vae", name, nbytes * 2, load))
    return Vae(own, ref, config, own.spec.latent, 8)


@dataclass(frozen=True)
class Half:
    """One half of the autoencoder as it lies in a file. `names`: {diffusers' name: the file's}."""

    header: Header
    names: Mapping[str, str]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.header.shape(self.names[name])


def _halves(headers: list[Header]) -> dict[str, Half]:
    found: dict[str, Half] = {}
    for part, header in zip(("encoder", "decoder"), headers * (3 - len(headers)), strict=False):
        names = {own: name for name in header.tensors if (own := _own_name(part, name))}
        if "layers.0.weight" not in names:
            missing = f"{part}.layers.0.weight"
            raise NotApproximate(path=header.path, part=part, name=missing)
        found[part] = Half(header, names)
    return found


def _own_name(part: str, name: str) -> str | None:
    """diffusers' name within a half, from theirs or from places in the first code; its decoder begins by clamping."""
    if name.startswith(f"{part}.layers."):
        return name.removeprefix(f"{part}.")
    place = re.fullmatch(rf"(?:taesd_{part}\.|{part}\.)?(\d+)\.(.+)", name)
    if place is None:
        return None
    return f"layers.{int(place[1]) - (part == 'decoder')}.{place[2]}"


def _files(workspace: Workspace, name: str) -> tuple[Path, ...]:
    listed: dict[str, str] = {}
    for file in workspace.list_models(FOLDER):
        listed.setdefault(file.rpartition(".")[0], file)
    if name in listed:
        return (workspace.model_path(FOLDER, listed[name]),)
    pair = [f"{name}_encoder", f"{name}_decoder"]
    return tuple(workspace.model_path(FOLDER, listed[half]) for half in pair) if all(h in listed for h in pair) else ()
