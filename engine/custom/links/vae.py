"""A VAE link as packs see it: pictures (batch, height, width, 3) in 0..1 and latents in the VAE's scale, on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.custom.links import missing, node, public
from engine.families.base import Vae

_TIMES = {"temporal_size": 64, "temporal_overlap": 8}  # of VAEs of videos


@dataclass(frozen=True)
class PackVae(Vae):
    def decode(self, samples_in: Tensor, vae_options: Any = None) -> Tensor:
        return node("VAEDecode")(samples={"samples": samples_in}, vae=self)[0]

    def decode_tiled(self, samples: Tensor, tile_x: int = 64, tile_y: int = 64, overlap: int = 16, **_: Any) -> Tensor:
        """tile_x and overlap in latent cells; tiles are square here."""
        sizes = {"tile_size": tile_x * self.factor, "overlap": overlap * self.factor, **_TIMES}
        return node("VAEDecodeTiled")(samples={"samples": samples}, vae=self, **sizes)[0]

    def encode(self, pixel_samples: Tensor) -> Tensor:
        return node("VAEEncode")(pixels=pixel_samples, vae=self)[0]["samples"]

    def encode_tiled(
        self, pixel_samples: Tensor, tile_x: int = 512, tile_y: int = 512, overlap: int = 64, **_: Any
    ) -> Tensor:
        """tile_x and overlap in pixels; tiles are square here."""
        sizes = {"tile_size": tile_x, "overlap": overlap, **_TIMES}
        return node("VAEEncodeTiled")(pixels=pixel_samples, vae=self, **sizes)[0]["samples"]

    @property
    def latent_channels(self) -> int:
        return self.latent.channels

    @property
    def output_channels(self) -> int:
        return 3

    @property
    def latent_dim(self) -> int:
        return 2

    @property
    def downscale_ratio(self) -> int:
        return self.factor

    upscale_ratio = downscale_ratio

    def spacial_compression_decode(self) -> int:
        return self.factor

    spacial_compression_encode = spacial_compression_decode

    def temporal_compression_decode(self) -> None:
        return None

    def throw_exception_if_invalid(self) -> None:
        pass  # a VAE that could not be read has been refused by its loader

    def __getattr__(self, name: str) -> Any:
        raise missing("A VAE link", name, public(PackVae))
