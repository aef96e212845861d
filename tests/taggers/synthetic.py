"""A WD14-contract ONNX model whose tags follow the picture's mean colour, so that the channel order can be tested."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROWS = (
    *((name, 9) for name in ("general", "sensitive", "questionable", "explicit")),
    *((name, 0) for name in ("red_theme", "green_theme", "blue_theme", "o_o", "fate_(series)")),
    *((name, 4) for name in ("hatsune_miku", "artoria_pendragon_(fate)")),
)
SIZE = 32


def write_wd(folder: Path, *, fixed_batch: int | None = None, size: int = SIZE, nan: bool = False, rows=ROWS) -> Path:
    """red, green or blue scores sigmoid(12 x mean of that channel / 255 - 6); the rest is constant. Gives folder."""
    weight = np.zeros((3, len(ROWS)), np.float32)
    bias = np.full(len(ROWS), -6, np.float32)
    for channel, column in ((2, 4), (1, 5), (0, 6)):  # BGR: red is channel 2
        weight[channel, column] = 12 / 255
    bias[0], bias[7], bias[8], bias[9], bias[10] = 3, 2, 1, 1, 3
    if nan:
        bias[5] = np.nan
    write_model(folder / "model.onnx", weight, bias, [fixed_batch or "batch", size, size, 3], axes=[1, 2], sigmoid=True)
    with open(folder / "selected_tags.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([1000 + i, name, category, 1] for i, (name, category) in enumerate(rows))
    return folder


def write_model(
    path: Path,
    weight: np.ndarray,
    bias: np.ndarray,
    shape: list,
    *,
    axes: list[int],
    sigmoid: bool,
    outputs: tuple[str, ...] = ("output",),
) -> None:
    """mean over `axes`, times weight, plus bias, maybe sigmoid. Every name but the last of `outputs` gives zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["before" if sigmoid else outputs[-1]]),
    ]
    if sigmoid:
        nodes.append(helper.make_node("Sigmoid", ["before"], [outputs[-1]]))
    nodes += [helper.make_node("Sub", [outputs[-1], outputs[-1]], [name]) for name in outputs[:-1]]
    graph = helper.make_graph(
        nodes,
        "synthetic",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [shape[0], len(bias)]) for name in outputs],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.array(axes, np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, path)
