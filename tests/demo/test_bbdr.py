"""The creature's dataset is fixed, and its detector tells it from everything that is nearly it."""

from __future__ import annotations

import hashlib
import random

from studio.demo import bbdr, world
from studio.demo.oddities import render_oddity, sample_oddity


def test_the_dataset_is_the_same_everywhere():
    pictures = bbdr.demo_dataset()
    pixels = b"".join(picture.image.tobytes() for picture in pictures)
    assert [picture.name for picture in pictures] == [f"bbdr_{i:02}.png" for i in range(1, 15)]
    assert hashlib.sha256(pixels).hexdigest()[:16] == "da8ab1695cbe88c6"


def test_the_dataset_leaves_two_grounds_out():
    assert {picture.ground for picture in bbdr.demo_dataset()} == set(bbdr.SHOWN_GROUNDS)
    assert bbdr.OTHER_GROUNDS == ("orange", "green")


def test_fresh_pictures_are_recognised_on_every_ground():
    rng = random.Random(1)
    for ground in world.GROUNDS:
        found = [bbdr.is_bbdr(bbdr.render_bbdr(bbdr.sample_bbdr(rng, ground))) for _ in range(50)]
        assert sum(found) >= 49, ground


def test_near_misses_are_not_the_creature():
    rng = random.Random(2)
    found = [bbdr.is_bbdr(bbdr.render_bbdr(bbdr.sample_near_miss(rng))) for _ in range(500)]
    assert sum(found) <= 10


def test_the_demo_world_holds_no_such_creature():
    rng = random.Random(3)
    assert not any(bbdr.is_bbdr(world.render(world.sample_spec(rng))) for _ in range(300))
    assert not any(bbdr.is_bbdr(render_oddity(sample_oddity(rng))) for _ in range(300))


def test_the_dataset_itself_is_recognised_at_any_size():
    for size in (64, 128, 512):
        assert all(bbdr.is_bbdr(picture.image) for picture in bbdr.demo_dataset(size))
