"""The demo world is the same everywhere, says what it draws, and keeps its held-out combinations out of training."""

from __future__ import annotations

import hashlib
import random

import pytest

from studio.demo import world
from studio.demo.making.samples import sample


def digest(count: int, size: int) -> str:
    rng = random.Random(42)
    pixels = b"".join(world.render(world.sample_spec(rng), size).tobytes() for _ in range(count))
    return hashlib.sha256(pixels).hexdigest()[:16]


def test_the_same_seed_draws_the_same_pixels():
    assert digest(40, 128) == "3866650d749eb5ba"
    assert digest(40, 64) == "f349e9ef9c2860ab"


def test_drawing_needs_neither_torch_nor_numpy():
    import subprocess
    import sys

    code = "import sys, studio.demo.world, studio.demo.bbdr; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tags_name_what_is_drawn():
    spec = world.Spec("star", "red", "blue", texture="striped", outlined=True, size="large")
    assert world.tags(spec) == ["one", "star", "red", "blue_background", "striped", "outlined", "large"]
    assert world.prompt(spec) == "one, star, red, blue background, striped, outlined, large"


def test_every_tag_is_in_the_vocabulary_of_tags():
    rng = random.Random(1)
    known = {*world.GENERAL_TAGS, *world.CHARACTERS}
    assert all(set(world.tags(world.sample_spec(rng))) <= known for _ in range(500))


def test_a_sentence_reads_like_one():
    spec = world.Spec("cross", "green", "white", count=2)
    assert world.sentence(spec, random.Random(0)).startswith("two green crosses")
    assert world.sentence(world.Spec("moon", "pink", "black", place="top"), random.Random(0)).startswith(
        "a pink moon at the top"
    )


def test_captions_keep_most_tags():
    rng = random.Random(2)
    spec = world.Spec("heart", "yellow", "purple", texture="dotted")
    captions = [world.caption(spec, rng) for _ in range(300)]
    assert sum("heart" in text for text in captions) > 270
    assert sum("purple" in text for text in captions) > 270


def test_one_combination_in_eight_is_held_out():
    triples = [
        world.Spec(shape, colour, ground)
        for shape in world.SHAPES
        for colour in world.COLOURS
        for ground in world.GROUNDS
        if world.contrasts(colour, ground)
    ]
    held_out = [spec for spec in triples if world.is_held_out(spec)]
    assert (len(triples), len(held_out)) == (480, 60)
    assert {spec.shape for spec in held_out} == set(world.SHAPES)
    assert {spec.colour for spec in held_out} == set(world.COLOURS)
    assert {spec.ground for spec in held_out} == set(world.GROUNDS)


def test_training_never_draws_a_held_out_combination():
    rng = random.Random(3)
    specs = [one.subject for one in (sample(rng) for _ in range(3000)) if isinstance(one.subject, world.Spec)]
    assert len(specs) > 2000
    assert not any(world.is_held_out(spec) for spec in specs)


def test_held_out_pictures_can_be_asked_for():
    rng = random.Random(4)
    assert all(world.is_held_out(world.sample_held_out(rng)) for _ in range(50))


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="hexagon"):
        world.render(world.Spec(shape="hexagon"))
