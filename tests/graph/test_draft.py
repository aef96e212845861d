"""Drafts on a real, tiny model: everything is checked and shaped as in a final, and no weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from engine.graph.errors import NodeFailed
from engine.graph.metadata import read_metadata
from engine.graph.registry import Registry
from engine.models.device import CpuDevice
from engine.models.manager import ModelManager
from engine.nodes import load_all
from engine.workflows import PictureSettings, text_to_image
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.graph.test_job import JobContext


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> JobContext:
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("workspace")).create()
    make_tiny_sd1(workspace.models / "checkpoints" / "tiny.safetensors")
    registry = Registry()
    load_all(registry)
    context = JobContext(workspace, registry)
    context.models = ModelManager(CpuDevice())
    return context


def prompt(**settings: Any) -> dict[str, Any]:
    about = {"positive": "a (red:1.3) cat", "width": 64, "height": 64, "steps": 2, **settings}
    return text_to_image(PictureSettings("tiny.safetensors", **about))


def saved(ctx: JobContext, result: dict[str, Any]) -> Path:
    (row,) = result["outputs"]["7"]["images"]
    return getattr(ctx.workspace, row["type"]) / row["subfolder"] / row["filename"]


def test_a_draft_reads_no_weights_and_has_the_size_of_the_final(ctx):
    draft = saved(ctx, ctx.run(prompt(seed=1), draft=True))
    assert ctx.models.ledger()["resident"] == 0
    final = saved(ctx, ctx.run(prompt(seed=1)))
    assert ctx.models.ledger()["resident"] > 0
    with Image.open(draft) as a, Image.open(final) as b:
        assert a.size == b.size
        assert a.getpixel((0, 0)) == (255, 0, 255)
        assert b.getpixel((0, 0)) != (255, 0, 255)
    assert (read_metadata(draft).draft, read_metadata(final).draft) == (True, False)
    assert read_metadata(draft).prompt == read_metadata(final).prompt


def test_a_final_says_how_it_was_made(ctx):
    metadata = read_metadata(saved(ctx, ctx.run(prompt(seed=2))))
    assert metadata.parameters.splitlines()[0] == "a (red:1.3) cat"
    assert "Steps: 2, Sampler: Euler, Schedule type: Normal, CFG scale: 7, Seed: 2" in metadata.parameters


def test_a_picture_goes_through_a_draft_and_is_still_seen(ctx):
    picture = Image.new("RGB", (64, 64), (255, 0, 0))
    picture.paste((0, 0, 255), (32, 0, 64, 64))
    picture.save(ctx.workspace.input / "in.png")
    draft = saved(ctx, ctx.run(prompt(image="in.png", denoise=0.5), draft=True))
    with Image.open(draft) as shown:
        left, right = shown.getpixel((16, 40)), shown.getpixel((48, 40))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert left[0] > left[2]
    assert right[2] > right[0]


def test_a_draft_finds_what_is_wrong(ctx):
    broken = prompt()
    broken["1"]["inputs"]["ckpt_name"] = "gone.safetensors"
    with pytest.raises(NodeFailed, match=r"gone\.safetensors"):
        ctx.run(broken, outputs=["7"], draft=True)


def test_previews_and_progress_are_told_while_sampling(ctx):
    ctx.bars.clear()
    ctx.run(prompt(seed=3, steps=3))
    steps = [data for event, data in ctx.events if event == "progress"]
    assert [(data["value"], data["max"], data["node"]) for data in steps] == [(1, 3, "5"), (2, 3, "5"), (3, 3, "5")]
    assert (3, 3, "KSampler") in ctx.bars


def test_nothing_runs_twice_when_only_the_seed_changes(ctx):
    ctx.run(prompt(seed=4))
    ctx.run(prompt(seed=5))
    assert ctx.ran() == ["5", "6", "7"]


def test_custom_sampling_is_drafted_as_well(ctx):
    graph = prompt(seed=6)
    given = graph["5"]["inputs"]
    sides = {"positive": given["positive"], "negative": given["negative"]}
    steps = {"scheduler": "karras", "steps": 2, "denoise": 1.0}
    nodes = {
        "20": ("RandomNoise", {"noise_seed": 6}),
        "21": ("CFGGuider", {"model": given["model"], "cfg": 4, **sides}),
        "22": ("KSamplerSelect", {"sampler_name": "euler"}),
        "23": ("BasicScheduler", {"model": given["model"], **steps}),
    }
    links = {name: [node_id, 0] for name, node_id in zip(("noise", "guider", "sampler", "sigmas"), nodes, strict=True)}
    nodes["5"] = ("SamplerCustomAdvanced", {**links, "latent_image": given["latent_image"]})
    graph |= {node_id: {"class_type": kind, "inputs": inputs} for node_id, (kind, inputs) in nodes.items()}
    drafted, final = (saved(ctx, ctx.run(graph, draft=draft)) for draft in (True, False))
    with Image.open(drafted) as a, Image.open(final) as b:
        assert a.size == b.size and a.getpixel((0, 0)) != b.getpixel((0, 0))
