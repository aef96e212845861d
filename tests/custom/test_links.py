"""MODEL, CLIP and VAE links as packs use them: held against the studio's own nodes, with the demo model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.custom.host import within
from engine.custom.links import lent
from engine.families.base import Clip, Model, Vae
from engine.graph.context import CallContext, RunContext
from tests.custom.conftest import Packs

DEMO = Path(__file__).parents[2] / "configs" / "demo" / "easel-demo.safetensors"


class Links:
    def __init__(self, ctx: CallContext, model: Any, clip: Any, vae: Any, nodes: Any) -> None:
        self.ctx, self.model, self.clip, self.vae, self.nodes = ctx, model, clip, vae, nodes


@pytest.fixture(scope="module")
def links(loaded: Packs) -> Iterator[Links]:
    folder = loaded.workspace.models / "checkpoints"
    (folder / "demo.safetensors").symlink_to(DEMO)
    assert loaded.host.models
    run = RunContext("p", loaded.workspace, loaded.host.models)
    none: Any = None
    ctx = CallContext(run, {"node_id": "1"}, 0, lambda step, total: None, none, lambda en, zh: None)
    nodes = sys.modules["nodes"]
    loader = nodes.CheckpointLoaderSimple()
    found = Links(ctx, *within(ctx, lambda: loader.load_checkpoint("demo.safetensors")), nodes)
    token = loaded.host.current.set(ctx)
    loaded.host.latest = ctx  # pytest runs fixtures and tests in contexts of their own
    yield found
    loaded.host.latest = None
    loaded.host.current.reset(token)
    (folder / "demo.safetensors").unlink()


def prompts(links: Links) -> tuple[Any, Any]:
    encode = links.nodes.CLIPTextEncode().encode
    return encode(links.clip, "a red circle")[0], encode(links.clip, "")[0]


def sampled(links: Links, model: Any, cfg: float = 3.0) -> torch.Tensor:
    positive, negative = prompts(links)
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    return links.nodes.common_ksampler(model, 5, 3, cfg, "euler", "normal", positive, negative, latent)[0]["samples"]


def test_a_pack_is_given_copies_that_nodes_of_the_studio_take(links: Links) -> None:
    assert isinstance(links.model, Model) and isinstance(links.clip, Clip) and isinstance(links.vae, Vae)
    assert lent(links.model) is links.model and lent(5) == 5
    copy = links.clip.clone()
    copy.clip_layer(-2)
    assert (copy.stop_at_layer, links.clip.stop_at_layer) == (-2, None)


def test_tokens_are_chunks_of_77_pairs_and_encode_to_what_the_node_gives(links: Links) -> None:
    text = "a (red:1.3) circle " * 30
    tokens = links.clip.tokenize(text)
    assert list(tokens) == ["l"] and [len(chunk) for chunk in tokens["l"]] == [77, 77]
    assert tokens["l"][0][0] == (links.clip.tokenizers[0].start, 1.0) and 1.3 in {w for _, w in tokens["l"][0]}
    expected = links.nodes.CLIPTextEncode().encode(links.clip, text)[0][0]
    cond, pooled = links.clip.encode_from_tokens(tokens, return_pooled=True)
    assert torch.equal(cond, expected[0]) and torch.equal(pooled, expected[1]["pooled_output"])
    assert torch.equal(links.clip.encode_from_tokens(tokens), cond) and torch.equal(links.clip.encode(text), cond)
    told = links.clip.encode_from_tokens(tokens, return_dict=True)
    assert torch.equal(told["cond"], cond) and set(told) == {"cond", "pooled_output"}
    [[again, entry]] = links.clip.encode_from_tokens_scheduled(tokens, add_dict={"guidance": 3.5})
    assert torch.equal(again, cond) and entry["guidance"] == 3.5


def test_what_a_pack_does_to_tokens_counts(links: Links) -> None:
    tokens = links.clip.tokenize("a red circle")
    red = links.clip.tokenizers[0].encode("red")
    heavier = [[(token, 1.5 if token in red else weight) for token, weight in chunk] for chunk in tokens["l"]]
    assert torch.equal(links.clip.encode_from_tokens({"l": heavier}), links.clip.encode("a (red:1.5) circle"))
    padded = {"l": tokens["l"] + links.clip.tokenize("")["l"]}
    assert links.clip.encode_from_tokens(padded).shape[1] == 154


def test_a_textual_inversion_is_a_vector_among_the_tokens(links: Links, packs: Packs) -> None:
    from safetensors.torch import save_file

    width = links.clip.encode("").shape[-1]
    path = packs.workspace.models / "embeddings" / "mine.safetensors"
    save_file({"emb_params": torch.ones(2, width)}, path)
    tokens = links.clip.tokenize("a embedding:mine")
    vectors = [token for token, _ in tokens["l"][0] if isinstance(token, torch.Tensor)]
    assert len(vectors) == 2 and torch.equal(vectors[0], torch.ones(width))
    expected = links.nodes.CLIPTextEncode().encode(links.clip, "a embedding:mine")[0][0][0]
    assert torch.equal(links.clip.encode_from_tokens(tokens), expected)
    path.unlink()


def test_what_is_not_offered_says_so(links: Links) -> None:
    with pytest.raises(AttributeError, match=r"no 'cond_stage_model' in Easel\. It has .*tokenize"):
        _ = links.clip.cond_stage_model
    with pytest.raises(AttributeError, match=r"no 'set_model_attn2_patch'.*set_model_sampler_cfg_function"):
        links.model.set_model_attn2_patch(None)
    with pytest.raises(AttributeError, match=r"model\.model has no 'diffusion_model'"):
        _ = links.model.model.diffusion_model
    with pytest.raises(AttributeError, match="first_stage_model"):
        _ = links.vae.first_stage_model
    with pytest.raises(Exception, match="llama_template"):
        links.clip.tokenize("a", llama_template="x")
    with pytest.raises(Exception, match="encoders g"):
        links.clip.encode_from_tokens({"g": [[(1, 1.0)]]})
    with pytest.raises(TypeError, match=r"KSampler takes model.*not strength"):
        links.nodes.KSampler().sample(strength=1)
    assert not hasattr(links.model, "model_patches")


def test_the_vae_decodes_and_encodes_as_its_nodes_do(links: Links) -> None:
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    image = links.vae.decode(latent)
    assert image.shape == (1, 64, 64, 3)
    assert torch.equal(image, links.nodes.VAEDecode().decode(links.vae, {"samples": latent})[0])
    assert torch.equal(links.vae.encode(image), links.nodes.VAEEncode().encode(links.vae, image)[0]["samples"])
    assert torch.allclose(links.vae.decode_tiled(latent), image, atol=1e-5)
    assert links.vae.encode_tiled(image).shape == (1, 4, 8, 8)
    assert (links.vae.downscale_ratio, links.vae.latent_channels) == (8, 4)


def test_a_cfg_function_gets_what_was_predicted_of_the_noise(links: Links) -> None:
    plain = sampled(links, links.model)
    seen: list[dict[str, Any]] = []

    def as_usual(told: dict[str, Any]) -> torch.Tensor:
        seen.append(told)
        return told["uncond"] + (told["cond"] - told["uncond"]) * told["cond_scale"]

    model = links.model.clone()
    model.set_model_sampler_cfg_function(as_usual)
    assert torch.allclose(sampled(links, model), plain, atol=1e-4)
    assert len(seen) == 3 and seen[0]["cond_scale"] == 3.0
    assert torch.allclose(seen[0]["input"] - seen[0]["cond"], seen[0]["cond_denoised"])
    assert seen[0]["sigma"].shape == (1,) and float(seen[0]["sigma"]) == pytest.approx(
        float(links.model.get_model_object("model_sampling").sigma_max), rel=1e-4
    )
    assert len(seen[0]["model_options"]["transformer_options"]["sample_sigmas"]) == 4
    assert torch.equal(sampled(links, links.model), plain) and not links.model.patches


def test_functions_before_and_after_the_guidance(links: Links) -> None:
    model = links.model.clone()
    model.set_model_sampler_post_cfg_function(lambda told: torch.zeros_like(told["denoised"]))
    assert float(sampled(links, model).abs().max()) < 1e-4
    model = links.model.clone()
    both: list[float] = []

    def swap(told: dict[str, Any]) -> list[torch.Tensor]:
        both.append(float(told["conds_out"][1].abs().max()))
        return [told["conds_out"][0], told["conds_out"][0]]

    model.set_model_sampler_pre_cfg_function(swap, disable_cfg1_optimization=True)
    assert torch.allclose(sampled(links, model, cfg=9.0), sampled(links, links.model, cfg=1.0), atol=1e-4)
    assert min(both) > 0


def test_model_sampling_and_latent_format_are_the_models_own(links: Links) -> None:
    sampling = links.model.get_model_object("model_sampling")
    assert sampling.sigmas.shape == (1000,) and float(sampling.sigma_max) == float(sampling.sigmas[-1])
    t = sampling.timestep(torch.tensor([[float(sampling.sigma_max)]]))
    assert t.shape == (1, 1) and float(t) == 999.0
    assert float(sampling.sigma(t)) == pytest.approx(float(sampling.sigma_max))
    assert sampling.percent_to_sigma(0.0) == 999999999.9 and sampling.percent_to_sigma(1.0) == 0.0
    x, sigma = torch.randn(1, 4, 8, 8), torch.tensor([2.0])
    assert torch.allclose(sampling.calculate_input(sigma, x), x / 5**0.5)
    assert torch.allclose(sampling.calculate_denoised(sigma, x, x), x - 2 * x)
    form = links.model.model.latent_format
    assert torch.allclose(form.process_out(form.process_in(x)), x, atol=1e-6) and form.latent_channels == 4
    other = links.model.clone()
    other.add_object_patch("model_sampling", sampling)
    assert other.prediction == links.model.prediction
    with pytest.raises(AttributeError, match="model_sampling, taken from another model"):
        other.add_object_patch("diffusion_model.x", 1)


def test_sampling_as_functions_gives_what_the_nodes_give(links: Links) -> None:
    import comfy.sample  # type: ignore[import-not-found]
    import comfy.samplers  # type: ignore[import-not-found]
    import latent_preview  # type: ignore[import-not-found]

    positive, negative = prompts(links)
    empty = torch.zeros(1, 4, 8, 8)
    expected = sampled(links, links.model)
    noise = comfy.sample.prepare_noise(empty, 5)
    kept: dict[str, Any] = {}
    callback = latent_preview.prepare_callback(links.model, 3, kept)
    args = (positive, negative, empty)
    got = comfy.sample.sample(links.model, noise, 3, 3.0, "euler", "normal", *args, callback=callback, seed=5)
    assert torch.equal(got, expected) and kept["x0"].shape == empty.shape
    sampling = links.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", 3)
    sampler = comfy.samplers.sampler_object("euler")
    assert torch.equal(comfy.sample.sample_custom(links.model, noise, 3.0, sampler, sigmas, *args, seed=5), expected)
    runner = comfy.samplers.KSampler(links.model, steps=3, sampler="euler", scheduler="normal")
    assert torch.equal(runner.sigmas, sigmas)
    assert torch.equal(runner.sample(noise, positive, negative, 3.0, empty, seed=5), expected)
    wide = comfy.sample.fix_empty_latent_channels(links.model, torch.zeros(1, 16, 8, 8))
    assert wide.shape == (1, 4, 8, 8)


def test_checkpoints_and_loras_by_path(links: Links, packs: Packs) -> None:
    import comfy.sd  # type: ignore[import-not-found]
    import comfy.utils  # type: ignore[import-not-found]
    from safetensors.torch import save_file

    path = packs.workspace.models / "checkpoints" / "demo.safetensors"
    model, clip, vae, none = comfy.sd.load_checkpoint_guess_config(str(path), output_clip=False)
    assert model.is_clone(links.model) and clip is None and none is None and isinstance(vae, comfy.sd.VAE)
    name = next(name for name, shape in links.model.modules.items() if name.endswith("to_q"))
    out, wide = links.model.modules[name]
    key = "lora_unet_" + name.replace(".", "_")
    lora = packs.workspace.models / "loras" / "mine.safetensors"
    save_file({f"{key}.lora_up.weight": torch.ones(out, 1), f"{key}.lora_down.weight": torch.ones(1, wide)}, lora)
    read = comfy.utils.load_torch_file(str(lora), safe_load=True)
    changed, same = comfy.sd.load_lora_for_models(links.model, links.clip, read, 0.5, 0.5)
    assert [adapter.title for adapter in changed.adapters] == ["mine.safetensors"] and same.adapters == ()
    with pytest.raises(TypeError, match="unchanged"):
        comfy.sd.load_lora_for_models(links.model, links.clip, dict(read), 0.5, 0.5)
    with pytest.raises(TypeError, match="can't be made by a node pack"):
        comfy.sd.VAE(sd={})
    lora.unlink()


def test_a_packs_own_sampler_runs_on_the_studios_guidance(links: Links) -> None:
    import comfy.samplers  # type: ignore[import-not-found]

    seen: list[int] = []

    def my_euler(model: Any, x: Any, sigmas: Any, extra_args: Any = None, callback: Any = None, disable: Any = None,
                 gain: float = 0.0) -> Any:  # fmt: skip
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]), **extra_args)
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i]) * gain
            seen.append(i)
        return x

    sampler = comfy.samplers.KSAMPLER(my_euler, {"gain": 1.0})
    positive, negative = prompts(links)
    sigmas = comfy.samplers.calculate_sigmas(links.model.get_model_object("model_sampling"), "normal", 3)
    custom = links.nodes.SamplerCustom()
    inputs = {"add_noise": True, "noise_seed": 5, "cfg": 3.0, "positive": positive, "negative": negative}
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    got = custom.sample(model=links.model, sampler=sampler, sigmas=sigmas, latent_image=latent, **inputs)[0]["samples"]
    assert torch.allclose(got, sampled(links, links.model), atol=1e-4) and seen == [0, 1, 2]
    with pytest.raises(ValueError, match="inpaint_options"):
        comfy.samplers.KSAMPLER(my_euler, {}, {"random": True})


def test_lists_of_sigmas_in_k_diffusions_words(packs: Packs) -> None:
    from comfy.k_diffusion import sampling  # type: ignore[import-not-found]

    karras = sampling.get_sigmas_karras(3, 0.1, 10.0)
    assert karras.shape == (4,) and float(karras[0]) == pytest.approx(10.0) and float(karras[-1]) == 0.0
    assert torch.allclose(
        sampling.get_sigmas_polyexponential(3, 0.1, 10.0), sampling.get_sigmas_exponential(3, 0.1, 10.0)
    )
    x, d = torch.ones(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
    assert torch.equal(sampling.to_d(x, torch.tensor([2.0, 4.0]), d)[:, 0, 0, 0], torch.tensor([0.5, 0.25]))
    down, up = sampling.get_ancestral_step(2.0, 1.0)
    assert down**2 + up**2 == pytest.approx(1.0)
    assert sampling.append_zero(torch.ones(2)).tolist() == [1.0, 1.0, 0.0]
