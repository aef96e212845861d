"""Nodes that load models, put LoRAs beside them, encode and decode."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import NotFound, OutsideWorkspace
from engine.families.base import Components, LiveLora
from engine.families.discover import UnknownFamily
from engine.nodes.conditioning import clip_set_last_layer, clip_text_encode
from engine.nodes.loaders import checkpoint_loader_simple, file_digest, vae_loader
from engine.nodes.lora import lora_digest, lora_loader, lora_loader_model_only
from engine.nodes.vae import TooSmall, WrongLatent, cropped, vae_decode, vae_encode
from engine.weights.header import EmptyFile, NotSafetensors, PickleFile, Truncated
from engine.weights.lora import LoraEntry, LoraOfOtherModel, NoLora
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.nodes.context import Context

QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path).create()
    make_tiny_sd1(workspace.models / "checkpoints" / "tiny.safetensors")
    lora = {
        f"{QUERY}.lora_down.weight": torch.randn(2, 16),
        f"{QUERY}.lora_up.weight": torch.randn(16, 2),
        f"{TEXT}.lora_down.weight": torch.randn(2, 32),
        f"{TEXT}.lora_up.weight": torch.randn(64, 2),
    }
    save_file(lora, workspace.models / "loras" / "my lora 猫.safetensors")
    return Context(workspace)


@pytest.fixture
def parts(ctx: Context) -> Components:
    model, clip, vae = checkpoint_loader_simple(ctx, "tiny.safetensors")
    return Components(model, clip, vae, "tiny", "digest")


def states(ctx: Context, role: str) -> list[str]:
    return [model["state"] for model in ctx.models.snapshot()["models"] if model["role"] == role]


def test_a_checkpoint_gives_three_links_and_reads_no_weights(ctx: Context, parts: Components):
    assert (parts.model.family.spec.name, parts.vae.factor, parts.clip.stop_at_layer) == ("sd1", 4, None)
    assert states(ctx, "denoiser") == ["file"]


def test_a_name_outside_the_model_folders_is_refused(ctx: Context):
    with pytest.raises(OutsideWorkspace):
        checkpoint_loader_simple(ctx, "../../etc/passwd")
    with pytest.raises(NotFound):
        checkpoint_loader_simple(ctx, "nothing.safetensors")


def test_bad_checkpoints_say_what_is_wrong(ctx: Context):
    folder = ctx.workspace.models / "checkpoints"
    good = (folder / "tiny.safetensors").read_bytes()
    torch.save({"a": torch.ones(1)}, folder / "pickle.ckpt")
    files = {"empty": b"", "text": b"this is a readme, not a model", "cut": good[:-1000]}
    for name, data in files.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    errors = {"empty.safetensors": EmptyFile, "text.safetensors": NotSafetensors, "cut.safetensors": Truncated}
    for name, error in {**errors, "pickle.ckpt": PickleFile}.items():
        with pytest.raises(error):
            checkpoint_loader_simple(ctx, name)


def test_a_pickle_is_loaded_where_the_owner_allows_it(ctx: Context):
    from safetensors.torch import load_file

    folder = ctx.workspace.models / "checkpoints"
    torch.save({"state_dict": load_file(folder / "tiny.safetensors")}, folder / "tiny.ckpt")
    ctx.workspace = replace(ctx.workspace, allow_pickle=True)
    model, _, _ = checkpoint_loader_simple(ctx, "tiny.ckpt")
    assert model.family.spec.name == "sd1"


def test_a_lora_in_the_place_of_a_checkpoint_is_named(ctx: Context):
    lora = ctx.workspace.models / "loras" / "my lora 猫.safetensors"
    (ctx.workspace.models / "checkpoints" / "lora.safetensors").write_bytes(lora.read_bytes())
    with pytest.raises(UnknownFamily, match="lora"):
        checkpoint_loader_simple(ctx, "lora.safetensors")


def test_a_replaced_file_has_another_digest(ctx: Context):
    first = file_digest(ctx, "checkpoints", "tiny.safetensors")
    assert file_digest(ctx, "checkpoints", "tiny.safetensors") == first
    make_tiny_sd1(ctx.workspace.models / "checkpoints" / "tiny.safetensors", seed=1, metadata={"a": "b"})
    assert file_digest(ctx, "checkpoints", "tiny.safetensors") != first


def test_loras_stack_and_change_no_weights(ctx: Context, parts: Components):
    name = "my lora 猫.safetensors"
    model, clip = lora_loader(ctx, parts.model, parts.clip, name, 0.7, 0.5)
    model, clip = lora_loader(ctx, model, clip, name, -0.2, 0.0)
    assert [adapter.strength for adapter in model.adapters] == [0.7, -0.2]
    assert [adapter.strength for adapter in clip.adapters] == [0.5]
    assert (model.ref, clip.refs) == (parts.model.ref, parts.clip.refs) and not parts.model.adapters
    assert states(ctx, "lora") == ["resident"], "read once for both nodes"


def test_a_lora_of_no_strength_is_not_even_read(ctx: Context, parts: Components):
    assert lora_loader(ctx, parts.model, parts.clip, "nothing.safetensors", 0.0, 0.0) == (parts.model, parts.clip)
    assert lora_loader_model_only(ctx, parts.model, "nothing.safetensors", 0.0) == (parts.model,)


def test_a_lora_for_the_model_alone(ctx: Context, parts: Components):
    (model,) = lora_loader_model_only(ctx, parts.model, "my lora 猫.safetensors", 1.0)
    assert list(model.adapters[0].entries) == ["mid_block.attentions.0.transformer_blocks.0.attn2.to_q"]


def test_a_lora_of_the_text_encoder_alone_does_nothing_to_a_model(ctx: Context, parts: Components):
    text = {f"{TEXT}.lora_down.weight": torch.ones(2, 32), f"{TEXT}.lora_up.weight": torch.ones(64, 2)}
    save_file(text, ctx.workspace.models / "loras" / "text.safetensors")
    assert lora_loader_model_only(ctx, parts.model, "text.safetensors", 1.0) == (parts.model,)


def test_loras_that_do_not_fit_are_refused(ctx: Context, parts: Components):
    folder = ctx.workspace.models / "loras"
    flux = "lora_unet_double_blocks_0_img_attn_qkv"
    save_file({f"{flux}.lora_down.weight": torch.ones(2, 4), f"{flux}.lora_up.weight": torch.ones(4, 2)},
              folder / "flux.safetensors")  # fmt: skip
    save_file({"anything": torch.ones(2)}, folder / "none.safetensors")
    with pytest.raises(LoraOfOtherModel, match=r"Flux\.1"):
        lora_loader(ctx, parts.model, parts.clip, "flux.safetensors", 1.0, 1.0)
    with pytest.raises(NoLora):
        lora_loader(ctx, parts.model, parts.clip, "none.safetensors", 1.0, 1.0)


def test_a_lora_under_training_stands_for_its_file(ctx: Context, parts: Components):
    entries = {"mid_block.attentions.0.proj_in": LoraEntry(torch.ones(2, 16), torch.ones(16, 2))}
    ctx.live["run.safetensors"] = LiveLora("run@100", {"denoiser": entries})
    model, clip = lora_loader(ctx, parts.model, parts.clip, "run.safetensors", 1.0, 1.0)
    assert model.adapters[0].entries is entries and model.adapters[0].key == "run@100" and clip is parts.clip
    assert lora_digest(ctx, "run.safetensors") == "run@100"


def test_a_prompt_is_encoded_with_the_lora_of_its_text_encoder(ctx: Context, parts: Components):
    _, clip = lora_loader(ctx, parts.model, parts.clip, "my lora 猫.safetensors", 1.0, 1.0)
    ((plain, options),) = clip_text_encode(ctx, "a cat", parts.clip)[0]
    ((changed, _),) = clip_text_encode(ctx, "a cat", clip)[0]
    ((again, _),) = clip_text_encode(ctx, "a cat", parts.clip)[0]
    assert plain.shape == (1, 77, 32) and options["pooled_output"].shape == (1, 32)
    assert not torch.equal(plain, changed) and torch.equal(plain, again)


def test_the_last_layer_is_set_on_a_copy(ctx: Context, parts: Components):
    (clip,) = clip_set_last_layer(ctx, parts.clip, -2)
    assert (clip.stop_at_layer, parts.clip.stop_at_layer) == (-2, None)


def test_latents_are_in_the_scale_of_the_vae(ctx: Context, parts: Components):
    image = torch.rand(2, 32, 48, 3)
    (latent,) = vae_encode(ctx, image, parts.vae)
    assert latent["samples"].shape == (2, 4, 8, 12)
    with ctx.models.lease(parts.vae.ref) as leased, torch.no_grad():
        mean = leased[parts.vae.ref].encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mean
    torch.testing.assert_close(latent["samples"], mean)
    (decoded,) = vae_decode(ctx, latent, parts.vae)
    assert decoded.shape == image.shape and decoded.min() >= 0 and decoded.max() <= 1


def test_pictures_are_cut_around_their_middle():
    image = torch.arange(13.0)[None, :, None, None].expand(1, 13, 19, 3)
    cut = cropped(image, 8)
    assert cut.shape == (1, 8, 16, 3) and cut[0, 0, 0, 0] == 2


def test_alpha_is_not_encoded(ctx: Context, parts: Components):
    image = torch.rand(1, 16, 16, 4)
    assert torch.equal(vae_encode(ctx, image, parts.vae)[0]["samples"],
                       vae_encode(ctx, image[..., :3], parts.vae)[0]["samples"])  # fmt: skip


def test_what_does_not_fit_a_vae_is_refused(ctx: Context, parts: Components):
    with pytest.raises(WrongLatent, match="16"):
        vae_decode(ctx, {"samples": torch.zeros(1, 16, 8, 8)}, parts.vae)
    with pytest.raises(TooSmall):
        vae_encode(ctx, torch.zeros(1, 2, 64, 3), parts.vae)


def test_a_vae_alone_is_loaded(ctx: Context):
    with pytest.raises(NotFound):
        vae_loader(ctx, "nothing.safetensors")


def test_what_of_a_lora_fits_nothing_is_told_with_count_and_name(ctx: Context, parts: Components):
    lora = {f"{QUERY}.lora_down.weight": torch.ones(2, 16), f"{QUERY}.lora_up.weight": torch.ones(16, 2)}
    lora |= {"lora_unet_nowhere.lora_down.weight": torch.ones(2, 16), "lora_unet_nowhere.alpha": torch.ones(())}
    save_file(lora, ctx.workspace.models / "loras" / "odd.safetensors")
    for _ in range(2):  # also when the file is known already
        lora_loader_model_only(ctx, parts.model, "odd.safetensors", 1.0)
    (en, zh), again = ctx.warnings
    assert again == (en, zh) and "2 of its 4 tensors" in en and "lora_unet_nowhere" in en and "2 个" in zh
    ctx.warnings.clear()
    lora_loader_model_only(ctx, parts.model, "my lora 猫.safetensors", 1.0)
    assert ctx.warnings == [], "a text half that is not asked for is no surprise"
