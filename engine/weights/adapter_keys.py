"""How adapter files name their tensors: which module in some dialect, and which matrix of which kind. Torch-free.

The kinds are those of the field: LoRA with LoCon's Tucker core and DoRA's scale, LyCORIS' LoHa, LoKr, GLoRA, OFT and
BOFT, and plain differences. Files of peft and of its named adapters use the same matrices under longer suffixes.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Literal

Kind = Literal["LoRA", "LoHa", "LoKr", "GLoRA", "OFT", "difference", "replacement"]
# A matrix by its shortest name: "down", "up", "hada_w1_a", "diff", ... "alpha", "dora" (LyCORIS' scale, by rows or
# columns), "magnitude" (peft's, always by rows), "reshape_weight".
Matrix = str

_LONG: tuple[tuple[str, Matrix], ...] = (
    (".lora_down.weight", "down"), (".lora_up.weight", "up"), (".lora_mid.weight", "mid"), (".alpha", "alpha"),
    (".lora_A.weight", "down"), (".lora_B.weight", "up"), (".lora_A.default.weight", "down"),
    (".lora_B.default.weight", "up"), (".lora_A", "down"), (".lora_B", "up"),
    (".lora_linear_layer.down.weight", "down"), (".lora_linear_layer.up.weight", "up"),
    (".lora.down.weight", "down"), (".lora.up.weight", "up"),
    ("_lora.down.weight", "down"), ("_lora.up.weight", "up"),
    (".dora_scale", "dora"), (".lora_magnitude_vector.weight", "magnitude"), (".lora_magnitude_vector", "magnitude"),
    (".lora_magnitude_vector.default.weight", "magnitude"), (".lora_magnitude_vector.default", "magnitude"),
)  # fmt: skip
_SHORT = re.compile(
    r"\.(hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2|[ab][12](?=\.weight$)|oft_blocks|rescale|"
    r"diff|diff_b|w_norm|b_norm|set_weight|reshape_weight)(?:\.weight|\.default)?$"
)
_NUMBERED = re.compile(r"(.+_lora[12])\.(down|up)\.weight$")  # XLabs': one for the picture's stream, one for the text's
_SAME = {"w_norm": "diff", "b_norm": "diff_b"}  # of norms, with names of their own
# What a matrix is of, and what a kind cannot be without.
_KIND_OF: dict[str, Kind] = {
    "down": "LoRA", "up": "LoRA", "mid": "LoRA",
    **dict.fromkeys(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"), "LoHa"),
    **dict.fromkeys(("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"), "LoKr"),
    **dict.fromkeys(("a1", "a2", "b1", "b2"), "GLoRA"),
    "oft_blocks": "OFT", "diff": "difference", "diff_b": "difference", "set_weight": "replacement",
}  # fmt: skip


def split_key(key: str) -> tuple[str, Matrix] | None:
    """A tensor's name as (module in some dialect, which matrix); None for what is no part of an adapter."""
    for suffix, matrix in _LONG:
        if key.endswith(suffix):
            return key[: -len(suffix)], matrix
    numbered = _NUMBERED.match(key)
    if numbered:
        return numbered[1], numbered[2]
    found = _SHORT.search(key)
    return (key[: found.start()], _SAME.get(found[1], found[1])) if found else None


def kinds_of(matrices: Set[Matrix]) -> list[Kind]:
    """What a module's matrices make together; several where it has, say, a low-rank pair and a new bias. A pair, or any
    other set, of which a part is missing is none: see `missing_half`."""
    return list(dict.fromkeys(_KIND_OF[matrix] for matrix in matrices if matrix in _KIND_OF))


def is_adapter_matrix(matrix: Matrix) -> bool:
    """Whether it proves that a file is an adapter: "alpha" and "rescale" may mean other things elsewhere."""
    return matrix in _KIND_OF


def missing_half(kind: Kind, matrices: Set[Matrix]) -> bool:
    """Whether something is lacking that the kind can't do without."""
    match kind:
        case "LoRA":
            return not {"down", "up"} <= matrices
        case "LoHa":
            return not {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= matrices or (
                ("hada_t1" in matrices) != ("hada_t2" in matrices)
            )
        case "LoKr":
            halves = (("lokr_w1", "lokr_w1_a", "lokr_w1_b"), ("lokr_w2", "lokr_w2_a", "lokr_w2_b"))
            return any(whole not in matrices and not {a, b} <= matrices for whole, a, b in halves)
        case "GLoRA":
            return not {"a1", "a2", "b1", "b2"} <= matrices
    return False
