"""Whether an adapter's matrices fit a weight, by shapes alone: a file for another model is told before it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping

from engine.weights.adapter_keys import Kind, Matrix

Shape = tuple[int, ...]


def fits(kind: Kind, shapes: Mapping[Matrix, Shape], weight: Shape) -> bool:
    """`shapes` of the matrices that adapter_keys.py names, complete; `weight` (out, in, ...)."""
    try:
        return all(map(math.prod, shapes.values())) and _FITS[kind](shapes, weight)
    except (IndexError, ValueError):  # fewer axes than the kind has
        return False


def fits_beside(matrix: Matrix, shape: Shape, weight: Shape) -> bool:
    """Of what goes with every kind: whether it has as many numbers as it needs."""
    counts = {"alpha": (1,), "dora": weight[:2], "magnitude": weight[:1], "rescale": weight[:1]}
    return matrix not in counts or math.prod(shape) in counts[matrix]


def in_words(shape: Shape) -> str:
    return " x ".join(str(n) for n in shape)


def _lora(own: Mapping[Matrix, Shape], weight: Shape) -> bool:
    down, up = own["down"], own["up"]
    if "mid" in own:
        mid = own["mid"]
        return (up[0], up[1], down[0], down[1]) == (weight[0], mid[0], mid[1], weight[1]) and mid[2:] == weight[2:]
    same = up[:2] == (weight[0], down[0]) and down[1] == weight[1]
    return same and math.prod(up[2:]) == 1 and math.prod(down[2:]) == math.prod(weight[2:])


def _loha(own: Mapping[Matrix, Shape], weight: Shape) -> bool:
    whole = weight if "hada_t1" in own else (weight[0], math.prod(weight[1:]))
    parts = ((own[f"hada_w{i}_a"], own[f"hada_w{i}_b"], own.get(f"hada_t{i}")) for i in (1, 2))
    return all(_product(*part) == whole for part in parts)


def _lokr(own: Mapping[Matrix, Shape], weight: Shape) -> bool:
    first = own.get("lokr_w1") or _product(own["lokr_w1_a"], own["lokr_w1_b"], None)
    second = own.get("lokr_w2") or _product(own["lokr_w2_a"], own["lokr_w2_b"], own.get("lokr_t2"))
    whole = math.prod(first) * math.prod(second) == math.prod(weight)
    return whole and first[0] * second[0] == weight[0]


def _glora(own: Mapping[Matrix, Shape], weight: Shape) -> bool:
    a1, a2, b1, b2 = (own[name] for name in ("a1", "a2", "b1", "b2"))
    rows, columns = weight[0], math.prod(weight[1:])
    new = (a1[0], a2[1], b1[0], math.prod(b2[1:])) == (weight[1], weight[1], rows, columns)
    return new or (a2[0], a1[1], b2[0], math.prod(b1[1:])) == (columns, columns, rows, columns)


def _oft(own: Mapping[Matrix, Shape], weight: Shape) -> bool:
    """Groups of rows; of BOFT also as many factors as the rows can be halved, by powers of two."""
    *factors, groups, size, other = own["oft_blocks"]
    levels = factors[0] if factors else 1
    return groups * size == weight[0] and size == other and weight[0] % (2 ** (levels - 1) * size) == 0


def _difference(own: Mapping[Matrix, Shape], weight: Shape) -> bool:
    bias = "diff_b" not in own or own["diff_b"] == weight[:1]
    return bias and ("diff" not in own or _as_good_as(own["diff"], weight))


def _replacement(own: Mapping[Matrix, Shape], weight: Shape) -> bool:
    return _as_good_as(own["set_weight"], weight)


def _as_good_as(shape: Shape, weight: Shape) -> bool:
    """The same numbers, or a layer that gets more inputs (a model that is made to see another picture as well)."""
    same = math.prod(shape) == math.prod(weight) and shape[:1] == weight[:1]
    more = len(shape) == len(weight) > 1 and shape[1] > weight[1] and (shape[0], *shape[2:]) == (weight[0], *weight[2:])
    return same or more


def _product(a: Shape, b: Shape, core: Shape | None) -> Shape:
    """(out, in) of a @ b, or (out, in, ...) with a Tucker core; () when they do not go together."""
    if core is not None:
        return (a[1], b[1], *core[2:]) if (a[0], b[0]) == core[:2] else ()
    return (a[0], math.prod(b[1:])) if a[1] == b[0] else ()


_FITS = {
    "LoRA": _lora,
    "LoHa": _loha,
    "LoKr": _lokr,
    "GLoRA": _glora,
    "OFT": _oft,
    "difference": _difference,
    "replacement": _replacement,
}
