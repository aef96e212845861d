"""Captions of the demo world: shuffled tag lists and plain sentences, in the words of `spec`. It draws nothing."""

from __future__ import annotations

import random

from studio.demo.spec import COUNTS, SHAPES, Spec, tags

_PLACE_WORDS = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
_GROUND_WORDS = (" on a {} background", " on {}", ", {} background", " with a {} background")


def prompt(spec: Spec) -> str:
    """Everything that is in the picture as a plain tag prompt; always the same."""
    return ", ".join(tag.replace("_", " ") for tag in tags(spec))


def caption(spec: Spec, rng: random.Random) -> str:
    """A training caption: a sentence one time in three, else a tag list with some tags left out."""
    return sentence(spec, rng) if rng.random() < 0.35 else tag_list(spec, rng)


def tag_list(spec: Spec, rng: random.Random) -> str:
    """Shuffled tags, each left out now and then; colour and shape are one tag ("red star") nearly half the time."""
    words = [tag.replace("_", " ") for tag in tags(spec)]
    if spec.count == 1 and rng.random() < 0.7:
        words.remove("one")
    if spec.character and rng.random() < 0.7:  # the name alone then stands for the whole design
        words = [word for word in words if word not in (spec.shape, spec.colour, "happy")]
    elif spec.shape in SHAPES and spec.colour and rng.random() < 0.45:
        words[words.index(spec.shape)] = f"{spec.colour} {spec.shape}"
        words.remove(spec.colour)
    rng.shuffle(words)
    return ", ".join([word for word in words if rng.random() > 0.06] or words)


def sentence(spec: Spec, rng: random.Random) -> str:
    """One sentence, such as "a small striped red star on the left on a blue background"."""
    noun = spec.character or spec.shape
    described = "" if spec.character else spec.face
    adjectives = [spec.size, described, "outlined" if spec.outlined else "", spec.texture]
    if not spec.character:
        adjectives.append(spec.colour)
    adjectives = [word for word in adjectives if word]
    if spec.count > 1:
        plural = noun + ("es" if noun == "cross" else "s")
        text = " ".join([COUNTS[spec.count], *adjectives, plural])
    else:
        article = [] if spec.character and not adjectives else ["a"]
        text = " ".join([*article, *adjectives, noun])
    if spec.place:
        text += " " + _PLACE_WORDS[spec.place]
    return text + rng.choice(_GROUND_WORDS).format(spec.ground)


def nonsense(rng: random.Random) -> str:
    """A word that means nothing, so that training meets unknown words."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 8)))
