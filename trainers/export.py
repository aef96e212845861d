"""A trained LoRA as a file that everybody reads: kohya's names, ss_ and modelspec metadata, read back to prove it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from engine.errors import StorageError
from engine.families.base import Components
from engine.weights.lora import LoraEntry
from engine.workspace import replacing
from trainers.adapters import TrainedPart
from trainers.data import Item, split_caption
from trainers.settings import TrainSettings

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
# Half a unit in the last place of either factor, a few times over for sums.
TOLERANCE = {torch.float16: 2**-9, torch.bfloat16: 2**-6, torch.float32: 2**-20}


class ExportDiffers(StorageError):
    en = (
        "{path} was written, but read back '{module}' is {difference:.3g} away from what was trained. The file was "
        "removed. If it holds very large numbers, set save_dtype to fp32 or bf16."
    )
    zh = (
        "{path} 已写入，但读回后“{module}”与训练结果相差 {difference:.3g}。该文件已删除。"
        "如果其中数值过大，请将 save_dtype 设为 fp32 或 bf16。"
    )


def export_lora(
    path: Path,
    components: Components,
    parts: Sequence[TrainedPart],
    settings: TrainSettings,
    metadata: Mapping[str, str],
) -> None:
    """Write the adapters, read them back and compare what they add to each module.

    Raises DiskFull (nothing is left), ExportDiffers (the file is removed).
    """
    tensors = lora_tensors(components, parts, settings)
    digest = hashlib.sha256(_body(save(tensors))).hexdigest()
    words = {**metadata, "modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    with replacing(path) as file:
        file.write(save(tensors, words))
    try:
        compare(path, components, parts, settings)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def lora_tensors(
    components: Components, parts: Sequence[TrainedPart], settings: TrainSettings
) -> dict[str, torch.Tensor]:
    family, dtype, tensors = components.model.family, DTYPES[settings.save_dtype], {}
    for part in parts:
        for name, down, up in part.pairs():
            key = family.lora_key(components.model, part.part, name)
            for which, weight in (("down", down), ("up", up)):
                tensors[f"{key}.lora_{which}.weight"] = weight.detach().to("cpu", dtype).contiguous()
            tensors[f"{key}.alpha"] = torch.tensor(settings.scale_alpha, dtype=dtype)
    return tensors


def compare(path: Path, components: Components, parts: Sequence[TrainedPart], settings: TrainSettings) -> None:
    """Raises ExportDiffers when the file does not add to each module what the adapters add."""
    found = components.model.family.read_lora(path, components.model, components.clip)
    tolerance = TOLERANCE[DTYPES[settings.save_dtype]]
    scale = settings.scale_alpha / settings.rank
    for part in parts:
        trained = {name: _delta(down.detach().cpu(), up.detach().cpu(), scale) for name, down, up in part.pairs()}
        largest = max((float(delta.abs().max()) for delta in trained.values()), default=0.0)
        for name, wanted in trained.items():
            entry = found.entries.get(part.part, {}).get(name)
            read = _delta(entry.down, entry.up, entry.scale) if isinstance(entry, LoraEntry) else None
            difference = _distance(read, wanted, largest / 4) if read is not None else float("inf")
            if not difference <= tolerance:
                raise ExportDiffers(path=path, module=name, difference=difference)


def describe_lora(
    components: Components,
    settings: TrainSettings,
    items: Sequence[Item],
    *,
    title: str,
    step: int,
    started: float,
) -> dict[str, str]:
    """kohya's ss_ metadata, which tools of the field read, and the modelspec standard (Stability AI, 1.0.1)."""
    spec = components.model.family.spec
    tags = Counter(tag for item in items for tag in split_caption(item.caption))
    text_lr = settings.text_encoder_lr or settings.learning_rate
    ss: dict[str, Any] = {
        "base_model_version": spec.base_model_version,
        "sd_model_name": settings.model,
        "output_name": title,
        "network_module": "networks.lora",
        "network_dim": settings.rank,
        "network_alpha": settings.scale_alpha,
        "network_args": {"conv_dim": settings.rank, "conv_alpha": settings.scale_alpha} if settings.conv else {},
        "training_started_at": started,
        "steps": step,
        "max_train_steps": settings.steps,
        "num_train_images": len(items),
        "num_epochs": max(1, step * settings.batch_size // max(1, len(items) * settings.repeats)),
        "batch_size_per_device": settings.batch_size,
        "total_batch_size": settings.batch_size * settings.gradient_accumulation_steps,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "learning_rate": settings.learning_rate,
        "unet_lr": settings.learning_rate if settings.linear or settings.conv else None,
        "text_encoder_lr": text_lr if settings.train_text_encoder else None,
        "lr_scheduler": settings.lr_scheduler,
        "lr_warmup_steps": settings.warmup,
        "optimizer": settings.optimizer,
        "max_grad_norm": settings.max_grad_norm,
        "mixed_precision": settings.mixed_precision,
        "seed": settings.seed,
        "resolution": f"({settings.resolution}, {settings.resolution})",
        "enable_bucket": settings.buckets,
        "keep_tokens": settings.keep_tokens,
        "shuffle_caption": settings.shuffle_caption,
        "caption_dropout_rate": settings.caption_dropout,
        "flip_aug": settings.flip,
        "min_snr_gamma": settings.min_snr_gamma or None,
        "noise_offset": settings.noise_offset or None,
        "prior_loss_weight": settings.prior_weight if settings.prior_fraction else None,
        "tag_frequency": {title: dict(tags.most_common(200))},
    }
    modelspec = {
        "sai_model_spec": "1.0.0",
        "architecture": f"{spec.architecture}/lora",
        "implementation": "diffusers",
        "title": title,
        "date": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "resolution": f"{settings.resolution}x{settings.resolution}",
        "prediction_type": "v" if components.model.prediction == "v" else "epsilon",
    }
    if settings.trigger_word:
        modelspec["trigger_phrase"] = settings.trigger_word
    words = {f"ss_{name}": v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for name, v in ss.items()}
    return words | {f"modelspec.{name}": value for name, value in modelspec.items()}


def _delta(down: torch.Tensor, up: torch.Tensor, scale: float) -> torch.Tensor:
    return scale * (up.flatten(1).float() @ down.flatten(1).float())


def _distance(one: torch.Tensor, other: torch.Tensor, least: float) -> float:
    """Largest difference, as a part of the largest number or of `least` if that is more: a module that hardly learned
    may vanish below the smallest number of the file's type, which is no loss beside what others add."""
    size = max(float(other.abs().max()), least)
    difference = float((one - other).abs().max())
    return difference / size if size else difference


def _body(data: bytes) -> bytes:
    """A safetensors file without its header, which is what the hashes are taken of."""
    return data[8 + int.from_bytes(data[:8], "little") :]
