"""Hooks on a tiny checkpoint in the real layout: whom they act on, when, how much, and that nothing is left of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.families.base import Clip, LiveLora, Model
from engine.families.parts.hook import ClipHooks, Hook, Hooks, Keyframe, combined, sorted_frames
from engine.families.parts.merging import ModelsDiffer
from engine.graph.catalogue import Catalogue
from engine.graph.executor import Executor, RunContext
from engine.graph.registry import Registry
from engine.graph.strategies import cache_for
from engine.graph.validation import validate
from engine.nodes import conditioning_where as where
from engine.nodes import hooks as nodes
from engine.nodes import load_all
from engine.nodes.conditioning import clip_text_encode
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.lora import lora_loader, lora_loader_model_only
from engine.sampling.guiders import Guider, cfg_guider
from engine.sampling.model import schedule_of
from engine.sampling.noise import Noise
from engine.sampling.run import sample
from engine.sampling.samplers.table import SAMPLERS
from engine.sampling.schedulers import sigmas_for
from engine.weights.lora import LoraEntry, LoraOfOtherModel
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_dit import make_flux_checkpoint
from tests.nodes.context import Context

QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q"
DOWN = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
EMPTY = torch.zeros(1, 4, 8, 8)


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path).create()
    folder, loras = workspace.models / "checkpoints", workspace.models / "loras"
    make_tiny_sd1(folder / "tiny.safetensors", dtype=torch.float32)
    make_tiny_sd1(folder / "other.safetensors", seed=5, dtype=torch.float32)
    torch.manual_seed(3)
    pair = {".lora_down.weight": torch.randn(2, 16) * 3, ".lora_up.weight": torch.randn(16, 2) * 3}
    text = {f"{TEXT}.lora_down.weight": torch.randn(2, 32), f"{TEXT}.lora_up.weight": torch.randn(64, 2)}
    unet = {QUERY + suffix: tensor for suffix, tensor in pair.items()}
    save_file({**unet, **text}, loras / "both.safetensors")
    save_file(unet, loras / "unet.safetensors")
    dora = torch.rand(16, 1) * 3
    save_file({**unet, f"{QUERY}.dora_scale": dora}, loras / "dora.safetensors")
    save_file({f"{QUERY}.lora_down.weight": torch.randn(2, 99), f"{QUERY}.lora_up.weight": torch.randn(16, 2)},
              loras / "wrong.safetensors")  # fmt: skip
    return Context(workspace)


@pytest.fixture
def links(ctx: Context) -> tuple[Model, Clip]:
    model, clip, _ = checkpoint_loader_simple(ctx, "tiny.safetensors")
    return model, clip


def run(ctx: Context, guider: Guider, steps: int = 3, sigmas: Sequence[float] | None = None, **more: Any) -> Tensor:
    sigmas = sigmas_for(schedule_of(guider.model), "normal", steps) if sigmas is None else sigmas
    options: dict[str, Any] = {"sampler": SAMPLERS["euler"], "noise": Noise(5), "latent": EMPTY, **more}
    return sample(ctx.models, guider, sigmas=sigmas, **options).latent


def apart(one: Tensor, other: Tensor) -> float:
    """Relative L2."""
    return float((one - other).norm() / other.norm())


def hook(ctx: Context, name: str = "both.safetensors", strength: float = 1.0, clip: float = 1.0) -> Hooks:
    (hooks,) = nodes.create_hook_lora(ctx, name, strength, clip)
    return hooks


def with_lora(ctx: Context, link: tuple[Model, Clip], name: str, strength: float = 1.0) -> tuple[Model, Clip]:
    return lora_loader(ctx, *link, name, strength, strength)


def prompts(ctx: Context, clip: Clip) -> tuple[list[Any], list[Any]]:
    return clip_text_encode(ctx, "a cat", clip)[0], clip_text_encode(ctx, "blurry", clip)[0]


@pytest.mark.parametrize("name", ["both.safetensors", "dora.safetensors"])
def test_a_hook_on_one_prompt_acts_on_that_prompt_alone(ctx: Context, links: tuple[Model, Clip], name: str) -> None:
    model, clip = links
    positive, negative = prompts(ctx, clip)
    plain = run(ctx, cfg_guider(model, positive, negative, 4.0))
    hooked = where.with_hooks(positive, hook(ctx, name))
    out = run(ctx, cfg_guider(model, hooked, negative, 4.0), 1)

    changed, _ = with_lora(ctx, links, name)
    cond = run(ctx, cfg_guider(changed, positive, negative, 1.0), 1)
    uncond = run(ctx, cfg_guider(model, negative, negative, 1.0), 1)
    assert apart(out, uncond + (cond - uncond) * 4.0) < 1e-5
    assert apart(cond, run(ctx, cfg_guider(model, positive, negative, 1.0), 1)) > 1e-4
    assert torch.equal(run(ctx, cfg_guider(model, positive, negative, 4.0)), plain)
    assert all(entry["leases"] == 0 for entry in ctx.models.snapshot()["models"])


def test_on_both_prompts_it_is_a_lora(ctx: Context, links: tuple[Model, Clip]) -> None:
    model, clip = links
    sides = prompts(ctx, clip)
    hooks = hook(ctx, strength=0.7)
    out = run(ctx, cfg_guider(model, *(where.with_hooks(side, hooks) for side in sides), 4.0))
    changed, _ = with_lora(ctx, links, "both.safetensors", 0.7)
    assert apart(out, run(ctx, cfg_guider(changed, *sides, 4.0))) < 1e-5


def test_two_hooks_and_the_models_own_lora_stack(ctx: Context, links: tuple[Model, Clip]) -> None:
    sides = prompts(ctx, links[1])
    hooks = combined(hook(ctx, strength=0.3), hook(ctx, "unet.safetensors", 0.4))
    lora, _ = with_lora(ctx, links, "unet.safetensors", -0.2)
    out = run(ctx, cfg_guider(lora, *(where.with_hooks(side, hooks) for side in sides), 4.0))
    changed, _ = with_lora(ctx, links, "unet.safetensors", 0.5)
    assert apart(out, run(ctx, cfg_guider(changed, *sides, 4.0))) < 1e-5


def test_keyframes_turn_it_on_for_a_part_of_the_way(ctx: Context, links: tuple[Model, Clip]) -> None:
    model, clip = links
    sides = prompts(ctx, clip)
    (frames,) = nodes.create_hook_keyframe(ctx, 0.0, 0.0)
    (frames,) = nodes.create_hook_keyframe(ctx, 0.5, 0.45, frames)
    (hooks,) = nodes.set_hook_keyframes(ctx, hook(ctx, strength=1.2), frames)
    out = run(ctx, cfg_guider(model, *(where.with_hooks(side, hooks) for side in sides), 4.0), 4)

    schedule = schedule_of(model)
    sigmas = sigmas_for(schedule, "normal", 4)
    late = next(i for i, sigma in enumerate(sigmas) if sigma <= schedule.percent_to_sigma(0.45))
    assert 0 < late < 4
    changed, _ = with_lora(ctx, links, "both.safetensors", 0.6)
    half = run(ctx, cfg_guider(model, *sides, 4.0), sigmas=sigmas[: late + 1])
    rest = {"sigmas": sigmas[late:], "latent": half, "noise": Noise(5, none=True)}
    assert apart(out, run(ctx, cfg_guider(changed, *sides, 4.0), **rest)) < 1e-5


def test_a_clip_with_hooks_encodes_with_them_and_hands_them_on(ctx: Context, links: tuple[Model, Clip]) -> None:
    _, clip = links
    hooks = hook(ctx, strength=1.0, clip=0.6)
    (hooked,) = nodes.set_clip_hooks(ctx, clip, True, False, hooks)
    (entry,) = clip_text_encode(ctx, "a cat", hooked)[0]
    (expected,) = clip_text_encode(ctx, "a cat", with_lora(ctx, links, "both.safetensors", 0.6)[1])[0]
    assert torch.equal(entry[0], expected[0]) and entry[1]["hooks"] == hooks
    (quiet,) = nodes.set_clip_hooks(ctx, clip, False, False, hooks)
    assert "hooks" not in clip_text_encode(ctx, "a cat", quiet)[0][0][1]
    (model_only,) = nodes.create_hook_lora_model_only(ctx, "unet.safetensors", 1.0)
    (of_model,) = nodes.set_clip_hooks(ctx, clip, True, False, model_only)
    plain = clip_text_encode(ctx, "a cat", clip)[0][0]
    assert torch.equal(clip_text_encode(ctx, "a cat", of_model)[0][0][0], plain[0])
    assert nodes.set_clip_hooks(ctx, hooked, True, False)[0].hooks is None


def test_a_lora_without_a_text_half_leaves_the_encoding(ctx: Context, links: tuple[Model, Clip]) -> None:
    _, clip = links
    (hooked,) = nodes.set_clip_hooks(ctx, clip, True, False, hook(ctx, "unet.safetensors"))
    assert torch.equal(clip_text_encode(ctx, "a", hooked)[0][0][0], clip_text_encode(ctx, "a", clip)[0][0][0])


def test_a_scheduled_clip_gives_a_prompt_for_each_strength(ctx: Context, links: tuple[Model, Clip]) -> None:
    _, clip = links
    frames = sorted_frames(Keyframe(0.5, 0.0), Keyframe(0.5, 0.2), Keyframe(1.0, 0.6))
    (hooks,) = nodes.set_hook_keyframes(ctx, hook(ctx), frames)
    (hooked,) = nodes.set_clip_hooks(ctx, clip, True, True, hooks)
    entries = clip_text_encode(ctx, "a cat", hooked)[0]
    ranges = [(about["clip_start_percent"], about["clip_end_percent"]) for _, about in entries]
    assert ranges == [(0.0, 0.6), (0.6, 1.0)]
    for (cross, _), strength in zip(entries, (0.5, 1.0), strict=True):
        _, changed = with_lora(ctx, links, "both.safetensors", strength)
        assert torch.equal(cross, clip_text_encode(ctx, "a cat", changed)[0][0][0])


def test_ranges_of_a_prompt_and_of_its_encoding_both_hold(ctx: Context, links: tuple[Model, Clip]) -> None:
    model, clip = links
    positive, _ = prompts(ctx, clip)
    schedule = schedule_of(model)
    asked = where.with_values(positive, {"clip_start_percent": 0.5, "clip_end_percent": 1.0, "end_percent": 0.7})
    from engine.sampling.conditioning import read_conditioning

    (condition,) = read_conditioning(asked, EMPTY, schedule, lambda pooled, options, latent: {})
    assert condition.sigma_start == schedule.percent_to_sigma(0.5)
    assert condition.sigma_end == schedule.percent_to_sigma(0.7)


def test_a_checkpoint_as_a_lora_is_that_checkpoint_at_strength_one(ctx: Context, links: tuple[Model, Clip]) -> None:
    model, clip = links
    other, other_clip, _ = checkpoint_loader_simple(ctx, "other.safetensors")
    sides = prompts(ctx, clip)
    plain = run(ctx, cfg_guider(model, *sides, 4.0))
    (hooks,) = nodes.create_hook_model_as_lora(ctx, "other.safetensors", 1.0, 1.0)
    out = run(ctx, cfg_guider(model, *(where.with_hooks(side, hooks) for side in sides), 4.0))
    assert apart(out, run(ctx, cfg_guider(other, *sides, 4.0))) < 1e-5
    assert apart(out, plain) > 1e-4
    (hooked,) = nodes.set_clip_hooks(ctx, clip, True, False, hooks)
    theirs = clip_text_encode(ctx, "a cat", other_clip)[0][0][0]
    assert apart(clip_text_encode(ctx, "a cat", hooked)[0][0][0], theirs) < 1e-5
    assert torch.equal(run(ctx, cfg_guider(model, *sides, 4.0)), plain)


def test_a_hook_that_does_not_fit_is_told_before_the_first_step(ctx: Context, links: tuple[Model, Clip]) -> None:
    model, clip = links
    positive, negative = prompts(ctx, clip)
    steps: list[Any] = []
    hooked = where.with_hooks(positive, hook(ctx, "wrong.safetensors"))
    with pytest.raises(LoraOfOtherModel, match=r"wrong\.safetensors"):
        run(ctx, cfg_guider(model, hooked, negative, 4.0), callback=steps.append)
    assert steps == [] and all(entry["leases"] == 0 for entry in ctx.models.snapshot()["models"])
    (checkpoint,) = nodes.create_hook_model_as_lora_model_only(ctx, "other.safetensors", 1.0)
    strange = replace(model, modules={**model.modules, "conv_in": (1, 2, 3, 3)})
    with pytest.raises(ModelsDiffer, match="conv_in"):
        run(ctx, cfg_guider(strange, where.with_hooks(positive, checkpoint), negative, 4.0))


def test_a_lora_under_training_may_be_a_hook(ctx: Context, links: tuple[Model, Clip]) -> None:
    model, clip = links
    positive, negative = prompts(ctx, clip)
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
    entry = LoraEntry(torch.randn(2, 16), torch.randn(16, 2))
    ctx.live["now"] = LiveLora("step 1", {"denoiser": {name: entry}})
    out = run(ctx, cfg_guider(model, where.with_hooks(positive, hook(ctx, "now")), negative, 4.0))
    assert apart(out, run(ctx, cfg_guider(model, positive, negative, 4.0))) > 1e-4


def test_properties_and_defaults_carry_hooks(ctx: Context, links: tuple[Model, Clip]) -> None:
    positive, negative = prompts(ctx, links[1])
    first, second = hook(ctx), hook(ctx, "unet.safetensors")
    (one,) = where.conditioning_set_properties(ctx, positive, 1.0, "default", hooks=first)
    (two,) = where.conditioning_set_properties(ctx, one, 1.0, "default", hooks=combined(second, first))
    assert two[0][1]["hooks"] == (*first, *second)
    pair = where.pair_conditioning_set_default_combine(ctx, positive, negative, positive, negative, hooks=first)
    assert [["hooks" in about for _, about in side] for side in pair] == [[False, True], [False, True]]


def test_keyframes_are_spread_and_sorted(ctx: Context) -> None:
    (frames,) = nodes.create_hook_keyframes_interpolated(ctx, 0.0, 2.0, "ease_in", 0.2, 0.6, 3, True)
    assert [(f.strength, round(f.start_percent, 6)) for f in frames] == [(0.0, 0.2), (0.5, 0.4), (2.0, 0.6)]
    (more,) = nodes.create_hook_keyframes_from_floats(ctx, [1, 2], 0.0, 0.2, False, frames)
    assert [(f.strength, round(f.start_percent, 6)) for f in more] == [(1, 0.0), (2, 0.2), (0.5, 0.4), (2.0, 0.6)]
    assert nodes.create_hook_keyframes_from_floats(ctx, 0.5, 0.1, 0.9, False)[0] == (Keyframe(0.5, 0.1),)
    for easing, middle in {"linear": 0.5, "ease_in": 0.25, "ease_out": 0.75, "ease_in_out": 0.5}.items():
        (eased,) = nodes.create_hook_keyframes_interpolated(ctx, 0.0, 1.0, easing, 0.0, 1.0, 3, False)
        assert [f.strength for f in eased] == [0.0, middle, 1.0]


def test_a_hooks_strength_is_that_of_the_last_keyframe_it_passed(ctx: Context) -> None:
    (one,) = hook(ctx)
    framed = replace(one, keyframes=(Keyframe(0.3, 0.2), Keyframe(0.8, 0.6)))
    assert [framed.at(p) for p in (0.0, 0.2, 0.59, 0.6, 1.0)] == [0.3, 0.3, 0.3, 0.8, 0.8]
    assert one.at(0.5) == 1.0
    assert ClipHooks((framed,), scheduled=True).parts() == [(0.0, 0.6, (0.3,)), (0.6, 1.0, (0.8,))]
    assert ClipHooks((framed,)).parts() == [(0.0, 1.0, (0.3,))]


def test_groups_hold_each_hook_once(ctx: Context) -> None:
    first, second = hook(ctx), hook(ctx)
    assert nodes.combine_hooks_2(ctx, first, second)[0] == (*first, *second)
    assert nodes.combine_hooks_4(ctx, first, None, first, second)[0] == (*first, *second)
    assert nodes.combine_hooks_8(ctx, hooks_H=first)[0] == first and nodes.combine_hooks_2(ctx)[0] == ()
    (chained,) = nodes.create_hook_lora(ctx, "both.safetensors", 1.0, 1.0, first)
    assert len(chained) == 2 and isinstance(chained[1], Hook)
    assert nodes.create_hook_lora(ctx, "both.safetensors", 0.0, 0.0, first)[0] == first


def test_a_workflow_with_hooks_and_patches_runs(ctx: Context) -> None:
    """Through validation and executor, as a client sends it."""
    prompt: dict[str, Any] = {
        "model": ("CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}),
        "hook": ("CreateHookLora", {"lora_name": "both.safetensors", "strength_model": 1, "strength_clip": 0.5}),
        "frame": ("CreateHookKeyframe", {"strength_mult": 0.5, "start_percent": 0.5}),
        "frames": (
            "CreateHookKeyframesInterpolated",
            {"strength_start": 0, "strength_end": 1, "interpolation": "ease_in", "start_percent": 0, "end_percent": 0.4,
             "keyframes_count": 3, "print_keyframes": False, "prev_hook_kf": ["frame", 0]},
        ),
        "hooks": ("SetHookKeyframes", {"hooks": ["hook", 0], "hook_kf": ["frames", 0]}),
        "all": ("CombineHooks2", {"hooks_A": ["hooks", 0]}),
        "clip": ("SetClipHooks", {"clip": ["model", 1], "apply_to_conds": True, "schedule_clip": True,
                                  "hooks": ["all", 0]}),
        "yes": ("CLIPTextEncode", {"text": "a cat", "clip": ["clip", 0]}),
        "no": ("CLIPTextEncode", {"text": "blurry", "clip": ["model", 1]}),
        "pair": ("PairConditioningSetProperties", {"positive_NEW": ["yes", 0], "negative_NEW": ["no", 0], "strength": 1,
                                                   "set_cond_area": "default", "hooks": ["all", 0]}),
        "apg": ("APG", {"model": ["model", 0], "eta": 0.5, "norm_threshold": 5, "momentum": -0.5}),
        "tiles": ("HyperTile", {"model": ["apg", 0], "tile_size": 32, "swap_size": 2, "max_depth": 0,
                                "scale_depth": False}),
        "cache": ("EasyCache", {"model": ["tiles", 0], "reuse_threshold": 0.2, "start_percent": 0.15,
                                "end_percent": 0.95, "verbose": False}),
        "empty": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "run": ("KSampler", {"model": ["cache", 0], "seed": 1, "steps": 4, "cfg": 5, "sampler_name": "euler",
                             "scheduler": "normal", "positive": ["pair", 0], "negative": ["pair", 1],
                             "latent_image": ["empty", 0], "denoise": 1}),
        "save": ("SaveLatent", {"samples": ["run", 0], "filename_prefix": "made"}),
    }  # fmt: skip
    registry = Registry()
    load_all(registry)
    graph = {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in prompt.items()}
    checked = validate(graph, Catalogue.of(registry), ctx.workspace)
    assert checked.error is None and not checked.node_errors
    context = RunContext("job", ctx.workspace, ctx.models, graph)
    executor = Executor(registry, cache_for("classic"), torch.no_grad)
    outcome = executor.run(checked.prompt, context, checked.outputs, lambda event, data: None)
    assert outcome.error is None, outcome.error
    assert [path.name for path in ctx.workspace.output.iterdir()] == ["made_00001_.latent"]


def test_a_hook_for_flux_reaches_layers_that_its_files_have_in_one_piece(ctx: Context) -> None:
    make_flux_checkpoint(ctx.workspace.models / "checkpoints" / "flux.safetensors")
    model, clip, _ = checkpoint_loader_simple(ctx, "flux.safetensors")
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    with ctx.models.lease(model.ref) as leased:
        width = leased[model.ref].transformer_blocks[0].attn.to_q.weight.shape[0]
    pair = {f"{name}.lora_down.weight": torch.randn(2, width), f"{name}.lora_up.weight": torch.randn(3 * width, 2)}
    save_file(pair, ctx.workspace.models / "loras" / "flux.safetensors")
    positive, negative = prompts(ctx, clip)
    empty = {"latent": torch.zeros(1, 16, 8, 8)}
    plain = run(ctx, cfg_guider(model, positive, negative, 3.0), **empty)
    hooks = hook(ctx, "flux.safetensors", 0.5)
    out = run(
        ctx, cfg_guider(model, where.with_hooks(positive, hooks), where.with_hooks(negative, hooks), 3.0), **empty
    )
    (changed,) = lora_loader_model_only(ctx, model, "flux.safetensors", 0.5)
    assert apart(out, run(ctx, cfg_guider(changed, positive, negative, 3.0), **empty)) < 1e-5
    assert apart(out, plain) > 1e-4
    assert torch.equal(run(ctx, cfg_guider(model, positive, negative, 3.0), **empty), plain)
