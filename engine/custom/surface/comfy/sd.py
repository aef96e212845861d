"""`comfy.sd`: checkpoints and LoRAs of the model folders by their paths. A dict of weights becomes no model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from engine.custom.facade import within_a_call
from engine.custom.links import lent_all, missing, node
from engine.custom.stands import stands_for
from engine.custom.surface import folder_paths
from engine.custom.surface.comfy.utils import FileTensors
from engine.families.base import Clip, Vae
from engine.families.discover import family_of
from engine.weights.load import open_header

CLIP = stands_for(Clip, "comfy.sd.CLIP", "comfy.sd.load_checkpoint_guess_config or nodes.CLIPLoader")
VAE = stands_for(Vae, "comfy.sd.VAE", "nodes.VAELoader().load_vae(name)")


def __getattr__(name: str) -> Any:
    raise missing("comfy.sd", name, "load_checkpoint_guess_config, load_lora_for_models, and CLIP and VAE as types")


def load_checkpoint_guess_config(
    ckpt_path: str | os.PathLike[str],
    output_vae: bool = True,
    output_clip: bool = True,
    output_clipvision: bool = False,
    embedding_directory: Any = None,
    output_model: bool = True,
    **_: Any,
) -> tuple[Any, Any, Any, None]:
    """(model, clip, vae, None); None for what is not asked for."""
    if output_clipvision:
        raise ValueError("comfy.sd.load_checkpoint_guess_config: output_clipvision is not offered")
    call = within_a_call("comfy.sd.load_checkpoint_guess_config")
    path, allow_pickle = Path(ckpt_path), call.workspace.allow_pickle
    family = family_of(open_header(path, allow_pickle=allow_pickle))
    embeddings = call.workspace.model_roots("embeddings")
    parts = family.load_checkpoint(call.models, path, embeddings, allow_pickle=allow_pickle)
    found = (
        parts.model if output_model else None,
        parts.clip if output_clip else None,
        parts.vae if output_vae else None,
    )
    return (*lent_all(found), None)


def load_lora_for_models(
    model: Any, clip: Any, lora: Any, strength_model: float, strength_clip: float
) -> tuple[Any, Any]:
    """`lora` as comfy.utils.load_torch_file read it from a file of the LoRA folders; it is matched by its file."""
    if not isinstance(lora, FileTensors):
        raise TypeError("comfy.sd.load_lora_for_models takes what comfy.utils.load_torch_file returned, unchanged")
    name = folder_paths.name_in("loras", lora.path)
    if model is None:
        raise ValueError("comfy.sd.load_lora_for_models: a LoRA for text encoders alone is not offered")
    if clip is None:
        return (*node("LoraLoaderModelOnly")(model=model, lora_name=name, strength_model=strength_model), None)
    strengths = {"strength_model": strength_model, "strength_clip": strength_clip}
    return node("LoraLoader")(model=model, clip=clip, lora_name=name, **strengths)
