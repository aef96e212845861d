"""Folders of diffusers, checkpoints with a config, and what T5 is given to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.errors import NotFound, OutsideWorkspace
from engine.nodes.conditioning import clip_text_encode
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.model_saving import checkpoint_save
from engine.nodes.old_loaders import BadConfig, _folder_digest, checkpoint_loader, diffusers_loader
from engine.nodes.tokenizer_options import t5_tokenizer_options
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_dit import make_flux_checkpoint
from tests.families.tiny_unets import SDXL, make_tiny_folder, tiny_unet_modules
from tests.nodes.context import Context
from tests.nodes.test_model_saving import same, saved, weights

CONFIG = """
model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    {parameterization}
    scale_factor: 0.18215
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      {params}
"""


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create())


def folder(ctx: Context, name: str = "author/model") -> Path:
    path = make_tiny_folder(ctx.workspace.models / "diffusers" / name, SDXL)
    (path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    return path


def test_folders_are_listed_by_their_index_and_loaded(ctx: Context):
    folder(ctx)
    (ctx.workspace.models / "diffusers" / "no model").mkdir()
    assert ctx.workspace.list_models("diffusers") == ["author/model"]
    model, clip, vae = diffusers_loader(ctx, "author/model")
    made = tiny_unet_modules(SDXL)
    assert model.family.spec.name == "sdxl" and clip.names == ("l", "g")
    assert same(weights(ctx, model.ref), made.unet.state_dict()) and same(weights(ctx, vae.ref), made.vae.state_dict())


def test_a_folder_that_changed_is_loaded_anew(ctx: Context):
    path = folder(ctx)
    before = _folder_digest(ctx, "author/model")
    assert before == _folder_digest(ctx, "author/model")
    config = path / "vae" / "config.json"
    config.write_text(config.read_text().replace("0.18215", "0.5"))
    assert before != _folder_digest(ctx, "author/model")


@pytest.mark.parametrize("name", ["../author", "/etc", "a/../../b"])
def test_a_folder_outside_is_refused(ctx: Context, name: str):
    with pytest.raises(OutsideWorkspace):
        diffusers_loader(ctx, name)
    with pytest.raises(NotFound, match="nothing"):
        diffusers_loader(ctx, "nothing")


def test_a_folder_is_saved_as_one_checkpoint(ctx: Context):
    folder(ctx)
    parts = diffusers_loader(ctx, "author/model")
    (path,) = saved(ctx, checkpoint_save(ctx, *parts, "checkpoints/one"))
    again = checkpoint_loader_simple(ctx, path.name)
    assert again[0].config == parts[0].config and again[2].config == parts[2].config
    for one, other in zip(parts, again, strict=True):
        refs = zip(getattr(one, "refs", None) or [one.ref], getattr(other, "refs", None) or [other.ref], strict=True)
        for first, second in refs:
            expected = weights(ctx, first)
            if "text_projection.weight" in expected:  # OpenCLIP's matrix in the one file, a linear layer in the folder
                expected["text_projection"] = expected.pop("text_projection.weight").T
            assert same(expected, weights(ctx, second))


@pytest.mark.parametrize(
    ("parameterization", "params", "prediction", "layer"),
    [("", "", "eps", None), ('parameterization: "v"', "params: {layer_idx: -2}", "v", -2)],
)
def test_a_config_says_what_is_predicted_and_which_layer_is_read(
    ctx: Context, parameterization: str, params: str, prediction: str, layer: int | None
):
    make_tiny_sd1(ctx.workspace.models / "checkpoints" / "a.safetensors")
    (ctx.workspace.models / "configs" / "v1.yaml").write_text(
        CONFIG.format(parameterization=parameterization, params=params)
    )
    assert ctx.workspace.list_models("configs") == ["v1.yaml"]
    model, clip, vae = checkpoint_loader(ctx, "v1.yaml", "a.safetensors")
    plain = checkpoint_loader_simple(ctx, "a.safetensors")
    assert (model.prediction, clip.stop_at_layer) == (prediction, layer)
    assert (model.ref, clip.refs, vae.ref) == (plain[0].ref, plain[1].refs, plain[2].ref)


@pytest.mark.parametrize("text", ["", "model: {}", "{", "model: {params: {cond_stage_config: [1]}}", "\x00"])
def test_what_is_no_config_is_refused(ctx: Context, text: str):
    make_tiny_sd1(ctx.workspace.models / "checkpoints" / "a.safetensors")
    (ctx.workspace.models / "configs" / "v1.yaml").write_text(text)
    with pytest.raises(BadConfig, match="Use Load Checkpoint"):
        checkpoint_loader(ctx, "v1.yaml", "a.safetensors")


def test_texts_of_t5_are_filled_up_as_asked(ctx: Context):
    make_flux_checkpoint(ctx.workspace.models / "checkpoints" / "flux.safetensors")
    clip = checkpoint_loader_simple(ctx, "flux.safetensors")[1]

    def encoded(more: int, least: int) -> torch.Tensor:
        (told,) = t5_tokenizer_options(ctx, clip, more, least)
        drafted = told.family.draft_prompt(told, "a red fox").cross
        (found,) = clip_text_encode(ctx, "a red fox", told)
        assert drafted.shape == found[0][0].shape
        return found[0][0]

    bare = encoded(0, 0)
    tokens = bare.shape[1]
    assert 4 <= tokens <= 8
    assert encoded(3, 0).shape[1] == tokens + 3 and encoded(3, 20).shape[1] == 20
    assert torch.equal(encoded(16 - tokens, 0), encoded(0, 16))
    usual = clip_text_encode(ctx, "a red fox", clip)[0][0][0]
    assert usual.shape[1] == 256 and torch.equal(usual, encoded(0, 256))
