"""Vision encoders in their layouts, and Flux.1 Redux, against transformers' own modules and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from engine.families.base import TextBatch
from engine.families.discover import family
from engine.families.parts.style import over_picture, with_bias
from engine.families.parts.vision import prepared
from engine.families.style import NoStyleModel, WrongVision
from engine.families.vision import load_vision
from engine.nodes.conditioning import clip_text_encode
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.sampling import ksampler
from engine.nodes.sd3 import empty_sd3_latent_image
from engine.nodes.vision import (
    WidthsDiffer,
    clip_vision_encode,
    clip_vision_loader,
    style_model_apply,
    style_model_loader,
)
from engine.weights.header import Header, TensorInfo
from engine.weights.vision import NoVisionEncoder, vision_config, vision_kind
from engine.workspace import Workspace
from tests.families.tiny_dit import make_flux_checkpoint, tiny_flux
from tests.nodes.context import Context

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 16,
    "image_size": 28,
    "patch_size": 14,
}


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create())


def clip() -> CLIPVisionModelWithProjection:
    torch.manual_seed(0)
    return _moved(CLIPVisionModelWithProjection(CLIPVisionConfig(**SIZES, projection_dim=24, hidden_act="quick_gelu")))


def siglip() -> SiglipVisionModel:
    torch.manual_seed(1)
    return _moved(SiglipVisionModel(SiglipVisionConfig(**SIZES, hidden_act="gelu_pytorch_tanh")))


def _moved(module: Any) -> Any:
    """Norms and biases that are not one and nothing: a mix-up would not show."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=float(parameter.mean().round()), std=0.2)
    return module.eval()


def openclip_names(module: nn.Module) -> dict[str, Tensor]:
    state = {name.removeprefix("vision_model."): tensor for name, tensor in module.state_dict().items()}
    tensors = {
        "visual.class_embedding": state["embeddings.class_embedding"],
        "visual.conv1.weight": state["embeddings.patch_embedding.weight"],
        "visual.positional_embedding": state["embeddings.position_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T,
        "logit_scale": torch.tensor(4.6),
    }
    norms = (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm"))
    for leaf in ("weight", "bias"):
        tensors |= {f"visual.{old}.{leaf}": state[f"{new}.{leaf}"] for old, new in norms}
        for i in range(SIZES["num_hidden_layers"]):
            old, new = f"encoder.layers.{i}", f"visual.transformer.resblocks.{i}"
            qkv = [state[f"{old}.self_attn.{p}_proj.{leaf}"] for p in "qkv"]
            tensors[f"{new}.attn.in_proj_{leaf}"] = torch.cat(qkv)
            for ours, theirs in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
            ):
                tensors[f"{new}.{theirs}.{leaf}"] = state[f"{old}.{ours}.{leaf}"]
    return tensors


def write(ctx: Context, name: str, tensors: dict[str, Tensor], folder: str = "clip_vision", **words: Any) -> str:
    save_file(
        {key: tensor.contiguous() for key, tensor in tensors.items()},
        ctx.workspace.models / folder / f"{name}.safetensors",
        {key: json.dumps(value) for key, value in words.items()},
    )
    return f"{name}.safetensors"


@pytest.mark.parametrize("layout", ["transformers", "openclip", "with text"])
def test_clip_sees_what_transformers_clip_sees(ctx: Context, layout: str):
    module = clip()
    tensors = openclip_names(module) if layout == "openclip" else dict(module.state_dict())
    if layout == "with text":
        tensors |= {"text_model.embeddings.token_embedding.weight": torch.ones(2, 2), "logit_scale": torch.ones(())}
        tensors["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    (vision,) = clip_vision_loader(ctx, write(ctx, "clip", tensors))
    assert (vision.kind, vision.size) == ("clip", 28)
    image = torch.rand(2, 40, 30, 3)
    (seen,) = clip_vision_encode(ctx, vision, image, "center")
    with torch.no_grad():
        found = module(pixel_values=prepared(image, "clip", 28, True), output_hidden_states=True)
    torch.testing.assert_close(seen.image_embeds, found.image_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.last_hidden_state, found.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.penultimate_hidden_states, found.hidden_states[-2], rtol=1e-5, atol=1e-5)
    assert seen.last_hidden_state.shape == (2, 5, 32) and seen.image_embeds.shape == (2, 24)


def test_siglip_sees_what_transformers_siglip_sees_with_and_without_a_head(ctx: Context):
    module = siglip()
    tensors = {f"vision_model.{name}": tensor for name, tensor in module.state_dict().items()}
    bare = {name: tensor for name, tensor in tensors.items() if ".head." not in name}
    image = torch.rand(1, 28, 28, 4)
    with torch.no_grad():
        found = module(pixel_values=image[..., :3].movedim(-1, 1).mul(255).round().div(255) * 2 - 1)
    for name, some in (("whole", tensors), ("bare", bare)):
        (vision,) = clip_vision_loader(ctx, write(ctx, name, some))
        (seen,) = clip_vision_encode(ctx, vision, image, "none")
        assert vision.kind == "siglip" and seen.last_hidden_state.shape == (1, 4, 32)
        torch.testing.assert_close(seen.last_hidden_state, found.last_hidden_state, rtol=1e-5, atol=1e-5)
        assert torch.equal(seen.image_embeds, seen.last_hidden_state)


def test_a_picture_is_made_as_the_encoder_was_trained():
    image = torch.rand(1, 60, 90, 3)
    made = prepared(image, "clip", 28, True)
    processor = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28)
    levels = image[0].movedim(-1, 0).mul(255).round().to(torch.uint8)
    expected = torch.as_tensor(processor(levels, return_tensors="pt")["pixel_values"])
    assert (made - expected).abs().max() < 0.05  # a level is 0.015 here; the other one resizes whole levels
    squeezed = prepared(image, "siglip", 28, False)
    whole = functional.interpolate(image.movedim(-1, 1), size=(28, 28), mode="bicubic", antialias=True)
    assert torch.equal(squeezed, ((whole * 255).clamp(0, 255).round() / 255 - 0.5) / 0.5)
    assert prepared(torch.zeros(1, 28, 28, 1), "siglip", 28, True).unique().tolist() == [-1.0]


@pytest.mark.parametrize(
    ("width", "layers", "patch", "positions", "projection", "expected"),
    [
        (1024, 24, 14, 257, 768, {"image_size": 224, "hidden_act": "quick_gelu"}),
        (1024, 24, 14, 577, 768, {"image_size": 336, "hidden_act": "quick_gelu"}),
        (1280, 32, 14, 257, 1024, {"image_size": 224, "hidden_act": "gelu", "projection_dim": 1024}),
        (1664, 48, 14, 257, 1280, {"image_size": 224, "hidden_act": "gelu", "projection_dim": 1280}),
        (1152, 27, 14, 729, 0, {"image_size": 384, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}),
        (1152, 27, 16, 1024, 0, {"image_size": 512, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}),
    ],
)
def test_the_sizes_in_use_are_told_by_their_shapes(
    width: int, layers: int, patch: int, positions: int, projection: int, expected: dict[str, Any]
):
    """OpenAI's L at two sizes, OpenCLIP's H and G, SigLIP so400m at two."""
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": (positions, width),
        **{f"vision_model.encoder.layers.{i}.mlp.fc1.weight": (4 * width, width) for i in range(layers)},
    }
    if projection:
        shapes |= {"vision_model.embeddings.class_embedding": (width,), "visual_projection.weight": (projection, width)}
    header = Header(Path("x"), {name: TensorInfo("F16", shape) for name, shape in shapes.items()}, {}, 0, "")
    config = vision_config(header, vision_kind(header))
    assert config["num_attention_heads"] == 16 and config["num_hidden_layers"] == layers
    assert {key: config[key] for key in expected} == expected


def test_what_is_no_vision_encoder_is_refused(ctx: Context):
    with pytest.raises(NoVisionEncoder, match="patch_embedding"):
        clip_vision_loader(ctx, write(ctx, "a", {"text_model.x": torch.ones(1)}))
    flat = {"vision_model.embeddings.patch_embedding.weight": torch.ones(8, 588)}
    with pytest.raises(NoVisionEncoder, match="NaFlex"):
        clip_vision_loader(ctx, write(ctx, "b", flat))
    headless = {name: t for name, t in clip().state_dict().items() if "projection" not in name}
    with pytest.raises(NoVisionEncoder, match="visual_projection"):
        clip_vision_loader(ctx, write(ctx, "c", headless))
    with pytest.raises(NoVisionEncoder, match="broken"):
        clip_vision_loader(ctx, write(ctx, "d", dict(clip().state_dict()), **{"easel.clip_vision": 5}))


def test_an_encoder_is_one_copy_in_the_ledger(ctx: Context):
    name = write(ctx, "clip", dict(clip().state_dict()))
    first, again = (clip_vision_loader(ctx, name)[0] for _ in range(2))
    assert first.ref == again.ref and first == load_vision(ctx.models, ctx.workspace.model_path("clip_vision", name))
    assert ctx.models.ledger()["resident"] == 0
    clip_vision_encode(ctx, first, torch.rand(1, 28, 28, 3), "center")
    assert ctx.models.ledger()["resident"] == sum(t.nbytes for t in clip().state_dict().values()) + 5 * 8


@pytest.fixture
def redux(ctx: Context) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    tensors = {"redux_up.weight": random(144, 32), "redux_up.bias": random(144)}
    tensors |= {"redux_down.weight": random(48, 144), "redux_down.bias": random(48)}
    write(ctx, "redux", tensors, "style_models")
    write(ctx, "sig", {f"vision_model.{name}": tensor for name, tensor in siglip().state_dict().items()})
    return tensors


def applied(ctx: Context, cond: Any, strength: float, kind: str, pictures: int = 1) -> Any:
    (vision,) = clip_vision_loader(ctx, "sig.safetensors")
    generator = torch.Generator().manual_seed(5)
    (seen,) = clip_vision_encode(ctx, vision, torch.rand(pictures, 28, 28, 3, generator=generator), "center")
    (style,) = style_model_loader(ctx, "redux.safetensors")
    return style_model_apply(ctx, cond, style, seen, strength, kind)[0], seen


def test_a_styles_tokens_come_behind_the_prompts(ctx: Context, redux: dict[str, Tensor]):
    prompt = [[torch.rand(1, 6, 48), {"pooled_output": torch.ones(1, 24)}]]
    made, seen = applied(ctx, prompt, 0.5, "multiply", pictures=2)
    up = functional.silu(seen.last_hidden_state @ redux["redux_up.weight"].T + redux["redux_up.bias"])
    told = (up @ redux["redux_down.weight"].T + redux["redux_down.bias"]).reshape(1, 8, 48)
    assert torch.equal(made[0][0][:, :6], prompt[0][0]) and set(made[0][1]) == {"pooled_output"}
    torch.testing.assert_close(made[0][0][:, 6:], told * 0.5, rtol=1e-5, atol=1e-5)
    plain, _ = applied(ctx, prompt, 1.0, "attn_bias", pictures=2)
    torch.testing.assert_close(plain[0][0][:, 6:], told, rtol=1e-5, atol=1e-5)
    assert "attention_bias" not in plain[0][1] and set(prompt[0][1]) == {"pooled_output"}


def test_all_others_look_at_a_style_with_its_strength(ctx: Context, redux: dict[str, Tensor]):
    bias = with_bias(None, 2, 3, 0.7)
    expected = torch.zeros(6, 6)
    expected[[0, 1, 5], 2:5] = 0.7
    assert torch.equal(bias[0], expected)
    twice = with_bias(bias, 5, 1, -1.0)
    expected = torch.zeros(7, 7)
    expected[torch.tensor([0, 1, 6])[:, None], torch.tensor([2, 3, 4])] = 0.7
    expected[[0, 1, 2, 3, 4, 6], 5] = -1.0
    assert torch.equal(twice[0], expected)
    whole = over_picture(bias, 4)
    assert whole.shape == (1, 1, 9, 9)
    assert torch.equal(whole[0, 0, 5:, 2:5], torch.full((4, 3), 0.7)) and whole[0, 0, 2:5].abs().max() == 0.0


def test_a_style_of_no_strength_is_none_and_others_are(ctx: Context, redux: dict[str, Tensor]):
    flux, module = family("flux"), tiny_flux()
    prompt = [[torch.rand(1, 6, 48), {}]]
    x, time = torch.randn(1, 16, 4, 6), torch.tensor([0.5])

    def predicted(cond: Any) -> Tensor:
        text, options = cond[0]
        extra = {"guidance": torch.tensor([3.5])}
        extra |= {key: value for key, value in options.items() if key == "attention_bias"}
        with torch.no_grad():
            return flux.predict(module, x, time, TextBatch(text, torch.ones(1, 24), extra))

    without = predicted(prompt)
    torch.testing.assert_close(predicted(applied(ctx, prompt, 0.0, "attn_bias")[0]), without, rtol=1e-5, atol=1e-5)
    usual = predicted(applied(ctx, prompt, 1.0, "attn_bias")[0])
    assert torch.equal(usual, predicted(applied(ctx, prompt, 1.0, "multiply")[0]))
    strong = applied(ctx, prompt, 2.0, "attn_bias")[0]
    assert float(strong[0][1]["attention_bias"].max()) == pytest.approx(math.log(2))
    results = [without, usual, predicted(strong), predicted(applied(ctx, prompt, 2.0, "multiply")[0])]
    for i, one in enumerate(results):
        assert all((one - other).abs().max() > 1e-4 for other in results[i + 1 :])


def test_a_picture_is_made_in_a_style(ctx: Context, redux: dict[str, Tensor]):
    make_flux_checkpoint(ctx.workspace.models / "checkpoints" / "flux.safetensors")
    model, clip, _ = checkpoint_loader_simple(ctx, "flux.safetensors")
    (prompt,) = clip_text_encode(ctx, "a red fox", clip)
    (latent,) = empty_sd3_latent_image(ctx, 64, 48, 1)

    def run(cond: Any) -> Tensor:
        return ksampler(ctx, model, 1, 1, 1.0, "euler", "simple", cond, prompt, latent, 1.0)[0]["samples"]

    plain, styled = run(prompt), run(applied(ctx, prompt, 1.5, "attn_bias")[0])
    assert bool(torch.isfinite(styled).all()) and not torch.equal(plain, styled)


def test_what_does_not_go_together_is_refused(ctx: Context, redux: dict[str, Tensor]):
    with pytest.raises(WidthsDiffer, match="48 wide, but the prompt's are 40"):
        applied(ctx, [[torch.rand(1, 6, 40), {}]], 1.0, "multiply")
    write(ctx, "redux", {**redux, "redux_up.weight": torch.ones(144, 20)}, "style_models")
    with pytest.raises(WrongVision, match="width 20 saw, not 32"):
        applied(ctx, [[torch.rand(1, 6, 48), {}]], 1.0, "multiply")
    write(ctx, "other", {"style_embedding": torch.ones(1, 8, 1024)}, "style_models")
    with pytest.raises(NoStyleModel, match=r"redux_up.weight"):
        style_model_loader(ctx, "other.safetensors")
