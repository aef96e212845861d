"""One of the studio's nodes as a V1 class: for packs that call another node's method, or inherit it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from engine.custom.host import context, host
from engine.errors import GraphError
from engine.graph.catalogue import Catalogue
from engine.graph.registry import NodeType

# What the method is called, and the order of its arguments where that is not the order of the inputs.
METHODS: Mapping[str, tuple[str, Sequence[str]]] = {
    "KSampler": ("sample", ()),
    "KSamplerAdvanced": ("sample", ()),
    "VAEDecode": ("decode", ("vae", "samples")),
    "VAEDecodeTiled": ("decode", ("vae", "samples", "tile_size", "overlap")),
    "VAEEncode": ("encode", ("vae", "pixels")),
    "VAEEncodeTiled": ("encode", ("vae", "pixels", "tile_size", "overlap")),
    "VAEEncodeForInpaint": ("encode", ("vae", "pixels", "mask", "grow_mask_by")),
    "InpaintModelConditioning": ("encode", ()),
    "CLIPTextEncode": ("encode", ("clip", "text")),
    "CLIPSetLastLayer": ("set_last_layer", ()),
    "CheckpointLoaderSimple": ("load_checkpoint", ()),
    "LoraLoader": ("load_lora", ()),
    "LoraLoaderModelOnly": ("load_lora_model_only", ()),
    "VAELoader": ("load_vae", ()),
    "CLIPLoader": ("load_clip", ()),
    "DualCLIPLoader": ("load_clip", ()),
    "UNETLoader": ("load_unet", ()),
    "ControlNetLoader": ("load_controlnet", ()),
    "ControlNetApply": ("apply_controlnet", ()),
    "ControlNetApplyAdvanced": ("apply_controlnet", ()),
    "EmptyLatentImage": ("generate", ()),
    "LatentUpscale": ("upscale", ()),
    "LatentUpscaleBy": ("upscale", ()),
    "LatentFromBatch": ("frombatch", ()),
    "RepeatLatentBatch": ("repeat", ()),
    "SetLatentNoiseMask": ("set_mask", ()),
    "ImageScale": ("upscale", ()),
    "ImageScaleBy": ("upscale", ()),
    "ImageInvert": ("invert", ()),
    "ImageBatch": ("batch", ()),
    "ImagePadForOutpaint": ("expand_image", ()),
    "LoadImage": ("load_image", ()),
    "LoadImageMask": ("load_image", ()),
    "ConditioningCombine": ("combine", ()),
    "ConditioningConcat": ("concat", ()),
    "ConditioningAverage": ("addWeighted", ()),
    "ConditioningSetArea": ("append", ()),
    "ConditioningSetMask": ("append", ()),
    "ConditioningSetTimestepRange": ("set_range", ()),
    "ConditioningZeroOut": ("zero_out", ()),
    "UpscaleModelLoader": ("load_model", ()),
    "ImageUpscaleWithModel": ("upscale", ()),
    "CLIPVisionLoader": ("load_clip", ()),
    "CLIPVisionEncode": ("encode", ()),
}


class NotInARun(GraphError):
    en = "{name} was called outside of a running workflow. Nodes can only be called by nodes."
    zh = "{name} 在工作流之外被调用。节点只能由运行中的节点调用。"


def facade_of(kind: NodeType) -> type:
    method, order = METHODS.get(kind.name, ("execute", ()))
    names = tuple(order) or tuple(kind.inputs)

    def run(self: Any, *positional: Any, **named: Any) -> Any:
        call = context()
        if call is None:
            raise NotInARun(name=kind.name)
        given = {**dict(zip(names, positional, strict=False)), **named}
        return kind.call(call, **{name: value for name, value in given.items() if name in kind.inputs})

    def input_types(cls: type) -> dict[str, Any]:
        found = Catalogue.of([kind]).object_info(host().workspace)
        groups = found[kind.name]["input"] if kind.name in found else {"required": {}}
        return {
            group: {name: tuple(spec) if isinstance(spec, list) else spec for name, spec in inputs.items()}
            for group, inputs in groups.items()
        }

    declared = kind.declaration
    return type(
        kind.name,
        (),
        {
            "INPUT_TYPES": classmethod(input_types),
            "RETURN_TYPES": tuple(out.type for out in declared.outputs),
            "RETURN_NAMES": tuple(out.name or out.type for out in declared.outputs),
            "OUTPUT_IS_LIST": tuple(out.is_list for out in declared.outputs),
            "OUTPUT_NODE": declared.output_node,
            "INPUT_IS_LIST": declared.input_is_list,
            "CATEGORY": declared.category,
            "FUNCTION": method,
            method: functools.wraps(kind.call)(run),
        },
    )
