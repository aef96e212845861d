"""A LoRA made here has the keys and the metadata of one that kohya's scripts make for an SD 1.x model, and no other."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from diffusers.utils.state_dict_utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from safetensors import safe_open
from safetensors.torch import load_file

from tests.families.tiny import TEXT, UNET, tiny_modules
from tests.trainers.conftest import Context, tiny_settings
from trainers import job

# What kohya's networks.lora reaches without convolutions: everything linear, and the projections, of transformers.
UNET_LAYERS = ("proj_in", "proj_out")
BLOCK_LAYERS = (
    *(f"attn{n}_{which}" for n in (1, 2) for which in ("to_q", "to_k", "to_v", "to_out_0")),
    "ff_net_0_proj",
    "ff_net_2",
)
TEXT_LAYERS = (*(f"self_attn_{which}_proj" for which in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2")
# Keys that kohya's scripts write, of those that say something of a run like ours.
KNOWN_WORDS = [
    "base_model_version",
    "sd_model_name",
    "output_name",
    "network_module",
    "network_dim",
    "network_alpha",
    "network_args",
    "training_started_at",
    "steps",
    "max_train_steps",
    "num_train_images",
    "num_epochs",
    "batch_size_per_device",
    "total_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "learning_rate",
    "unet_lr",
    "text_encoder_lr",
    "lr_scheduler",
    "lr_warmup_steps",
    "optimizer",
    "max_grad_norm",
    "mixed_precision",
    "seed",
    "resolution",
    "enable_bucket",
    "keep_tokens",
    "shuffle_caption",
    "caption_dropout_rate",
    "flip_aug",
    "min_snr_gamma",
    "noise_offset",
    "prior_loss_weight",
    "tag_frequency",
]
MODELSPEC = [
    "sai_model_spec",
    "architecture",
    "implementation",
    "title",
    "date",
    "resolution",
    "prediction_type",
    "hash_sha256",
    "trigger_phrase",
]


def kohya_modules(downs: dict[int, int], ups: dict[int, int], text_layers: int) -> Iterator[str]:
    """`downs` and `ups`: {block with attention: its layers}."""
    places = [
        f"{way}_blocks_{b}_attentions_{n}"
        for way, some in (("down", downs), ("up", ups))
        for b in some
        for n in range(some[b])
    ]
    for place in (*places, "mid_block_attentions_0"):
        yield from (f"lora_unet_{place}_{layer}" for layer in UNET_LAYERS)
        yield from (f"lora_unet_{place}_transformer_blocks_0_{layer}" for layer in BLOCK_LAYERS)
    for number in range(text_layers):
        yield from (f"lora_te_text_model_encoder_layers_{number}_{layer}" for layer in TEXT_LAYERS)


def test_the_reference_has_as_many_modules_as_kohyas_scripts_count_for_sd15() -> None:
    found = list(kohya_modules({0: 2, 1: 2, 2: 2}, {1: 3, 2: 3, 3: 3}, 12))
    assert len([name for name in found if name.startswith("lora_unet_")]) == 192
    assert len([name for name in found if name.startswith("lora_te_")]) == 72


@pytest.mark.parametrize("with_text", [True, False])
def test_an_exported_lora_has_the_keys_of_kohyas_and_no_other(ctx: Context, with_text: bool) -> None:
    job.run(ctx, tiny_settings(ctx.workspace, train_text_encoder=with_text, steps=1, alpha=2.0))
    assert UNET["layers_per_block"] == 2
    modules = set(kohya_modules({0: 2, 1: 2}, {1: 3, 2: 3}, TEXT["num_hidden_layers"] if with_text else 0))
    endings = ("lora_down.weight", "lora_up.weight", "alpha")
    with safe_open(ctx.workspace.models / "loras" / "zz.safetensors", "pt") as file:
        assert set(file.keys()) == {f"{module}.{ending}" for module in modules for ending in endings}
        words = file.metadata()
        for module in modules:
            down, up, alpha = (file.get_tensor(f"{module}.{ending}") for ending in endings)
            assert down.shape[0] == up.shape[1] == 4 and alpha.shape == () and float(alpha) == 2.0, module
            assert down.dtype == up.dtype == alpha.dtype == torch.float16
            assert len(down.shape) == (4 if module.endswith(("proj_in", "proj_out")) and "_unet_" in module else 2)
    assert set(words) == {f"ss_{w}" for w in KNOWN_WORDS} | {f"modelspec.{w}" for w in MODELSPEC} | {"sshs_model_hash"}
    assert (words["ss_network_dim"], float(words["ss_network_alpha"])) == ("4", 2.0)
    assert words["modelspec.sai_model_spec"] == "1.0.0"
    assert isinstance(json.loads(words["ss_tag_frequency"])["zz"], dict)


def test_diffusers_reads_an_exported_lora_onto_its_modules(ctx: Context) -> None:
    """Its names for peft: every pair lands on a layer that is there, with the rank and the alpha of the run."""
    job.run(ctx, tiny_settings(ctx.workspace, train_text_encoder=True, steps=1, alpha=2.0))
    tensors = load_file(ctx.workspace.models / "loras" / "zz.safetensors")
    theirs, alphas = _convert_non_diffusers_lora_to_diffusers(dict(tensors))
    found = convert_unet_state_dict_to_peft({k: t for k, t in theirs.items() if k.startswith("unet.")})
    found |= convert_state_dict_to_peft({k: t for k, t in theirs.items() if k.startswith("text_encoder.")})
    unet, _, text = tiny_modules()
    names = {f"unet.{name}": layer for name, layer in unet.named_modules()}
    names |= {f"text_encoder.text_model.{name}": layer for name, layer in text.named_modules()}
    assert len(found) == 2 * len(alphas) == 2 * len(tensors) // 3
    for key, tensor in found.items():
        module, half = key.removesuffix(".weight").rsplit(".", 1)
        weight = names[module].get_parameter("weight")
        assert tensor.shape[:2] == ((4, weight.shape[1]) if half == "lora_A" else (weight.shape[0], 4)), key
    assert set(alphas.values()) == {2.0}
