"""Merges with a ratio for each block: exact weights, by the names of the maker's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.graph.catalogue import Catalogue
from engine.graph.registry import NodeType, Registry
from engine.graph.validation import validate
from engine.nodes import load_all
from engine.nodes.block_merging import model_merge_flux1, model_merge_sd1, model_merge_sd3_2b, model_merge_sdxl
from engine.nodes.loaders import checkpoint_loader_simple
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_dit import SD35, make_flux_checkpoint, make_sd3_checkpoint, tiny_flux
from tests.families.tiny_unets import SDXL, make_tiny
from tests.nodes.context import Context
from tests.nodes.test_merging import weights


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create())


def pair(ctx: Context, make: Any) -> Any:
    folder = ctx.workspace.models / "checkpoints"
    for seed in (0, 1):
        make(folder / f"{seed}.safetensors", seed)
    return [checkpoint_loader_simple(ctx, f"{seed}.safetensors")[0] for seed in (0, 1)]


def merged(ctx: Context, node: Any, models: Any, **ratios: float) -> dict[str, float]:
    """{tensor: the share of the first model that it has} of those that differ; every other ratio is 1."""
    kind = NodeType.of(node)
    given = {name: 1.0 for name, item in kind.inputs.items() if item.declared.type == "FLOAT"}
    given |= {name.replace("__", "."): ratio for name, ratio in ratios.items()}
    assert given.keys() | {"model1", "model2"} == kind.inputs.keys()
    (model,) = kind.call(ctx, model1=models[0], model2=models[1], **given)
    first, second, made = (weights(ctx, one.ref) for one in (*models, model))
    shares = {}
    for name, tensor in made.items():
        if not torch.equal(first[name], second[name]):
            mixes = {ratio: first[name] * ratio + second[name] * (1 - ratio) for ratio in given.values()}
            (shares[name],) = [ratio for ratio, mix in mixes.items() if torch.allclose(tensor, mix)]
    return shares


def changed(shares: dict[str, float], *beginnings: str) -> bool:
    """Whether those tensors, and no others, have another share than the whole."""
    return all((share != 1.0) == name.startswith(beginnings) for name, share in shares.items())


def test_blocks_of_a_unet(ctx: Context):
    models = pair(ctx, lambda path, seed: make_tiny_sd1(path, seed=seed, dtype=torch.float32))
    shares = merged(ctx, model_merge_sd1, models, input_blocks__1__=0.25, output_blocks__0__=0.5, out__=0.0)
    parts = (
        "down_blocks.0.resnets.0",
        "down_blocks.0.attentions.0",
        "up_blocks.0.resnets.0",
        "conv_out",
        "conv_norm_out",
    )
    assert changed(shares, *parts)
    assert shares["down_blocks.0.resnets.0.conv1.weight"] == 0.25
    assert shares["up_blocks.0.resnets.0.conv1.weight"] == 0.5
    assert shares["conv_out.weight"] == 0.0


def test_names_of_sdxl_end_without_a_dot(ctx: Context):
    models = pair(ctx, lambda path, seed: make_tiny(path, SDXL, seed=seed))
    shares = merged(ctx, model_merge_sdxl, models, middle_block__1=0.5, label_emb__=0.25)
    assert changed(shares, "mid_block.attentions.0", "add_embedding")
    assert shares["add_embedding.linear_1.weight"] == 0.25


def test_layers_in_one_piece_go_by_their_block(ctx: Context):
    models = pair(ctx, lambda path, seed: make_flux_checkpoint(path, tiny_flux(seed)))
    shares = merged(ctx, model_merge_flux1, models, single_blocks__1__=0.5, final_layer__=0.0, guidance_in=0.25)
    parts = ("single_transformer_blocks.1.", "norm_out", "proj_out", "time_text_embed.guidance_embedder")
    assert changed(shares, *parts)
    assert shares["single_transformer_blocks.1.attn.to_q.weight"] == 0.5 and shares["norm_out.linear.bias"] == 0.0


def test_blocks_of_sd3(ctx: Context):
    def make(path: Path, seed: int) -> None:
        make_sd3_checkpoint(path, SD35)
        save_file({name: t + seed if t.is_floating_point() else t for name, t in load_file(path).items()}, path)

    shares = merged(ctx, model_merge_sd3_2b, pair(ctx, make), joint_blocks__1__=0.5, t_embedder__=0.25)
    assert changed(shares, "transformer_blocks.1.", "time_text_embed.timestep_embedder")
    assert shares["time_text_embed.timestep_embedder.linear_1.bias"] == 0.25


def test_their_names_pass_a_prompt_and_are_judged(tmp_path: Path):
    registry = Registry()
    load_all(registry)
    catalogue = Catalogue.of(registry)
    names = [name for name in registry["ModelMergeSD1"].inputs if name not in ("model1", "model2")]
    workspace = Workspace(tmp_path).create()
    make_tiny_sd1(workspace.models / "checkpoints" / "a.safetensors")

    def errors(**other: Any) -> list[tuple[str, str]]:
        ratios: dict[str, Any] = {**dict.fromkeys(names, 1.0), **other}
        document = {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
            "2": {"class_type": "ModelMergeSD1", "inputs": {"model1": ["1", 0], "model2": ["1", 0], **ratios}},
            "3": {"class_type": "ModelSave", "inputs": {"model": ["2", 0], "filename_prefix": "x"}},
        }
        found = validate(document, catalogue, workspace).node_errors.get("2", {"errors": []})["errors"]
        return [(one["type"], one["extra_info"]["input_name"]) for one in found]

    assert errors() == []
    assert errors(**{"out.": 1.5}) == [("value_bigger_than_max", "out.")]
    assert errors(**{"input_blocks.3.": "much"}) == [("invalid_input_type", "input_blocks.3.")]
