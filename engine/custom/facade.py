"""One of the studio's nodes as a V1 class: for packs that call another node's method, or inherit it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.custom.host import context, host
from engine.custom.links import lent_all
from engine.errors import GraphError
from engine.graph.catalogue import Catalogue
from engine.graph.context import CallContext
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
_HIDDEN = {"prompt", "extra_pnginfo", "unique_id", "dynprompt"}  # the studio's nodes take these from the run


class NotInARun(GraphError):
    en = "{name} was called outside of a running workflow. Nodes can only be called by nodes."
    zh = "{name} 在工作流之外被调用。节点只能由运行中的节点调用。"


def within_a_call(name: str) -> CallContext:
    """What the node that runs now may use. Raises NotInARun outside of one."""
    call = context()
    if call is None:
        raise NotInARun(name=name)
    return call


def called(kind: NodeType) -> Callable[..., Any]:
    """The node as a function of its inputs, with their defaults where they have one."""
    defaults = {name: one.declared.default for name, one in kind.inputs.items() if one.declared.default is not None}

    def call(**given: Any) -> Any:
        strange = set(given) - set(kind.inputs) - _HIDDEN
        if strange:
            raise TypeError(f"{kind.name} takes {', '.join(kind.inputs)}; not {', '.join(sorted(strange))}")
        known = {name: value for name, value in given.items() if name in kind.inputs}
        return lent_all(kind.call(within_a_call(kind.name), **{**defaults, **known}))

    return call


def facade_of(kind: NodeType) -> type:
    method, order = METHODS.get(kind.name, ("execute", ()))
    names = tuple(order) or tuple(kind.inputs)

    call = called(kind)

    def run(self: Any, *positional: Any, **named: Any) -> Any:
        return call(**{**dict(zip(names, positional, strict=False)), **named})

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
