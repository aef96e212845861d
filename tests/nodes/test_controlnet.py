"""ControlNet nodes, and whole runs of a sampler under control, on tiny networks of the real classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import NotFound
from engine.families.base import Components, LatentFormat
from engine.families.controls.base import ControlNet, ControlOfOtherModel, NeedsVae, NotAControlNet
from engine.nodes import controlnet
from engine.nodes.conditioning import clip_text_encode, clip_text_encode_controlnet
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.sampling import ksampler
from engine.sampling.control import for_each_part, scaled
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_control import make_tiny_control
from tests.nodes.context import Context

Prompt = list[list[Any]]


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path).create()
    make_tiny_sd1(workspace.models / "checkpoints" / "tiny.safetensors")
    make_tiny_control(workspace.models / "controlnet" / "edges.safetensors")
    make_tiny_control(workspace.models / "controlnet" / "depth.safetensors", seed=1)
    return Context(workspace)


@pytest.fixture
def parts(ctx: Context) -> Components:
    model, clip, vae = checkpoint_loader_simple(ctx, "tiny.safetensors")
    return Components(model, clip, vae, "tiny", "digest")


@pytest.fixture
def net(ctx: Context) -> ControlNet:
    return controlnet.control_net_loader(ctx, "edges.safetensors")[0]


@pytest.fixture
def prompts(ctx: Context, parts: Components) -> tuple[Prompt, Prompt]:
    positive, negative = (clip_text_encode(ctx, text, parts.clip)[0] for text in ("a red cat", "blue"))
    return positive, negative


def picture(seed: int = 0, batch: int = 1) -> Tensor:
    return torch.rand(batch, 40, 48, 3, generator=torch.Generator().manual_seed(seed))


def sampled(
    ctx: Context, parts: Components, positive: Prompt, negative: Prompt, batch: int = 1, cfg: float = 4.0
) -> Tensor:
    latent = {"samples": torch.zeros(batch, 4, 8, 8)}
    (made,) = ksampler(ctx, parts.model, 1, 4, cfg, "euler", "normal", positive, negative, latent, 1.0)
    return made["samples"]


def under(ctx: Context, net: ControlNet, prompts: tuple[Prompt, Prompt], strength=1.0, start=0.0, end=1.0, seed=0):
    return controlnet.control_net_apply_advanced(ctx, *prompts, net, picture(seed), strength, start, end)


def test_a_control_changes_the_picture_by_its_strength_and_picture(ctx, parts, net, prompts):
    made = [sampled(ctx, parts, *prompts)]
    made += [sampled(ctx, parts, *under(ctx, net, prompts, strength=strength)) for strength in (0.5, 1.0)]
    made.append(sampled(ctx, parts, *under(ctx, net, prompts, seed=9)))
    distances = [float((one - other).norm()) for i, one in enumerate(made) for other in made[:i]]
    assert min(distances) > 1e-3


def test_no_strength_leaves_the_prompts_alone(ctx, net, prompts):
    assert under(ctx, net, prompts, strength=0.0) == prompts
    assert controlnet.control_net_apply(ctx, prompts[0], net, picture(), 0.0) == (prompts[0],)


def test_a_control_counts_between_its_start_and_end_only(ctx, parts, net, prompts):
    plain, whole = sampled(ctx, parts, *prompts), sampled(ctx, parts, *under(ctx, net, prompts))
    assert torch.equal(sampled(ctx, parts, *under(ctx, net, prompts, start=0.0, end=0.0)), plain)
    assert torch.equal(sampled(ctx, parts, *under(ctx, net, prompts, start=1.0, end=1.0)), plain)
    first, second = (sampled(ctx, parts, *under(ctx, net, prompts, start=a, end=b)) for a, b in ((0, 0.5), (0.5, 1)))
    assert not torch.equal(first, whole) and not torch.equal(second, whole) and not torch.equal(first, second)


def test_controls_on_top_of_each_other_add_up(ctx, parts, net, prompts):
    (other,) = controlnet.control_net_loader(ctx, "depth.safetensors")
    both = under(ctx, other, under(ctx, net, prompts))
    swapped = under(ctx, net, under(ctx, other, prompts))
    assert both[0][0][1]["control"] is both[1][0][1]["control"], "both sides go into one call of the model"
    made = sampled(ctx, parts, *both)
    torch.testing.assert_close(made, sampled(ctx, parts, *swapped), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(made, sampled(ctx, parts, *under(ctx, net, prompts)))
    late = under(ctx, other, under(ctx, net, prompts), start=0.9, end=0.95)  # never: four steps
    torch.testing.assert_close(sampled(ctx, parts, *late), sampled(ctx, parts, *under(ctx, net, prompts)))


def test_the_old_node_acts_on_the_negative_prompt_as_well(ctx, parts, net, prompts):
    (positive,) = controlnet.control_net_apply(ctx, prompts[0], net, picture(), 0.7)
    old = sampled(ctx, parts, positive, prompts[1])
    torch.testing.assert_close(old, sampled(ctx, parts, *under(ctx, net, prompts, strength=0.7)))
    own = controlnet.control_net_apply(ctx, prompts[1], net, picture(5), 0.7)[0]
    assert not torch.allclose(sampled(ctx, parts, positive, own), old), "its own control stays"


def test_a_control_of_one_side_leaves_the_other_alone(ctx, parts, net, prompts):
    controlled = under(ctx, net, prompts)
    one_sided = sampled(ctx, parts, controlled[0], prompts[1])
    assert not torch.allclose(one_sided, sampled(ctx, parts, *controlled))
    assert torch.equal(
        sampled(ctx, parts, controlled[0], prompts[1], cfg=1.0), sampled(ctx, parts, *controlled, cfg=1.0)
    )


def test_each_picture_of_a_batch_has_its_own_hint(ctx, parts, net, prompts):
    hints = picture(3, batch=2)
    both = controlnet.control_net_apply_advanced(ctx, *prompts, net, hints, 1.0, 0.0, 1.0)
    single = controlnet.control_net_apply_advanced(ctx, *prompts, net, hints[:1], 1.0, 0.0, 1.0)
    together, alone = sampled(ctx, parts, *both, batch=2), sampled(ctx, parts, *single, batch=2)
    torch.testing.assert_close(together[0], alone[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[1], alone[1])


def test_hints_are_dealt_to_the_parts_of_a_call():
    hints = torch.tensor([1.0, 2.0])
    assert for_each_part(hints, 6, 2).tolist() == [1, 2, 1, 1, 2, 1]
    assert for_each_part(hints, 2, 2).tolist() == [1, 1]
    assert for_each_part(hints[:1], 4, 2).tolist() == [1, 1, 1, 1]


def test_what_several_blocks_share_is_scaled_once():
    one, two = torch.ones(3), torch.full((3,), 2.0)
    made = scaled({"double": [one, one, two], "single": []}, 0.5)
    assert [tensor.tolist() for tensor in made["double"]] == [[0.5] * 3, [0.5] * 3, [1.0] * 3] and not made["single"]
    assert made["double"][0] is made["double"][1] and one.tolist() == [1.0] * 3
    assert scaled({"mid": [one]}, 1.0)["mid"][0] is one


def test_a_control_in_an_area_sees_its_picture_in_the_size_of_the_area(ctx, parts, net, prompts):
    (positive, _), negative = under(ctx, net, prompts), prompts[1]
    area = [[positive[0][0], {**positive[0][1], "area": (4, 8, 0, 0)}]]
    assert torch.isfinite(sampled(ctx, parts, [*area, *prompts[0]], negative)).all()


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_of_other_channels_are_taken_as_rgb(ctx, parts, net, prompts, channels: int):
    grey = picture()[..., :1]
    image = grey if channels == 1 else torch.cat([grey.expand(-1, -1, -1, 3), torch.rand(1, 40, 48, 1)], dim=-1)
    made = sampled(ctx, parts, *controlnet.control_net_apply_advanced(ctx, *prompts, net, image, 1.0, 0.0, 1.0))
    rgb = grey.expand(-1, -1, -1, 3)
    assert torch.equal(
        made, sampled(ctx, parts, *controlnet.control_net_apply_advanced(ctx, *prompts, net, rgb, 1.0, 0.0, 1.0))
    )


def test_a_net_for_another_family_is_refused_by_name(ctx, parts, net, prompts):
    other = replace(parts.model, config={**parts.model.config, "cross_attention_dim": 2048})
    with pytest.raises(ControlOfOtherModel, match=r"edges is for Stable Diffusion 1\.x of other sizes, but tiny UNet"):
        sampled(ctx, replace(parts, model=other), *under(ctx, net, prompts))


def test_a_net_that_looks_at_latents_needs_a_vae(ctx, parts, net, prompts):
    looking = replace(net, latent=LatentFormat())
    with pytest.raises(NeedsVae, match="VAE input"):
        sampled(ctx, parts, *under(ctx, looking, prompts))


def test_other_files_and_names_are_refused(ctx):
    (ctx.workspace.models / "controlnet" / "c.safetensors").symlink_to(
        ctx.workspace.models / "checkpoints/tiny.safetensors"
    )
    with pytest.raises(NotAControlNet, match="checkpoint"):
        controlnet.control_net_loader(ctx, "c.safetensors")
    with pytest.raises(NotFound):
        controlnet.control_net_loader(ctx, "gone.safetensors")


def test_a_union_keeps_the_type_it_is_given(ctx, net):
    (typed,) = controlnet.set_union_control_net_type(ctx, net, "tile")
    assert typed.options == {"control_type": (6,)} and net.options == {}
    assert controlnet.set_union_control_net_type(ctx, typed, "auto")[0].options == {"control_type": ()}


def test_inpainting_shows_nothing_under_the_mask(ctx, parts, net, prompts):
    mask = torch.zeros(1, 40, 48)
    mask[:, :, 24:] = 1.0
    made = controlnet.control_net_inpainting_alimama_apply(
        ctx, *prompts, net, parts.vae, picture(), mask, 1.0, 0.0, 1.0
    )
    control = made[0][0][1]["control"]
    assert control.image[:, :, 24:].sum() == 0 and torch.equal(control.image[:, :, :24], picture()[:, :, :24])
    assert torch.equal(control.mask[:, 0], 1 - mask) and control.vae is parts.vae


def test_a_control_may_be_told_another_prompt(ctx, parts, net, prompts):
    plain = sampled(ctx, parts, *under(ctx, net, prompts))
    (same,) = clip_text_encode_controlnet(ctx, parts.clip, prompts[0], "a red cat")
    other, other_negative = (clip_text_encode_controlnet(ctx, parts.clip, p, "blue" * 90)[0] for p in prompts)
    assert torch.allclose(sampled(ctx, parts, *under(ctx, net, (same, prompts[1]))), plain, atol=1e-2)
    with ctx.models.lease(net.ref) as leased:
        seen: list[Tensor] = []
        handle = leased[net.ref].register_forward_pre_hook(
            lambda layer, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
        )
        out = sampled(ctx, parts, *under(ctx, net, (other, prompts[1])))
        sampled(ctx, parts, *under(ctx, net, (other, other_negative)))
        handle.remove()
    asked = other[0][1]["cross_attn_controlnet"]
    alone = {text.shape[1]: text for text in seen[:8]}
    assert torch.allclose(alone[asked.shape[1]], asked.to(seen[0]), atol=1e-6) and asked.shape[1] > 77
    assert torch.allclose(alone[77], prompts[1][0][0].to(seen[0]), atol=1e-6)
    assert seen[-1].shape == (2, *asked.shape[1:])
    assert not torch.allclose(out, plain, atol=1e-2)
    assert torch.equal(sampled(ctx, parts, *under(ctx, net, prompts)), plain)
