"""A LoRA of SDXL: both text encoders train, the UNet is told sizes, and the file has kohya's names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from safetensors.torch import load_file

from engine.families.base import Part
from engine.families.discover import family_of
from engine.graph.registry import Registry
from engine.weights.header import read_header
from engine.workspace import Workspace
from tests.families.tiny_unets import SD2, SDXL, Tiny, make_tiny
from tests.trainers.conftest import Context, tiny_settings
from trainers import job
from trainers.buckets import Bucket
from trainers.loop import sizes_of


@pytest.mark.parametrize(
    ("kind", "prefixes"),
    [
        (
            SDXL,
            {"lora_unet_input_blocks", "lora_unet_middle_block", "lora_unet_output_blocks", "lora_te1_", "lora_te2_"},
        ),
        (SD2, {"lora_unet_down_blocks", "lora_unet_mid_block", "lora_unet_up_blocks", "lora_te_"}),
    ],
)
def test_a_lora_trains_and_is_read_back_in_kohyas_names(
    workspace: Workspace, registry: Registry, kind: Tiny, prefixes: set[str]
):
    checkpoint = make_tiny(workspace.models / "checkpoints" / "big.safetensors", kind)
    ctx = Context(workspace, registry)
    settings = tiny_settings(workspace, model="big.safetensors", steps=2, train_text_encoder=True)
    result = job.run(cast(Any, ctx), settings)
    path = workspace.models / "loras" / result["lora"]
    names = load_file(path)
    assert {p for p in prefixes if any(name.startswith(p) for name in names)} == prefixes
    assert all(any(name.startswith(p) for p in prefixes) for name in names)
    learned: dict[str, float] = {}
    for name, t in names.items():
        if name.endswith("lora_up.weight"):
            part = next(p for p in prefixes if name.startswith(p))
            learned[part] = max(learned.get(part, 0.0), float(t.abs().max()))
    assert all(learned.values()), learned
    family = family_of(read_header(checkpoint))
    parts = family.load_checkpoint(ctx.models, checkpoint)
    read = family.read_lora(path, parts.model, parts.clip)
    wanted: set[Part] = {"denoiser", "text_encoder"} | ({"text_encoder_2"} if kind is SDXL else set())
    assert set(read.entries) == wanted and all(read.entries.values()) and not read.unmatched


def test_captions_may_be_encoded_beforehand(workspace: Workspace, registry: Registry):
    make_tiny(workspace.models / "checkpoints" / "big.safetensors", SDXL)
    settings = tiny_settings(workspace, model="big.safetensors", steps=1, batch_size=1)
    assert job.run(cast(Any, Context(workspace, registry)), settings)["steps"] == 1


def test_a_picture_is_told_with_its_own_size_and_what_its_bucket_cuts_off():
    draw = cast(Any, SimpleNamespace(item=SimpleNamespace(width=2000, height=1000)))
    told = sizes_of(draw, Bucket(1024, 1024))
    assert told == {
        "width": 2000, "height": 1000, "crop_w": 512, "crop_h": 0, "target_width": 1024, "target_height": 1024,
    }  # fmt: skip
