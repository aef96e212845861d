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
    "VAEDecode": ("decode", ("vae", "samples")),
    "VAEDecodeTiled": ("decode", ("vae", "samples", "tile_size", "overlap")),
    "VAEEncode": ("encode", ("vae", "pixels")),
    "VAEEncodeTiled": ("encode", ("vae", "pixels", "tile_size", "overlap")),
    "VAEEncodeForInpaint": ("encode", ("vae", "pixels", "mask", "grow_mask_by")),
    "CLIPTextEncode": ("encode", ("clip", "text")),
    **{
        name: (method, ())
        for method, names in {
            "sample": "KSampler KSamplerAdvanced SamplerCustom SamplerCustomAdvanced",
            "encode": "InpaintModelConditioning CLIPVisionEncode CLIPTextEncodeSDXL CLIPTextEncodeSDXLRefiner "
            "CLIPTextEncodeFlux InstructPixToPixConditioning",
            "load_checkpoint": "CheckpointLoaderSimple CheckpointLoader",
            "load_lora": "LoraLoader",
            "load_lora_model_only": "LoraLoaderModelOnly",
            "load_vae": "VAELoader",
            "load_clip": "CLIPLoader DualCLIPLoader TripleCLIPLoader CLIPVisionLoader",
            "load_unet": "UNETLoader",
            "load_controlnet": "ControlNetLoader DiffControlNetLoader",
            "load_model": "UpscaleModelLoader",
            "load_image": "LoadImage LoadImageMask LoadImageOutput",
            "apply_controlnet": "ControlNetApply ControlNetApplyAdvanced",
            "set_last_layer": "CLIPSetLastLayer",
            "generate": "EmptyLatentImage EmptySD3LatentImage EmptyImage",
            "upscale": "LatentUpscale LatentUpscaleBy ImageScale ImageScaleBy ImageUpscaleWithModel "
            "ImageScaleToTotalPixels",
            "frombatch": "LatentFromBatch ImageFromBatch",
            "repeat": "RepeatLatentBatch RepeatImageBatch",
            "set_mask": "SetLatentNoiseMask",
            "invert": "ImageInvert InvertMask",
            "batch": "ImageBatch LatentBatch",
            "expand_image": "ImagePadForOutpaint",
            "combine": "ConditioningCombine MaskComposite",
            "concat": "ConditioningConcat",
            "addWeighted": "ConditioningAverage",
            "append": "ConditioningSetArea ConditioningSetAreaPercentage ConditioningSetAreaStrength "
            "ConditioningSetMask FluxGuidance",
            "set_range": "ConditioningSetTimestepRange",
            "zero_out": "ConditioningZeroOut",
            "composite": "LatentComposite LatentCompositeMasked ImageCompositeMasked",
            "crop": "LatentCrop ImageCrop CropMask",
            "rotate": "LatentRotate",
            "flip": "LatentFlip",
            "solid": "SolidMask",
            "mask_to_image": "MaskToImage",
            "image_to_mask": "ImageToMask ImageColorToMask",
            "expand_mask": "GrowMask",
            "feather": "FeatherMask",
            "get_sigmas": "BasicScheduler KarrasScheduler ExponentialScheduler PolyexponentialScheduler "
            "SDTurboScheduler BetaSamplingScheduler VPScheduler SplitSigmas SplitSigmasDenoise FlipSigmas",
            "get_sampler": "KSamplerSelect SamplerDPMPP_2M_SDE SamplerDPMPP_SDE SamplerEulerAncestral",
            "get_noise": "RandomNoise DisableNoise",
            "get_guider": "BasicGuider CFGGuider DualCFGGuider",
            "add_noise": "AddNoise",
            "patch": "ModelSamplingFlux ModelSamplingSD3 ModelSamplingDiscrete ModelSamplingContinuousEDM RescaleCFG "
            "FreeU FreeU_V2 PerturbedAttentionGuidance HyperTile PatchModelAddDownscale SelfAttentionGuidance",
            "patch_aura": "ModelSamplingAuraFlow",
            "apply": "DifferentialDiffusion",
            "detect_edge": "Canny",
            "blend_images": "ImageBlend",
            "blur": "ImageBlur",
            "quantize": "ImageQuantize",
            "sharpen": "ImageSharpen",
            "merge": "ModelMergeSimple ModelMergeBlocks CLIPMergeSimple",
        }.items()
        for name in names.split()
    },
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

    def run(*positional: Any, **named: Any) -> Any:
        if len(positional) > len(names):
            raise TypeError(f"{kind.name} takes {len(names)} inputs, not {len(positional)}: {', '.join(names)}")
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
            # both on an instance, as V1 nodes are called, and on the class, as V3 nodes are
            **dict.fromkeys((method, "execute"), staticmethod(functools.wraps(kind.call)(run))),
        },
    )
