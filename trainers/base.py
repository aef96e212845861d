"""The checkpoint that a training stands on."""

from __future__ import annotations

from engine.errors import SettingsError
from engine.families.base import Components
from engine.families.discover import family_of
from engine.jobs.types import JobContext
from engine.weights.load import open_header
from trainers.settings import TrainSettings


class BucketStep(SettingsError):
    en = "bucket_step is {step}, but sides must be multiples of {factor} for {model}. Choose a multiple of {factor}."
    zh = "bucket_step 为 {step}，但 {model} 要求边长为 {factor} 的倍数。请选择 {factor} 的倍数。"


def load_base(ctx: JobContext, settings: TrainSettings) -> Components:
    """The checkpoint's parts; only its header is read now."""
    path = ctx.workspace.model_path("checkpoints", settings.model)
    allow_pickle = ctx.workspace.allow_pickle
    family = family_of(open_header(path, allow_pickle=allow_pickle))
    embeddings = ctx.workspace.model_roots("embeddings")
    components = family.load_checkpoint(ctx.models, path, embeddings, allow_pickle=allow_pickle)
    if settings.bucket_step % components.vae.factor:
        raise BucketStep(step=settings.bucket_step, factor=components.vae.factor, model=settings.model)
    return components
