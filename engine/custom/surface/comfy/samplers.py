"""`comfy.samplers`: the names to choose from. Sampling itself goes through the nodes."""

from __future__ import annotations

from engine.sampling.names import SAMPLERS, SCHEDULERS

SAMPLER_NAMES = list(SAMPLERS)
SCHEDULER_NAMES = list(SCHEDULERS)
samplers = SAMPLER_NAMES
schedulers = SCHEDULER_NAMES


class KSampler:
    SAMPLERS = SAMPLER_NAMES
    SCHEDULERS = SCHEDULER_NAMES
