"""Near copies: which pictures show the same by their perceptual hashes, mirrored ones included; and what was decided.

Of two near copies one is better, and the others are taken out of the dataset; or they are alternates: both stay, and
they no longer count as copies of each other. Hashes have 63 bits, and near means 6 bits or fewer, so that of seven
bands of nine bits at least one is equal: only pictures that share a band are compared. That keeps 100,000 pictures
within seconds, where comparing all with all would take minutes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

import numpy as np

from engine.dataset.records import Event
from engine.dataset.store import Store

NEAR = 6  # bits
_BITS = 63
_BAND = _BITS // (NEAR + 1)
_AT_ONCE = 1 << 20  # comparisons

Pair = tuple[int, int]


def groups(hashes: np.ndarray, mirrored: np.ndarray, apart: Collection[Pair] = ()) -> np.ndarray:
    """Numbers of groups of near copies for hashes (n,) uint64; -1 where a picture has none.

    Copies of copies are one group; its number is the place of its first picture. `apart`: places of pictures that are
    no copies of each other, whatever their hashes are.
    """
    places = np.arange(len(hashes))
    alone = np.zeros(len(hashes), np.uint64)
    decided = np.array(sorted({place for pair in apart for place in pair}), np.int64)
    alone[decided] = decided + 1  # pictures with equal hashes are one node, but for those that were decided on
    nodes, node = np.unique(np.stack([hashes, mirrored, alone], axis=1), axis=0, return_inverse=True)
    node = node.ravel()
    split = {tuple(sorted((int(node[a]), int(node[b])))) for a, b in apart}
    codes = np.array([a * len(nodes) + b for a, b in split], np.int64)
    own, label = nodes[:, 0], np.arange(len(nodes))
    for rows, beside, bits in _in_bands(own, nodes[:, 1]):
        # thousands that are nearly one picture make millions of pairs that say nothing new
        a, b = np.nonzero((np.bitwise_count(own[rows, None] ^ bits) <= NEAR) & (label[rows, None] != label[beside]))
        one, other = np.minimum(rows[a], beside[b]), np.maximum(rows[a], beside[b])
        kept = ~np.isin(one * len(nodes) + other, codes)
        label = _connected(label, one[kept], other[kept])
    found = label[node]
    sizes = np.bincount(found, minlength=len(nodes))
    first = np.full(len(nodes), len(hashes))
    np.minimum.at(first, found, places)
    return np.where(sizes[found] > 1, first[found], -1)


def alternates(store: Store) -> set[Pair]:
    """Pairs of picture ids that were said to be alternates, the lower one first."""
    return {(min(one, other), max(one, other)) for one, others in store.marks("alternate").items() for other in others}


def set_alternates(store: Store, pictures: Iterable[int], title: str) -> Event | None:
    """These pictures are alternates of each other: all stay, and none counts as a copy of another. As one event."""
    wanted, now = set(pictures), store.marks("alternate")
    return store.mark("alternate", {id: sorted({*now.get(id, ()), *wanted} - {id}) for id in wanted}, title)


def _in_bands(hashes: np.ndarray, mirrored: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(places, places beside them, what to compare with): all with whose hash, or mirror's, they share a band."""
    n = len(hashes)
    targets = np.concatenate([hashes, mirrored])
    for band in range(NEAR + 1):
        shift, mask = np.uint64(band * _BAND), np.uint64((1 << _BAND) - 1)
        keys = ((targets >> shift) & mask).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        for start, end in pairwise(np.searchsorted(keys[order], np.arange((1 << _BAND) + 1))):
            bucket = order[start:end]
            mine, size = bucket[bucket < n], max(1, _AT_ONCE // max(1, len(bucket)))
            for first in range(0, len(mine), size):
                yield mine[first : first + size], bucket % n, targets[bucket]


def _connected(label: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Labels where pairs of places have got one label, the lowest of all that are connected."""
    while len(one):
        low, high = np.minimum(label[one], label[other]), np.maximum(label[one], label[other])
        after = label.copy()
        np.minimum.at(after, high, low)
        while (after != after[after]).any():
            after = after[after]
        label, differ = after, after[one] != after[other]
        one, other = one[differ], other[differ]
    return label
