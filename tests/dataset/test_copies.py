"""Which pictures count as near copies, by their hashes alone."""

from __future__ import annotations

import time

import numpy as np
import pytest

from engine.dataset.copies import groups


def all_with_all(hashes: np.ndarray, mirrored: np.ndarray) -> list[int]:
    """The same by comparing every pair and following copies of copies."""
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= 6
    near |= np.bitwise_count(hashes[:, None] ^ mirrored) <= 6
    near |= near.T
    number = list(range(len(hashes)))
    for _ in hashes:
        number = [min(number[j] for j in np.flatnonzero(row)) for row in near]
    return [n if number.count(n) > 1 else -1 for n in number]


def flipped(value: np.uint64, bits: np.ndarray) -> np.uint64:
    for bit in bits:
        value = value ^ (np.uint64(1) << np.uint64(bit))
    return value


def test_groups_are_those_of_comparing_all_with_all() -> None:
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**63, 120, np.uint64)
    mirrored = rng.integers(0, 2**63, 120, np.uint64)
    for i in range(40):  # copies by 0 to 9 bits, of hashes and of mirrors, copies of copies among them
        of = (hashes, mirrored)[i % 2][i]
        hashes[80 + i] = flipped(of, rng.choice(63, i % 10, replace=False))
    hashes[110] = flipped(hashes[100], np.arange(5))
    assert groups(hashes, mirrored).tolist() == all_with_all(hashes, mirrored)


@pytest.mark.parametrize("bits", [0, 3])
def test_alternates_are_no_copies_of_each_other(bits: int) -> None:
    one = np.uint64(0x0F0F0F0F0F0F0F0F)
    hashes = np.array([one, flipped(one, np.arange(bits)), one], np.uint64)
    mirrored = np.array([1, 2, 3], np.uint64)
    assert groups(hashes, mirrored).tolist() == [0, 0, 0]
    assert groups(hashes, mirrored, {(0, 1)}).tolist() == [0, 0, 0]  # through the third
    assert groups(hashes, mirrored, {(0, 1), (1, 2)}).tolist() == [0, -1, 0]
    assert groups(hashes, mirrored, {(0, 1), (1, 2), (0, 2)}).tolist() == [-1, -1, -1]


def test_no_pictures_make_no_groups() -> None:
    assert groups(np.zeros(0, np.uint64), np.zeros(0, np.uint64)).tolist() == []


def test_thousands_of_one_colour_are_one_group_at_once() -> None:
    began = time.process_time()
    found = groups(np.zeros(20_000, np.uint64), np.zeros(20_000, np.uint64))
    assert (found == 0).all()
    assert time.process_time() - began < 2


def test_thousands_that_nearly_are_one_picture_are_told_in_time() -> None:
    rng = np.random.default_rng(5)
    hashes = np.array([flipped(np.uint64(1), rng.choice(63, 3, replace=False)) for _ in range(4_000)], np.uint64)
    began = time.process_time()
    found = groups(hashes, np.full(len(hashes), 2**62, np.uint64))
    assert (found == 0).all()
    assert time.process_time() - began < 5
