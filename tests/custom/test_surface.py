"""The names that packs import: what there is resolves, what there is not says what there is instead."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from engine.custom.packs import load_packs
from tests.custom.conftest import Packs

# Import lines as packs of many kinds have them.
RESOLVE = """
import comfy.sd, comfy.utils, comfy.sample, comfy.samplers, comfy.model_management as mm, comfy.latent_formats
import nodes, node_helpers, folder_paths, latent_preview, server
from comfy import model_management, samplers, utils, latent_formats
from comfy.utils import ProgressBar, common_upscale, load_torch_file, lanczos, tiled_scale, get_tiled_scale_steps
from comfy.utils import repeat_to_batch_size, save_torch_file, state_dict_prefix_replace, calculate_parameters, bislerp
from comfy.model_management import get_torch_device, soft_empty_cache, throw_exception_if_processing_interrupted
from comfy.model_management import InterruptProcessingException, intermediate_device, unet_offload_device, vae_device
from comfy.model_management import processing_interrupted, load_models_gpu, load_model_gpu, free_memory, cast_to_device
from comfy.model_management import current_loaded_models, should_use_bf16, should_use_fp16, OOM_EXCEPTION, vae_dtype
from comfy.samplers import KSampler, KSAMPLER, SAMPLER_NAMES, SCHEDULER_NAMES, calculate_sigmas, sampler_object
from comfy.sample import prepare_noise, fix_empty_latent_channels, sample, sample_custom
from comfy.sd import VAE, CLIP, load_checkpoint_guess_config, load_lora_for_models
from comfy.controlnet import load_controlnet, ControlNet, ControlBase
from comfy.k_diffusion.sampling import get_sigmas_karras, get_sigmas_exponential, append_zero, to_d, get_ancestral_step
from comfy.model_base import BaseModel, ModelType
from comfy.model_patcher import ModelPatcher
from comfy.latent_formats import SDXL, SD15, SD3, Flux
from comfy.cli_args import args, LatentPreviewMethod
from comfy.comfy_types import IO, ComfyNodeABC, InputTypeDict, CheckLazyMixin
from comfy.comfy_types.node_typing import IO as IO2, ComfyNodeABC as ABC2
from comfy_execution.graph import ExecutionBlocker, DynamicPrompt
from comfy_execution.graph_utils import GraphBuilder, is_link, ExecutionBlocker as Blocker
from comfy_execution.utils import get_executing_context
from comfy_extras.nodes_custom_sampler import Noise_EmptyNoise, Noise_RandomNoise, BasicScheduler, SamplerCustomAdvanced
from comfy_extras.nodes_mask import MaskComposite, GrowMask
from comfy_extras.nodes_model_advanced import ModelSamplingFlux, ModelSamplingAuraFlow, RescaleCFG
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader
from comfy_extras import nodes_clip_sdxl, nodes_differential_diffusion
from comfy_api.latest import io, ui, IO as IO3, UI, ComfyExtension, ComfyAPI, ComfyAPISync, Input, InputImpl, Types
from comfy_api.latest._io import ComfyNode, Schema
from comfy_api.latest._ui import ImageSaveHelper
from comfy_api.v0_0_2 import io as io2, ui as ui2, ComfyExtension as Extension2
from folder_paths import get_filename_list, get_full_path, get_full_path_or_raise, models_dir, base_path
from folder_paths import folder_names_and_paths, supported_pt_extensions, add_model_folder_path, get_save_image_path
from latent_preview import prepare_callback
from node_helpers import conditioning_set_values, pillow
from nodes import MAX_RESOLUTION, NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, common_ksampler, SaveImage
from nodes import CLIPTextEncode, VAEDecode, VAEEncode, KSampler as K, LoraLoader, ControlNetApplyAdvanced, LoadImage
from nodes import EmptyLatentImage, ConditioningZeroOut, VAEEncodeForInpaint, CheckpointLoaderSimple, UNETLoader
from server import PromptServer, BinaryEventTypes
""".strip().splitlines()


@pytest.mark.parametrize("line", RESOLVE)
def test_it_resolves(packs: Packs, line: str) -> None:
    exec(line, {})


def test_submodules_are_found_on_their_packages(packs: Packs) -> None:
    comfy = importlib.import_module("comfy")
    assert comfy.model_management is sys.modules["comfy.model_management"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "from comfy.utils import set_progress_bar_global_hook",
            "Easel's comfy.utils has FileTensors, PROGRESS_BAR_ENABLED, ProgressBar, bislerp",
        ),
        ("import comfy.ldm.modules.attention", "'comfy.ldm' is not among the modules that Easel offers"),
        ("from comfy_extras.nodes_hypernetwork import HypernetworkLoader", "cannot import name 'HypernetworkLoader'"),
        ("import comfy.sd\ncomfy.sd.load_clip", "comfy.sd has no 'load_clip' in Easel. It has load_checkpoint_guess"),
        ("import nodes\nnodes.NoSuchNode", "nodes has no 'NoSuchNode' in Easel. It has the studio's nodes"),
        ("from server import PromptServer\nPromptServer.instance.sockets", "PromptServer.instance has no 'sockets'"),
    ],
)
def test_what_is_missing_says_what_there_is_in_the_list_of_packs(
    packs: Packs, tmp_path: Path, line: str, words: str
) -> None:
    (tmp_path / "needy.py").write_text(line)
    (pack,) = load_packs([tmp_path], packs.host)
    assert words in pack.error, pack.error


def test_a_pack_that_lacks_a_package_names_its_own_list(packs: Packs, tmp_path: Path) -> None:
    (tmp_path / "needy").mkdir()
    (tmp_path / "needy" / "__init__.py").write_text("import no_such_package_anywhere")
    assert "requirements.txt" not in load_packs([tmp_path], packs.host)[0].error
    (tmp_path / "needy" / "requirements.txt").write_text("no-such-package-anywhere")
    (pack,) = load_packs([tmp_path], packs.host)
    assert pack.error.endswith(f"-m pip install -r {tmp_path / 'needy' / 'requirements.txt'}\n")


def test_nodes_as_classes_are_called_on_the_class_and_on_an_instance(packs: Packs) -> None:
    nodes = sys.modules["nodes"]
    assert nodes.BasicScheduler.FUNCTION == "get_sigmas" and callable(nodes.BasicScheduler.execute)
    with pytest.raises(TypeError, match="ImageInvert takes 1 inputs, not 2: image"):
        nodes.ImageInvert().invert(1, 2)


def test_every_method_belongs_to_a_node_that_there_is_or_may_come(packs: Packs) -> None:
    from engine.custom.facade import METHODS

    unknown = [name for name in METHODS if name not in packs.host.registry]
    assert len(unknown) < 8, unknown
