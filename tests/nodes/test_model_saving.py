"""Models saved as files: names and types of the real layouts, read again here and by diffusers' converters."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils as theirs
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.errors import OutsideWorkspace
from engine.families.base import Clip, Model, Vae
from engine.families.discover import detect, family, family_of
from engine.families.parts import saving
from engine.graph.cache import NoCache
from engine.graph.catalogue import Catalogue
from engine.graph.context import RunContext
from engine.graph.executor import Executor
from engine.graph.registry import Registry
from engine.graph.validation import validate
from engine.models.device import FakeDevice
from engine.models.manager import ModelManager, ModelRef
from engine.nodes import load_all
from engine.nodes.loaders import checkpoint_loader_simple, clip_loader, dual_clip_loader, unet_loader, vae_loader
from engine.nodes.lora import lora_loader
from engine.nodes.merging import model_merge_simple
from engine.nodes.model_sampling import model_sampling_continuous_edm, model_sampling_discrete
from engine.nodes.model_saving import NotFiniteWeights, checkpoint_save, clip_save, model_save, vae_save
from engine.sampling.model import schedule_of
from engine.weights.header import Header, TensorInfo
from engine.weights.load import open_header
from engine.workspace import Workspace
from tests.families.tiny import UNET, make_tiny_sd1
from tests.families.tiny_dit import SD35, make_flux_checkpoint, make_sd3_checkpoint
from tests.families.tiny_unets import REFINER, SD2, SDXL, Tiny, make_tiny, tiny_unet_modules, unet_config
from tests.nodes.context import Context
from tests.nodes.test_merging import LORA

LAYOUTS = Path(__file__).parents[1] / "parity" / "layouts"
PROMPT = {"3": {"class_type": "CheckpointSave", "inputs": {}}}
WORKFLOW = {"nodes": [], "version": 0.4}
QUERY = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_q.weight"


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create(), prompt=PROMPT, extra_pnginfo={"workflow": WORKFLOW})


def make(ctx: Context, kind: str, name: str = "a.safetensors") -> Path:
    path = ctx.workspace.models / "checkpoints" / name
    makers = {
        "sd1": lambda: make_tiny_sd1(path),
        "sd2": lambda: make_tiny(path, SD2),
        "sdxl": lambda: make_tiny(path, SDXL),
        "sdxl_refiner": lambda: make_tiny(path, REFINER),
        "flux": lambda: make_flux_checkpoint(path),
        "sd3": lambda: make_sd3_checkpoint(path, SD35),
    }
    makers[kind]()
    return path


def saved(ctx: Context, made: Mapping[str, Any]) -> list[Path]:
    return [ctx.workspace.output / one["subfolder"] / one["filename"] for one in made["ui"]["models"]]


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def weights(ctx: Context, ref: ModelRef) -> dict[str, Tensor]:
    with ctx.models.lease(ref) as leased:
        return {name: tensor.clone() for name, tensor in leased[ref].state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


EVERY = ["sd1", "sd2", "sdxl", "sdxl_refiner", "flux", "sd3"]
MARKS = {"v_pred", "ztsnr", "cond_stage_model.transformer.text_model.embeddings.position_ids"}


@pytest.mark.parametrize("kind", EVERY)
def test_a_checkpoint_is_saved_as_it_was_to_the_bit_and_loads_again_from_there(ctx: Context, kind: str):
    path = make(ctx, kind)
    model, clip, vae = checkpoint_loader_simple(ctx, path.name)
    (copy,) = saved(ctx, checkpoint_save(ctx, model, clip, vae, "checkpoints/sub/copy"))
    assert copy == ctx.workspace.output / "checkpoints" / "sub" / "copy_00001_.safetensors"
    before, after = load_file(path), load_file(copy)
    assert after.keys() - MARKS == before.keys()
    for name, tensor in before.items():
        if not name.endswith("logit_scale"):
            assert after[name].dtype == tensor.dtype and torch.equal(after[name], tensor), name
    found = metadata(copy)
    assert json.loads(found["prompt"]) == PROMPT and json.loads(found["workflow"]) == WORKFLOW
    assert found["modelspec.architecture"] == model.family.spec.architecture
    assert found["modelspec.title"] == "copy 1" and found["format"] == "pt"

    listed_as = "sub/copy_00001_.safetensors"
    assert listed_as in ctx.workspace.list_models("checkpoints")
    assert detect(open_header(copy)) == detect(open_header(path))
    again = checkpoint_loader_simple(ctx, listed_as)
    assert (model.config, model.prediction, model.latent) == (again[0].config, again[0].prediction, again[0].latent)
    assert clip.configs == again[1].configs and vae.config == again[2].config
    refs = zip((model.ref, *clip.refs, vae.ref), (again[0].ref, *again[1].refs, again[2].ref), strict=True)
    assert all(same(weights(ctx, one), weights(ctx, other)) for one, other in refs)


def test_parts_are_saved_alone_and_load_alone(ctx: Context):
    path = make(ctx, "sdxl")
    model, clip, vae = checkpoint_loader_simple(ctx, path.name)
    (denoiser,) = saved(ctx, model_save(ctx, model, "diffusion_models/ComfyUI"))
    texts = saved(ctx, clip_save(ctx, clip, "clip/ComfyUI"))
    (decoder,) = saved(ctx, vae_save(ctx, vae, "vae/ComfyUI_vae"))
    assert [file.name for file in texts] == ["ComfyUI_clip_l_00001_.safetensors", "ComfyUI_clip_g_00001_.safetensors"]
    assert all(name.startswith("model.diffusion_model.") for name in load_file(denoiser))
    assert all(
        name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")) for name in load_file(decoder)
    )
    assert all(name.startswith("text_model.") for name in load_file(texts[0]))
    assert load_file(texts[1])["text_projection.weight"].shape == (32, 32)
    for file in (denoiser, *texts, decoder):
        assert json.loads(metadata(file)["workflow"]) == WORKFLOW
    alone = unet_loader(ctx, denoiser.name, "default")[0]
    assert alone.family.spec.name == "sdxl" and same(weights(ctx, alone.ref), weights(ctx, model.ref))
    (both,) = dual_clip_loader(ctx, texts[1].name, texts[0].name, "sdxl")
    assert same(weights(ctx, both.refs[0]), weights(ctx, clip.refs[0]))
    ours, before = weights(ctx, both.refs[1]), weights(ctx, clip.refs[1])
    assert torch.equal(ours.pop("text_projection.weight"), before.pop("text_projection").T) and same(ours, before)
    assert same(weights(ctx, vae_loader(ctx, decoder.name)[0].ref), weights(ctx, vae.ref))


def test_t5_is_saved_alone_under_its_own_names(ctx: Context):
    path = make(ctx, "sd3")
    clip = checkpoint_loader_simple(ctx, path.name)[1]
    files = saved(ctx, clip_save(ctx, clip, "clip/three"))
    assert [file.name.split("_0")[0] for file in files] == ["three_clip_l", "three_clip_g", "three_t5xxl"]
    place = "text_encoders.t5xxl.transformer."
    expected = {n.removeprefix(place): t for n, t in load_file(path).items() if n.startswith(place)}
    assert same(load_file(files[2]), expected)
    assert clip_loader(ctx, files[2].name, "sd3")[0].names == ("t5xxl",)


def in_names(source: saving.Part, stored: Mapping[str, str]) -> set[str]:
    return {one.name for one in source.sources(dict.fromkeys(stored, ()))} | set(source.constants)


def listed(name: str, prefix: str = "") -> Header:
    """The layout of a real file, of which nothing but the header is needed."""
    shapes = json.loads(gzip.decompress((LAYOUTS / f"{name}.json.gz").read_bytes()))
    tensors = {prefix + tensor: TensorInfo("F16", tuple(shape)) for tensor, shape in shapes}
    return Header(Path(name), tensors, {}, 0, name)


@pytest.mark.parametrize("layout", ["sd15", "sdxl"])
def test_the_names_are_those_of_real_checkpoints(ctx: Context, layout: str, monkeypatch: pytest.MonkeyPatch):
    header = listed(layout)
    monkeypatch.setattr("engine.weights.load.open_header", lambda path, allow_pickle=False: header)
    parts = family_of(header).load_checkpoint(ctx.models, header.path)
    found: set[str] = set()
    for part in saving.checkpoint_parts(parts.model, parts.clip, parts.vae):
        found |= in_names(part, ctx.models.stored(part.ref))
    assert found == set(header.tensors)


@pytest.mark.parametrize(
    ("layout", "name", "prefix"), [("flux_1d2s", "flux", "model.diffusion_model."), ("sd3_d6", "sd3", "")]
)
def test_the_names_are_those_of_real_transformers(
    ctx: Context, layout: str, name: str, prefix: str, monkeypatch: pytest.MonkeyPatch
):
    header = listed(layout, prefix)
    monkeypatch.setattr("engine.weights.load.open_header", lambda path, allow_pickle=False: header)
    model = family(name).load_denoiser(ctx.models, header.path)
    assert in_names(saving.denoiser_part(model), ctx.models.stored(model.ref)) == set(header.tensors)


def test_the_names_are_those_of_real_text_encoders_and_autoencoders(ctx: Context, monkeypatch: pytest.MonkeyPatch):
    headers = {name: listed(name) for name in ("clip_l", "clip_g", "t5xxl", "ae16")}
    monkeypatch.setattr("engine.weights.load.open_header", lambda path, allow_pickle=False: headers[path.name])
    clip = family("sd3").load_clip(ctx.models, [Path(name) for name in ("clip_l", "clip_g", "t5xxl")])
    for name, part in saving.text_parts_alone(clip).items():
        assert in_names(part, ctx.models.stored(part.ref)) == set(headers[name].tensors), name
    vae = family("flux").load_vae(ctx.models, Path("ae16"))
    assert in_names(saving.vae_part(vae), ctx.models.stored(vae.ref)) == set(headers["ae16"].tensors)


def read_by_diffusers(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    module.load_state_dict(dict(tensors))
    return dict(module.state_dict())


@pytest.mark.parametrize(("kind", "tiny"), [("sd2", SD2), ("sdxl", SDXL)])
def test_diffusers_reads_a_saved_unet_vae_and_openclip(ctx: Context, kind: str, tiny: Tiny):
    parts = checkpoint_loader_simple(ctx, make(ctx, kind).name)
    (path,) = saved(ctx, checkpoint_save(ctx, *parts, "checkpoints/x"))
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}
    made = tiny_unet_modules(tiny)
    names = {"layers_per_block": 2, "class_embed_type": None, "addition_embed_type": None, **unet_config(tiny)}
    unet = theirs.convert_ldm_unet_checkpoint(dict(tensors), names)
    assert same(read_by_diffusers(UNet2DConditionModel(**unet_config(tiny)), unet), made.unet.state_dict())
    vae = theirs.convert_ldm_vae_checkpoint(dict(tensors), made.vae.config)
    assert same(read_by_diffusers(AutoencoderKL(**made.vae.config), vae), made.vae.state_dict())
    place = {"sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}[kind]
    text = theirs.convert_open_clip_checkpoint(made.texts[-1], dict(tensors), prefix=place)
    expected = made.texts[-1].state_dict()
    unused = (".layers.23.", "text_projection") if kind == "sd2" else ()  # what diffusers' SD 2 does without
    assert text.keys() == {name for name in expected if not any(part in name for part in unused)}
    assert all(torch.equal(text[name], expected[name]) for name in text)


def test_diffusers_reads_a_saved_sd1(ctx: Context):
    parts = checkpoint_loader_simple(ctx, make(ctx, "sd1").name)
    (path,) = saved(ctx, checkpoint_save(ctx, *parts, "checkpoints/x"))
    tensors = load_file(path)
    names = {"class_embed_type": None, "addition_embed_type": None, **UNET}
    unet = read_by_diffusers(UNet2DConditionModel(**UNET), theirs.convert_ldm_unet_checkpoint(dict(tensors), names))
    assert same(unet, weights(ctx, parts[0].ref))
    text = theirs.convert_ldm_clip_checkpoint(dict(tensors))
    assert text.pop("text_model.embeddings.position_ids").tolist() == [list(range(77))]
    assert {name.removeprefix("text_model.") for name in text} == set(weights(ctx, parts[1].refs[0]))


@pytest.mark.parametrize(
    ("layout", "kind", "convert"),
    [
        ("flux_1d2s", FluxTransformer2DModel, theirs.convert_flux_transformer_checkpoint_to_diffusers),
        ("sd3_d6", SD3Transformer2DModel, theirs.convert_sd3_transformer_checkpoint_to_diffusers),
    ],
)
def test_diffusers_reads_the_names_and_rows_of_saved_transformers(
    ctx: Context, layout: str, kind: Any, convert: Any, monkeypatch: pytest.MonkeyPatch
):
    """Its converters know the real widths alone, so that tensors are without numbers."""
    header = listed(layout, "model.diffusion_model." if layout == "flux_1d2s" else "")
    monkeypatch.setattr("engine.weights.load.open_header", lambda path, allow_pickle=False: header)
    model = family("flux" if layout == "flux_1d2s" else "sd3").load_denoiser(ctx.models, header.path)
    part = saving.denoiser_part(model)
    tensors = {
        source.name: torch.empty(header.shape(source.name), device="meta")
        for source in part.sources(dict.fromkeys(ctx.models.stored(model.ref), ()))
    }
    with torch.device("meta"):
        module = kind(**model.config)
    found = {name: tuple(tensor.shape) for name, tensor in convert(tensors).items()}
    assert found == {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.fixture
def lora(ctx: Context) -> str:
    torch.manual_seed(0)
    text = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    tensors = {f"{LORA}.lora_down.weight": torch.randn(2, 16), f"{LORA}.lora_up.weight": torch.randn(16, 2)}
    tensors |= {f"{text}.lora_down.weight": torch.randn(2, 32), f"{text}.lora_up.weight": torch.randn(64, 2)}
    save_file(tensors, ctx.workspace.models / "loras" / "lora.safetensors")
    return "lora.safetensors"


def test_loras_in_force_are_in_the_weights_and_nothing_else_changes(ctx: Context, lora: str):
    path = make(ctx, "sd1")
    model, clip, vae = checkpoint_loader_simple(ctx, path.name)
    changed = lora_loader(ctx, model, clip, lora, 0.5, -1.0)
    (file,) = saved(ctx, checkpoint_save(ctx, *changed, vae, "checkpoints/x"))
    before, after = load_file(path), load_file(file)
    text = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    for adapter, name in zip((*changed[0].adapters, *changed[1].adapters), (QUERY, text), strict=True):
        (entry,) = adapter.entries.values()
        expected = before[name].float() + adapter.strength * (entry.up @ entry.down)  # type: ignore[union-attr]
        torch.testing.assert_close(after[name], expected.half(), rtol=1e-3, atol=1e-3)
        assert not torch.equal(after[name], before[name])
    assert all(torch.equal(after[name], t) for name, t in before.items() if name not in (QUERY, text))
    again = weights(ctx, checkpoint_loader_simple(ctx, path.name)[0].ref)
    assert same(again, weights(ctx, model.ref)), "the shared weights are as they were"


def test_a_merge_is_saved(ctx: Context):
    first, second = make(ctx, "sd1"), make_tiny_sd1(ctx.workspace.models / "checkpoints" / "b.safetensors", seed=1)
    one, other = (checkpoint_loader_simple(ctx, path.name)[0] for path in (first, second))
    (merged,) = model_merge_simple(ctx, one, other, 0.25)
    (file,) = saved(ctx, model_save(ctx, merged, "diffusion_models/merged"))
    a, b, made = load_file(first), load_file(second), load_file(file)
    for name, tensor in made.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, (a[name].float() * 0.25 + b[name].float() * 0.75).half()), name


def test_files_say_that_a_model_predicts_v(ctx: Context):
    model, clip, vae = checkpoint_loader_simple(ctx, make(ctx, "sd1").name)
    for zsnr, marks in ((False, {"v_pred"}), (True, {"v_pred", "ztsnr"})):
        (changed,) = model_sampling_discrete(ctx, model, "v_prediction", zsnr)
        (path,) = saved(ctx, checkpoint_save(ctx, changed, clip, vae, "checkpoints/v"))
        assert {name for name in load_file(path) if "." not in name} == marks
        assert metadata(path)["modelspec.predict_key"] == metadata(path)["modelspec.prediction_type"] == "v"
        again = checkpoint_loader_simple(ctx, path.name)[0]
        assert again.prediction == "v" and bool(again.options) == zsnr
    assert (
        metadata(saved(ctx, checkpoint_save(ctx, model, clip, vae, "checkpoints/e"))[0])["modelspec.predict_key"]
        == "epsilon"
    )


@pytest.mark.parametrize("sampling", ["edm_playground_v2.5", "v_prediction"])
def test_files_say_that_a_model_was_trained_in_continuous_time(ctx: Context, sampling: str):
    model, clip, vae = checkpoint_loader_simple(ctx, make(ctx, "sdxl").name)
    (changed,) = model_sampling_continuous_edm(ctx, model, sampling, 80.0, 0.002)
    (path,) = saved(ctx, checkpoint_save(ctx, changed, clip, vae, "checkpoints/continuous"))
    again = checkpoint_loader_simple(ctx, path.name)[0]
    assert (again.prediction, again.latent) == (changed.prediction, changed.latent)
    ends = [(schedule.sigma_min, schedule.sigma_max) for schedule in (schedule_of(again), schedule_of(changed))]
    assert ends[0] == pytest.approx(ends[1])


def test_files_are_numbered_and_prefixes_stay_inside(ctx: Context):
    vae = checkpoint_loader_simple(ctx, make(ctx, "sd1").name)[2]
    names = [saved(ctx, vae_save(ctx, vae, "vae/x"))[0].name for _ in range(2)]
    assert names == ["x_00001_.safetensors", "x_00002_.safetensors"]
    with pytest.raises(OutsideWorkspace):
        vae_save(ctx, vae, "../x")


def test_what_was_quantised_is_saved_as_numbers(ctx: Context):
    path = make(ctx, "flux")
    name = "model.diffusion_model.single_blocks.0.linear2.weight"
    tensors = load_file(path)
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    tensors[name.replace(".weight", ".scale_weight")] = torch.tensor(2.0)
    save_file(tensors, path)
    model = checkpoint_loader_simple(ctx, path.name)[0]
    (file,) = saved(ctx, model_save(ctx, model, "diffusion_models/x"))
    made = load_file(file)
    assert torch.equal(made[name], (tensors[name].float() * 2).bfloat16())
    assert not any("scale" in key for key in made if "_norm.scale" not in key)


def test_what_can_not_be_one_file_is_refused(ctx: Context):
    model, clip, vae = checkpoint_loader_simple(ctx, make(ctx, "sd1").name)
    other = checkpoint_loader_simple(ctx, make(ctx, "sdxl", "x.safetensors").name)[1]
    with pytest.raises(saving.PartsDiffer, match=r"Stable Diffusion 1.x can't be saved with SDXL CLIP"):
        checkpoint_save(ctx, model, other, vae, "checkpoints/x")
    wide = replace(vae, latent=replace(vae.latent, channels=16))
    with pytest.raises(saving.PartsDiffer, match="VAE of 16 channels"):
        checkpoint_save(ctx, model, clip, wide, "checkpoints/x")
    with pytest.raises(saving.NotSaved, match="stand-ins"):
        vae_save(ctx, replace(vae, config={"width": 64}), "vae/x")
    assert not (ctx.workspace.output / "checkpoints").exists()


def test_numbers_that_are_none_are_not_saved_and_nothing_is_left(ctx: Context):
    path = make(ctx, "sd1")
    tensors, words = load_file(path), metadata(path)
    tensors[QUERY][0, 0] = float("nan")
    save_file(tensors, path, words)
    model = checkpoint_loader_simple(ctx, path.name)[0]
    with pytest.raises(NotFiniteWeights, match="to_q"):
        model_save(ctx, model, "diffusion_models/x")
    assert list((ctx.workspace.output / "diffusion_models").iterdir()) == []


def test_a_draft_saves_no_model(ctx: Context):
    parts: tuple[Model, Clip, Vae] = checkpoint_loader_simple(ctx, make(ctx, "sd1").name)
    ctx.draft = True
    assert checkpoint_save(ctx, *parts, "checkpoints/x") == clip_save(ctx, parts[1], "clip/x") == {}
    assert not list(ctx.workspace.output.rglob("*.safetensors"))


def test_an_interrupted_save_leaves_nothing(ctx: Context, monkeypatch: pytest.MonkeyPatch):
    parts = checkpoint_loader_simple(ctx, make(ctx, "sd1").name)
    calls = []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(ctx, "interrupt_check", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_save(ctx, *parts, "checkpoints/x")
    assert list((ctx.workspace.output / "checkpoints").iterdir()) == []


def test_a_prompt_merges_by_blocks_and_saves(ctx: Context):
    """Through the checks and the executor, whose inputs have names with dots."""
    for seed, name in enumerate(("a", "b")):
        make_tiny_sd1(ctx.workspace.models / "checkpoints" / f"{name}.safetensors", seed=seed)
    registry = Registry()
    load_all(registry)
    ratios = {name: 1.0 for name in registry["ModelMergeSD1"].inputs if name not in ("model1", "model2")}
    merge = {"model1": ["1", 0], "model2": ["2", 0], **ratios, "out.": 0.25}
    prompt = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
        "2": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "b.safetensors"}},
        "3": {"class_type": "ModelMergeSD1", "inputs": merge},
        "4": {
            "class_type": "CheckpointSave",
            "inputs": {"model": ["3", 0], "clip": ["1", 1], "vae": ["1", 2], "filename_prefix": "checkpoints/merged"},
        },
    }
    found = validate(prompt, Catalogue.of(registry), ctx.workspace)
    assert found.outputs == ["4"], found.to_json()
    run = RunContext("id", ctx.workspace, ctx.models, found.prompt, {"extra_pnginfo": {"workflow": WORKFLOW}})
    outcome = Executor(registry, NoCache(), torch.no_grad).run(found.prompt, run, ["4"], lambda event, data: None)
    assert outcome.status == "success", outcome.error
    (file,) = saved(ctx, {"ui": outcome.outputs["4"]})
    words = metadata(file)
    assert json.loads(words["prompt"])["3"]["inputs"]["out."] == 0.25 and json.loads(words["workflow"]) == WORKFLOW
    a, b, made = (load_file(ctx.workspace.model_path("checkpoints", f"{n}.safetensors")) for n in ("a", "b", file.stem))
    for name in ("out.0.weight", "out.2.weight", "input_blocks.1.0.in_layers.2.weight"):
        own = 0.25 if name.startswith("out.") else 1.0
        place = f"model.diffusion_model.{name}"
        assert torch.equal(made[place], (a[place].float() * own + b[place].float() * (1 - own)).half()), name


def test_weights_come_from_the_device_that_holds_them(ctx: Context, lora: str):
    """One whose tensors turn to NaN once they are taken off, and that has no room for two models."""
    path = make(ctx, "sd1")
    model, clip, vae = checkpoint_loader_simple(ctx, path.name)
    (expected,) = saved(ctx, checkpoint_save(ctx, *lora_loader(ctx, model, clip, lora, 0.5, 0.5), vae, "checkpoints/x"))
    ctx.models = ModelManager(FakeDevice(3 * ctx.models.nbytes(model.ref)))
    model, clip, vae = checkpoint_loader_simple(ctx, path.name)
    (file,) = saved(ctx, checkpoint_save(ctx, *lora_loader(ctx, model, clip, lora, 0.5, 0.5), vae, "checkpoints/y"))
    assert same(load_file(file), load_file(expected))
    assert ctx.models.ledger()["working"] == 0
