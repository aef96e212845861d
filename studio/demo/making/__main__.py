"""Makes every bundled model in one pass; `--quick` makes useless tiny ones, to see that the way is open."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from studio.demo.making import autoencoder, denoiser, packing, tagger, text
from studio.demo.making.vocabulary import learn_vocabulary


def main() -> None:
    """Autoencoder, text encoder, UNet, decoder, tagger, in this order."""
    parser = argparse.ArgumentParser(prog="python -m studio.demo.making", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for easel-demo.safetensors and tagger/")
    parser.add_argument("--quick", action="store_true", help="a few steps of each, in about a minute")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.time()
    make(args.out, args.quick)
    print(f"all made in {time.time() - start:.0f} s")


def make(out: Path, quick: bool) -> None:
    """The whole pass. The UNet's state is kept in `out`/unet.pt while it trains, and a rerun goes on from it."""
    vae = autoencoder.make(quick)
    vocabulary = learn_vocabulary(300 if quick else 6000)
    tokenizer = vocabulary.tokenizer()
    torch.manual_seed(3)
    encoder, heads = text.new_text_encoder(tokenizer), text.AttributeHeads()
    text.pretrain(encoder, heads, tokenizer, steps=20 if quick else 1500)
    unet = denoiser.make(vae, encoder, heads, tokenizer, out / "unet.pt", quick)
    autoencoder.tune(vae, quick)
    packing.save(packing.Model(unet, vae, encoder, vocabulary), out / "easel-demo.safetensors")
    tagger.make(vae, out / "tagger", quick)
    (out / "unet.pt").unlink()


if __name__ == "__main__":
    main()
