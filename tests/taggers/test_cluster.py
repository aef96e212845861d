"""Tagging on a Ray cluster of two processes on this machine."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from engine.errors import NotFound
from engine.workspace import Workspace
from taggers.cluster import RayNotAllowed
from taggers.job import run
from taggers.results import NoAnswer
from taggers.settings import OnnxTool, TagSettings
from tests.taggers.conftest import Context, paint
from tests.taggers.test_job import tags_by_name


def test_errors_cross_to_other_processes_with_their_values() -> None:
    for error in (
        NoAnswer(name="a.png", why=" x", why_zh=" y"),
        NotFound(what="tagger", what_zh="打标器", name="a", remedy="b", remedy_zh="c"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and again.to_json() == error.to_json()


def test_a_cluster_is_the_owners_choice(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(ctx.workspace.datasets / "set", a="red")
    monkeypatch.delenv("EASEL_RAY", raising=False)
    with pytest.raises(RayNotAllowed, match="EASEL_RAY=elsewhere:1"):
        run(ctx, TagSettings(dataset="set", tagger="wd-test", ray="elsewhere:1"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=small)
    made.add_node(num_cpus=1, object_store_memory=80 << 20)
    monkeypatch.setenv("EASEL_RAY", made.address)
    try:
        yield made.address
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.slow
def test_two_machines_read_what_one_would(workspace: Workspace, cluster: str) -> None:
    colours = {f"p{i:02}": ("red", "green", "blue")[i % 3] for i in range(24)}
    for name in ("set", "far"):
        paint(workspace.datasets / name, **colours)
        (workspace.datasets / name / "broken.png").write_bytes(b"no picture")
    (workspace.datasets / "far" / "cut.jpg").write_bytes((workspace.datasets / "far" / "p00.png").read_bytes()[:60])
    run(Context(workspace), TagSettings(dataset="set", tagger="wd-test"))
    settings = TagSettings(dataset="far", tools=(OnnxTool(tagger="wd-test", batch_size=3),), ray=cluster)
    result = run(Context(workspace), settings)
    assert (result["tagged"], result["skipped"]) == (24, 0)
    assert tags_by_name(workspace, "far") == tags_by_name(workspace)
    again = run(Context(workspace), settings)
    assert (again["tagged"], again["skipped"]) == (0, 24)
    with pytest.raises(NotFound, match="wd-tset"):
        run(Context(workspace), TagSettings(dataset="far", tools=(OnnxTool(tagger="wd-tset"),), ray=cluster))
