"""Whole runs on a tiny checkpoint: they resume, give way, share the base and end exactly as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from engine.errors import Cancelled, DiskFull
from engine.graph.job import GenerateSettings
from engine.graph.job import run as generate
from engine.workflows import LoraChoice, PictureSettings, text_to_image
from tests.families.tiny import make_tiny_sd1
from tests.trainers.conftest import Context, tiny_settings
from trainers import job
from trainers.base import BucketStep, load_base
from trainers.cache import Latents
from trainers.data import NoPictures
from trainers.loop import LossNotFinite
from trainers.optimizers import NoEightBit
from trainers.runs import Run, run_of

FULL: dict[str, Any] = {
    "conv": True,
    "train_text_encoder": True,
    "shuffle_caption": True,
    "flip": True,
    "gradient_accumulation_steps": 2,
    "min_snr_gamma": 5.0,
    "noise_offset": 0.05,
    "caption_dropout": 0.2,
    "prior_fraction": 0.5,
    "prior_samples": 3,
    "prior_steps": 2,
    "lr_scheduler": "cosine",
    "warmup": 2,
    "steps": 4,
}


def lora(ctx: Context, name: str = "zz") -> dict[str, torch.Tensor]:
    return load_file(ctx.workspace.models / "loras" / f"{name}.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def state_of(ctx: Context, name: str = "zz") -> dict[str, torch.Tensor]:
    return load_file(max((ctx.workspace.runs / name / "state").iterdir()))


def picture(ctx: Context, lora_name: str, *, cfg: float = 7.0, prompt: str = "a red cat", seed: int = 3) -> np.ndarray:
    settings = PictureSettings(
        ckpt_name="tiny.safetensors",
        positive=prompt,
        width=64,
        height=64,
        seed=seed,
        steps=3,
        cfg=cfg,
        sampler_name="euler_ancestral",
        loras=(LoraChoice(lora_name),) if lora_name else (),
    )
    result = generate(ctx, GenerateSettings(prompt=text_to_image(settings)))
    (made,) = result["outputs"]["7"]["images"]
    return np.asarray(Image.open(ctx.workspace.output / made["subfolder"] / made["filename"]))


def stop_at(step: int, how: type[BaseException] = RuntimeError):
    """Something in a checkpoint that ends the run when it has done `step` steps."""

    def stop(ctx: Context) -> None:
        done = [told[0] for told in ctx.told if told[3] == "train"]
        if done and done[-1] == step:
            raise how("stopped")

    return stop


def test_a_run_ends_with_a_lora_a_curve_and_a_config_that_reads_back(ctx):
    result = job.run(ctx, tiny_settings(ctx.workspace))
    assert result | {"loss": 0} == {
        "lora": "zz.safetensors",
        "run": "zz",
        "model": "tiny.safetensors",
        "trigger_word": "zz",
        "steps": 6,
        "loss": 0,
    }
    run = Run(ctx.workspace.runs / "zz")
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4, 5, 6]
    assert run.metrics()[-1]["loss"] == result["loss"]
    from trainers.presets import read_settings

    assert read_settings(run.config) == tiny_settings(ctx.workspace)
    assert [told[3] for told in ctx.told if told[3] == "train"] == ["train"] * 6
    assert {told[3] for told in ctx.told} == {"load", "cache", "train", "save"}
    assert all("loss" in told[4] for told in ctx.told if told[3] == "train")


@pytest.mark.parametrize("changes", [{}, FULL, {"mixed_precision": "bf16", "gradient_checkpointing": True}])
def test_a_run_that_failed_in_the_middle_ends_as_one_that_did_not(workspace, registry, changes):
    settings = tiny_settings(workspace, state_every=1, **changes)
    whole = Context(workspace, registry, "whole")
    job.run(whole, settings)
    broken = Context(workspace, registry, "broken")
    broken.between = stop_at(3)
    with pytest.raises(RuntimeError, match="stopped"):
        job.run(broken, settings)
    torch.rand(7)
    again = Context(workspace, registry, "broken")
    assert job.run(again, settings)["run"] == "zz-2"
    assert next(told[0] for told in again.told if told[3] == "train") == 4
    assert equal(state_of(whole), state_of(again, "zz-2"))
    assert equal(lora(whole), lora(again, "zz-2"))
    rows = [{k: v for k, v in row.items() if k != "time"} for row in Run(workspace.runs / "zz").metrics()]
    assert rows == [{k: v for k, v in row.items() if k != "time"} for row in Run(workspace.runs / "zz-2").metrics()]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from engine.graph.registry import Registry
from engine.nodes import load_all
from engine.workspace import Workspace
from tests.trainers.conftest import Context, tiny_settings
from tests.trainers.test_job import FULL
from trainers import job

torch.set_num_threads(1)
registry = Registry()
load_all(registry)
workspace = Workspace(Path(sys.argv[1]))
ctx = Context(workspace, registry, "killed")

def kill(ctx):
    if [told for told in ctx.told if told[3] == "train" and told[0] == 3]:
        os.kill(os.getpid(), signal.SIGKILL)

ctx.between = kill
job.run(ctx, tiny_settings(workspace, state_every=2, **FULL))
"""


def run_elsewhere(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, env={**os.environ, "PYTHONPATH": root}, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_process_leaves_what_another_ends_bit_by_bit(workspace, registry):
    killed = run_elsewhere(KILLED, str(workspace.root))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = Context(workspace, registry, "killed")
    job.run(again, tiny_settings(workspace, state_every=2, **FULL))
    assert next(told[0] for told in again.told if told[3] == "train") == 3
    whole = Context(workspace, registry, "whole")
    job.run(whole, tiny_settings(workspace, state_every=2, **FULL))
    assert equal(state_of(again), state_of(whole, "zz-2"))
    assert equal(lora(again), lora(whole, "zz-2"))


FRESH = """
import sys
from pathlib import Path
import numpy as np, torch
from engine.graph.registry import Registry
from engine.nodes import load_all
from engine.workspace import Workspace
from tests.trainers.conftest import Context
from tests.trainers.test_job import picture

torch.set_num_threads(1)
registry = Registry()
load_all(registry)
ctx = Context(Workspace(Path(sys.argv[1])), registry, "fresh")
np.savez(sys.argv[2], *[picture(ctx, name, cfg=float(cfg)) for name, cfg in zip(sys.argv[3::2], sys.argv[4::2])])
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_three_users_of_one_base_do_not_notice_each_other(workspace, registry, tmp_path, precision):
    """Generate with LoRA A, train, generate with LoRA B between two steps while samples are made, train on."""
    for name, seed in (("a", 1), ("b", 2)):
        job.run(Context(workspace, registry, name), tiny_settings(workspace, name=name, seed=seed, steps=2, conv=True))
    settings = tiny_settings(workspace, mixed_precision=precision, **(FULL | {"gradient_accumulation_steps": 1}))
    alone = Context(workspace, registry, "alone")
    job.run(alone, settings)

    busy = Context(workspace, registry, "busy")
    pictures = [picture(busy, "a.safetensors")]

    def interactive(_: Context) -> None:
        if 1 <= len(pictures) <= 3:
            torch.manual_seed(len(pictures))
            pictures.append(picture(busy, "b.safetensors", cfg=2.0 + len(pictures)))

    busy.between = interactive
    samples = {"sample_every": 2, "sample_prompts": ("zz, a cat", "a dog"), "sample_steps": 2}
    job.run(busy, settings.model_copy(update=samples))
    pictures.append(picture(busy, "a.safetensors"))

    assert len(pictures) == 5 and busy.previews > 0
    assert equal(state_of(alone), state_of(busy, "zz-2"))
    assert equal(lora(alone), lora(busy, "zz-2"))
    jobs = ["a.safetensors", "7", *(x for i in (1, 2, 3) for x in ("b.safetensors", str(2 + i)))]
    fresh = run_elsewhere(FRESH, str(workspace.root), str(tmp_path / "fresh.npz"), *jobs)
    assert fresh.returncode == 0, fresh.stderr
    expected = np.load(tmp_path / "fresh.npz")
    for i in range(4):
        assert np.array_equal(pictures[i], expected[f"arr_{i}"])
    assert np.array_equal(pictures[4], pictures[0])
    assert not np.array_equal(pictures[0], picture(busy, ""))


def test_a_base_that_was_dropped_between_two_steps_changes_nothing(workspace, registry):
    job.run(Context(workspace, registry, "one"), tiny_settings(workspace, steps=3))
    other = Context(workspace, registry, "two")
    other.between = lambda ctx: ctx.models.trim()
    job.run(other, tiny_settings(workspace, steps=3))
    assert equal(state_of(other), state_of(other, "zz-2"))


def test_nothing_is_leased_or_left_behind_when_a_run_ends_or_fails(ctx):
    job.run(ctx, tiny_settings(ctx.workspace, steps=1))
    assert all(model["leases"] == 0 for model in ctx.models.snapshot()["models"])
    ctx.job_id, ctx.between = "other", stop_at(1)
    with pytest.raises(RuntimeError):
        job.run(ctx, tiny_settings(ctx.workspace, steps=3))
    assert all(model["leases"] == 0 for model in ctx.models.snapshot()["models"])
    assert ctx.models.ledger()["training"] == 0
    from accelerate.state import AcceleratorState

    assert not AcceleratorState._shared_state


def test_the_last_sample_is_what_generate_gives_with_the_saved_lora(ctx):
    settings = tiny_settings(
        ctx.workspace, train_text_encoder=True, save_dtype="fp32", steps=3, sample_every=3, learning_rate=5e-2,
        sample_prompts=("zz, red", "a dog"), sample_steps=3, sample_cfg=4.0, sample_sampler="euler", sample_seed=5,
        sample_scheduler="normal",
    )  # fmt: skip
    job.run(ctx, settings)
    run = Run(ctx.workspace.runs / "zz")
    assert [(s.step, s.index) for s in run.samples()] == [(0, 0), (0, 1), (3, 0), (3, 1)]
    assert json.loads((run.samples_folder / "prompts.json").read_text()) == ["zz, red", "a dog"]
    graph = json.loads(Image.open(run.sample_path(3, 1)).text["prompt"])  # type: ignore[attr-defined]
    result = generate(Context(ctx.workspace, ctx.kept[next(iter(ctx.kept))]), GenerateSettings(prompt=graph))
    (made,) = result["outputs"]["7"]["images"]
    saved = np.asarray(Image.open(ctx.workspace.output / made["filename"]))
    assert np.array_equal(saved, np.asarray(Image.open(run.sample_path(3, 1))))
    assert not np.array_equal(saved, np.asarray(Image.open(run.sample_path(0, 1))))


def test_nobody_is_let_in_while_the_lora_under_training_acts_on_the_shared_base(ctx):
    settings = tiny_settings(
        ctx.workspace, steps=1, sample_every=1, sample_prompts=("a", "b"), sample_steps=3, train_text_encoder=True
    )
    components = load_base(ctx, settings)
    seen = 0

    def look(ctx: Context) -> None:
        nonlocal seen
        with ctx.models.lease(components.model.ref, *components.clip.refs) as leased:
            assert not any(m._forward_hooks for module in leased.values() for m in module.modules())
        seen += 1

    ctx.between = look
    job.run(ctx, settings)
    assert seen == 5, "before each of four pictures and before the step"


def test_a_cancelled_sample_stops_at_once(ctx, monkeypatch):
    settings = tiny_settings(ctx.workspace, sample_every=1, sample_prompts=("a",), sample_steps=200)
    progress = ctx.progress

    def cancel(step: int, total: int, text: str = "", *, phase: str = "", **metrics: float) -> None:
        progress(step, total, text, phase=phase, **metrics)
        ctx.cancelled = phase == "sample" and "KSampler 3/200" in text

    monkeypatch.setattr(ctx, "progress", cancel)
    with pytest.raises(Cancelled):
        job.run(ctx, settings)
    assert "KSampler 3/200" in ctx.told[-1][2]


def test_a_sample_interrupted_by_a_pause_is_made_when_the_run_goes_on(workspace, registry):
    settings = tiny_settings(workspace, steps=2, sample_every=2, sample_prompts=("a cat",), sample_steps=2)
    first = Context(workspace, registry)

    def unwind(ctx: Context) -> None:
        if ctx.told[-1][3] == "sample" or ctx.told[-1][0] == 2:
            raise Cancelled

    first.between = unwind
    with pytest.raises(Cancelled):
        job.run(first, settings)
    job.run(Context(workspace, registry), settings)
    assert [s.step for s in Run(workspace.runs / "zz").samples()] == [0, 2]


def test_a_run_and_a_lora_are_never_written_over(ctx):
    (ctx.workspace.models / "loras" / "zz.safetensors").write_bytes(b"somebody's")
    assert job.run(ctx, tiny_settings(ctx.workspace, steps=1))["lora"] == "zz-2.safetensors"
    assert run_of(ctx.workspace, tiny_settings(ctx.workspace), ctx.job_id).name == "zz-2"
    assert run_of(ctx.workspace, tiny_settings(ctx.workspace), "another").name == "zz-3"


def test_what_is_edited_during_a_run_belongs_to_the_next(workspace, registry):
    whole = Context(workspace, registry, "whole")
    job.run(whole, tiny_settings(workspace, state_every=1, steps=3))
    broken = Context(workspace, registry, "broken")
    broken.between = stop_at(1)
    with pytest.raises(RuntimeError):
        job.run(broken, tiny_settings(workspace, state_every=1, steps=3))
    (workspace.datasets / "mine" / "0.txt").write_text("edited")
    broken.between = None
    job.run(broken, tiny_settings(workspace, state_every=1, steps=3))
    assert equal(lora(whole), lora(broken, "zz-2"))


def test_pictures_are_encoded_once_for_all_runs_of_one_vae(workspace, registry, monkeypatch):
    encoded: list[str] = []
    encode = Latents._encode

    def counting(self: Latents, module: Any, item: Any, look: Any) -> torch.Tensor:
        encoded.append(item.hash)
        return encode(self, module, item, look)

    monkeypatch.setattr(Latents, "_encode", counting)
    first = Context(workspace, registry, "1")
    job.run(first, tiny_settings(workspace, steps=1))
    assert len(encoded) == 5
    job.run(Context(workspace, registry, "2"), tiny_settings(workspace, steps=1))
    assert len(encoded) == 5
    for entry in (workspace.cache / "latents").rglob("*.safetensors"):
        entry.write_bytes(b"damaged")
    job.run(Context(workspace, registry, "3"), tiny_settings(workspace, steps=5))
    assert len(encoded) == 10, "damaged entries are made again"
    make_tiny_sd1(workspace.models / "checkpoints" / "other.safetensors", seed=1)
    job.run(Context(workspace, registry, "4"), tiny_settings(workspace, steps=1, model="other.safetensors"))
    assert len(encoded) == 15, "another VAE has latents of its own"
    job.run(Context(workspace, registry, "5"), tiny_settings(workspace, steps=1, resolution=48))
    assert len(encoded) == 20, "and so has another size"


def test_caches_change_nothing_that_is_learned(workspace, registry):
    for name, on in (("with", True), ("without", False)):
        settings = tiny_settings(
            workspace, name=name, cache_latents=on, cache_text="on" if on else "off", steps=3, batch_size=1
        )
        job.run(Context(workspace, registry, name), settings)
    ctx = Context(workspace, registry)
    for key, weight in lora(ctx, "with").items():
        assert torch.allclose(weight.float(), lora(ctx, "without")[key].float(), atol=1e-3), key


def test_the_loss_falls_when_one_picture_is_shown_again_and_again(ctx):
    for picture_file in list((ctx.workspace.datasets / "mine").iterdir()):
        if picture_file.stem != "0":
            picture_file.unlink()
    settings = tiny_settings(ctx.workspace, steps=60, batch_size=4, conv=True, learning_rate=2e-2, beta2=0.99)
    job.run(ctx, settings)
    losses = [row["loss"] for row in Run(ctx.workspace.runs / "zz").metrics()]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_a_full_disk_leaves_no_lora_and_a_state_to_go_on_from(workspace, registry, monkeypatch):
    ctx = Context(workspace, registry)
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).parent.name == "loras":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DiskFull):
        job.run(ctx, tiny_settings(workspace, steps=2))
    assert list((workspace.models / "loras").iterdir()) == []
    monkeypatch.undo()
    again = Context(workspace, registry)
    assert job.run(again, tiny_settings(workspace, steps=2))["lora"] == "zz.safetensors"
    assert not [told for told in again.told if told[3] == "train"], "nothing is trained twice"


def test_a_bucket_step_that_the_vae_can_not_divide_is_refused(ctx):
    make_tiny_sd1(ctx.workspace.models / "checkpoints" / "deep.safetensors", vae_levels=5)
    with pytest.raises(BucketStep, match="multiple of 16"):
        job.run(ctx, tiny_settings(ctx.workspace, model="deep.safetensors", bucket_step=8))


def test_an_optimiser_that_is_not_there_is_refused_and_nothing_stays_leased(ctx):
    with pytest.raises(NoEightBit, match="it needs a CUDA device, and this run is on cpu"):
        job.run(ctx, tiny_settings(ctx.workspace, optimizer="adamw8bit"))
    assert all(model["leases"] == 0 for model in ctx.models.snapshot()["models"])


def test_a_loss_that_is_no_number_ends_the_run_in_clear_words(ctx, monkeypatch):
    monkeypatch.setattr("trainers.loop.objective.loss_weight", lambda *_: torch.full((1,), float("nan")))
    with pytest.raises(LossNotFinite, match="nan at step 1"):
        job.run(ctx, tiny_settings(ctx.workspace))


def test_a_dataset_without_pictures_leaves_no_run_behind(ctx):
    (ctx.workspace.root / "empty").mkdir()
    with pytest.raises(NoPictures):
        job.run(ctx, tiny_settings(ctx.workspace, dataset=str(ctx.workspace.root / "empty")))
    assert list(ctx.workspace.runs.iterdir()) == []


def test_the_file_says_what_it_is_in_the_words_of_the_field(ctx):
    job.run(ctx, tiny_settings(ctx.workspace, conv=True, train_text_encoder=True, steps=1, alpha=2.0))
    with safe_open(ctx.workspace.models / "loras" / "zz.safetensors", "pt") as file:
        words, names = file.metadata(), set(file.keys())
    assert words["ss_base_model_version"] == "sd_v1" and words["ss_network_module"] == "networks.lora"
    assert words["ss_network_dim"] == "4" and words["ss_network_alpha"] == "2.0"
    assert json.loads(words["ss_tag_frequency"])["zz"]["zz"] == 5
    assert words["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert words["modelspec.trigger_phrase"] == "zz" and words["modelspec.prediction_type"] == "epsilon"
    assert words["modelspec.hash_sha256"] == f"0x{words['sshs_model_hash']}" and len(words["sshs_model_hash"]) == 64
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight" in names
    assert "lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight" in names
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha" in names
