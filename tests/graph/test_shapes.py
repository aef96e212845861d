"""Pictures, masks and latents that can be none do not reach our nodes: the error names the input and the shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.graph.cache import NoCache
from engine.graph.executor import Executor, Outcome, RunContext
from engine.graph.node import NodeContext, Out, node
from engine.graph.registry import NodeType, Registry
from engine.graph.shapes import WrongShape, check_shapes
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.nodes.image import image_invert
from engine.nodes.image_batch import rebatch_images
from engine.nodes.primitives import preview_any
from engine.workspace import Workspace


@node("OfShape", title_zh="形状", category="toys", outputs=[Out("IMAGE")])
def of_shape(ctx: NodeContext) -> tuple[Any]:
    return (torch.zeros(1, 0, 8, 3),)


def run(root: Path) -> Outcome:
    prompt = {
        "1": {"class_type": "OfShape", "inputs": {}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }
    context = RunContext("job", Workspace(root).create(), ModelManager(open_device("cpu")), prompt)
    registry = Registry([of_shape, image_invert, preview_any])
    return Executor(registry, NoCache(), torch.no_grad).run(prompt, context, ["3"], lambda event, data: None)


def test_a_picture_of_no_pixels_is_named_where_it_arrives(tmp_path: Path) -> None:
    error = run(tmp_path).error
    assert error is not None
    for language, words in (
        ("en", "a picture, (batch, height, width, channels)"),
        ("zh", "图像（批次, 高, 宽, 通道）"),
    ):
        told = error.text(language)
        assert words in told and "image" in told and "(1, 0, 8, 3)" in told and "ImageInvert" in told


@pytest.mark.parametrize(
    ("socket", "shape", "fits"),
    [
        ("IMAGE", (1, 1, 1, 1), True),
        ("IMAGE", (0, 8, 8, 3), True),
        ("IMAGE", (8, 8, 3), False),
        ("MASK", (8, 8), True),
        ("MASK", (1, 1, 1), True),
        ("MASK", (0, 8), False),
        ("MASK", (1, 8, 0), False),
        ("LATENT", (1, 4, 8, 8), True),
        ("LATENT", (1, 4, 2, 8, 8), True),
        ("LATENT", (4, 8), False),
        ("LATENT", (1, 4, 0, 8), False),
    ],
)
def test_shapes(socket: str, shape: tuple[int, ...], fits: bool) -> None:
    value = {"samples": torch.zeros(shape)} if socket == "LATENT" else torch.zeros(shape)
    for given in (value, [value, value]):
        if fits:
            check_shapes({"a": socket}, {"a": given})
        else:
            with pytest.raises(WrongShape, match="'a' must be"):
                check_shapes({"a": socket}, {"a": given})


def test_what_has_no_shape_is_left_to_the_node() -> None:
    check_shapes({"a": "IMAGE", "b": "MASK", "c": "LATENT"}, {"a": None, "b": "x", "c": {}})


def test_our_own_nodes_are_looked_at() -> None:
    assert NodeType.of(image_invert).shaped == {"image": "IMAGE"}
    assert NodeType.of(rebatch_images).shaped == {"images": "IMAGE"}
    assert NodeType.of(of_shape).shaped == {} == NodeType.of(preview_any).shaped
