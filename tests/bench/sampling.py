"""What sampling costs beside the model: one UNet step and a whole loop over the bare diffusers calls in the same run.

    python -m tests.bench.sampling [--small] [--steps N]

Both sides run alternately on one thread in float32: SD 1.5's UNet with random weights at 64 x 64 latents (--small: a
UNet of seconds, to try the script).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from engine.families.base import LatentFormat, Model
from engine.families.discover import family
from engine.models.device import CpuDevice, Device
from engine.models.loaded import TorchModel
from engine.models.manager import ModelManager, ModelSpec
from engine.sampling.guiders import Cfg, Guider
from engine.sampling.model import guided, schedule_of
from engine.sampling.noise import Noise
from engine.sampling.run import sample
from engine.sampling.samplers.table import SAMPLERS
from engine.sampling.schedulers import sigmas_for

SD15: dict[str, Any] = {
    **{"sample_size": 64, "in_channels": 4, "cross_attention_dim": 768, "attention_head_dim": 8},
    "block_out_channels": (320, 640, 1280, 1280),
}
SMALL: dict[str, Any] = {**SD15, "block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = SMALL if arguments.small else SD15
    manager = ModelManager(CpuDevice())

    def load(device: Device) -> TorchModel:
        torch.manual_seed(0)
        return TorchModel(UNet2DConditionModel(**config))

    ref = manager.add(ModelSpec("bench", "denoiser", "UNet", 0, load))
    model = Model(family("sd1"), ref, config, "eps", LatentFormat(), {})
    prompt = [[torch.randn(1, 77, config["cross_attention_dim"]), {}]]
    guider = Guider(model, (prompt,), Cfg(1.0))
    latent = torch.randn(1, 4, 64, 64)
    sigmas = sigmas_for(schedule_of(model), "karras", arguments.steps)

    with manager.lease(ref) as leased, torch.no_grad():
        unet = leased[ref]

        def bare() -> Any:
            return unet(latent, torch.tensor([500.0]), encoder_hidden_states=prompt[0][0], return_dict=False)

        with guided(manager, guider, latent, sigmas, lambda: None) as (denoiser, _):
            ours, alone = _alternately(lambda: denoiser(latent, 2.0), bare, 3)
        print(f"one step: {ours:.3f} s, bare UNet {alone:.3f} s, ratio {ours / alone:.3f} (at most 1.03)")

        def loop() -> Any:
            return sample(manager, guider, sampler=SAMPLERS["euler"], sigmas=sigmas, noise=Noise(1), latent=latent)

        ours, alone = _alternately(loop, lambda: [bare() for _ in range(arguments.steps)], 3)
        print(
            f"{arguments.steps} steps: {ours:.3f} s, bare calls {alone:.3f} s, "
            f"overhead {100 * (ours / alone - 1):.1f} % (at most 2)"
        )


def _alternately(one: Callable[[], Any], other: Callable[[], Any], times: int) -> tuple[float, float]:
    """The median seconds of each, after a first call that does not count."""
    one(), other()
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(times):
        for call, seconds in zip((one, other), taken, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return median(taken[0]), median(taken[1])


if __name__ == "__main__":
    main()
