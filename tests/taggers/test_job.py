from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.dataset.captions import CaptionRules
from engine.dataset.library import Library
from engine.dataset.view import View
from engine.errors import Cancelled, NotFound
from engine.workspace import Workspace
from taggers.job import run
from taggers.onnx_tagger import ScoresNotNumbers
from taggers.presets import preset, settings_from
from taggers.settings import TagSettings
from tests.taggers.conftest import Context, paint
from tests.taggers.synthetic import write_wd


def tags_by_name(workspace: Workspace, dataset: str = "set") -> dict[str, list[str]]:
    with Library(workspace).open(dataset) as opened:
        view = View(opened.store)
        return {p.name: [tag.name for tag in view.tags(p.id)] for p in view.pictures()}


def test_tags_follow_the_colour_so_the_channel_order_is_right(ctx: Context) -> None:
    paint(ctx.workspace.datasets / "set", a="red", b="green", c="blue")
    result = run(ctx, TagSettings(dataset="set", tagger="wd-test"))
    assert (result["tagged"], result["skipped"], result["problems"]) == (3, 0, {})
    assert result["provider"] == "CPU"
    found = tags_by_name(ctx.workspace)
    assert {name: [t for t in tags if t.endswith("_theme")] for name, tags in found.items()} == {
        "a.png": ["red_theme"],
        "b.png": ["green_theme"],
        "c.png": ["blue_theme"],
    }


def test_one_rating_and_the_thresholds_by_category_decide_what_counts(ctx: Context) -> None:
    paint(ctx.workspace.datasets / "set", a="red")
    run(ctx, TagSettings(dataset="set", tagger="wd-test"))
    # hatsune_miku has 0.731, under the 0.85 of characters; o_o and fate have 0.881 and 0.731, over 0.35
    assert sorted(tags_by_name(ctx.workspace)["a.png"]) == [
        "artoria_pendragon_(fate)",
        "fate_(series)",
        "o_o",
        "rating:general",
        "red_theme",
    ]


def test_a_threshold_moves_without_running_again(ctx: Context) -> None:
    paint(ctx.workspace.datasets / "set", a="red")
    run(ctx, TagSettings(dataset="set", tagger="wd-test"))
    again = run(ctx, TagSettings(dataset="set", tagger="wd-test", thresholds={"character": 0.7, "general": 0.9}))
    assert (again["tagged"], again["skipped"]) == (0, 1)
    assert sorted(tags_by_name(ctx.workspace)["a.png"]) == [
        "artoria_pendragon_(fate)",
        "hatsune_miku",
        "rating:general",
        "red_theme",
    ]


def test_thresholds_that_were_moved_stay_when_the_tagger_runs_again(ctx: Context) -> None:
    paint(ctx.workspace.datasets / "set", a="red")
    run(ctx, TagSettings(dataset="set", tagger="wd-test", thresholds={"general": 0.9}, mcut=("character",)))
    paint(ctx.workspace.datasets / "set", b="blue")
    run(ctx, TagSettings(dataset="set", tagger="wd-test", thresholds={"character": 0.7}))
    with Library(ctx.workspace).open("set") as dataset:
        (source,) = dataset.store.sources()
        assert (source.policy.thresholds["general"], source.policy.thresholds["character"]) == (0.9, 0.7)
        assert source.policy.mcut == ("character",)
        assert [event.title for event in dataset.store.events()] == ["Thresholds of wd-test"]


def test_thresholds_and_mcut_are_kept_with_the_model_for_the_next_dataset(ctx: Context) -> None:
    for name in ("one", "two"):
        paint(ctx.workspace.datasets / name, a="red")
    told = {"thresholds": {"general": 0.6}, "mcut": ("character",)}
    run(ctx, TagSettings.model_validate({"dataset": "one", "tagger": "wd-test", "keep": True, **told}))
    run(ctx, TagSettings(dataset="two", tagger="wd-test"))
    with Library(ctx.workspace).open("two") as dataset:
        (source,) = dataset.store.sources()
        assert (source.policy.thresholds["general"], source.policy.mcut) == (0.6, ("character",))


def test_a_cancelled_run_goes_on_where_it_was(workspace: Workspace) -> None:
    paint(workspace.datasets / "set", **{f"p{i}": "red" for i in range(10)})
    settings = TagSettings(dataset="set", tagger="wd-test", batch_size=2)
    with pytest.raises(Cancelled):
        run(Context(workspace, cancel_after=2), settings)
    assert run(Context(workspace), settings)["tagged"] == 6
    assert run(Context(workspace), settings)["skipped"] == 10


def test_other_settings_or_another_model_read_again(workspace: Workspace) -> None:
    paint(workspace.datasets / "set", a="red")
    run(Context(workspace), TagSettings(dataset="set", tagger="wd-test"))
    assert run(Context(workspace), TagSettings(dataset="set", tagger="wd-test", floor=0.2))["tagged"] == 1
    write_wd(workspace.models / "taggers" / "wd-test", size=48)
    assert run(Context(workspace), TagSettings(dataset="set", tagger="wd-test"))["tagged"] == 1


def test_overwrite_reads_again(ctx: Context) -> None:
    paint(ctx.workspace.datasets / "set", a="red")
    run(ctx, TagSettings(dataset="set", tagger="wd-test"))
    assert run(ctx, TagSettings(dataset="set", tagger="wd-test", overwrite=True))["tagged"] == 1


def test_only_the_pictures_asked_for_are_read(ctx: Context) -> None:
    paint(ctx.workspace.datasets / "set", a="red", b="blue")
    result = run(ctx, TagSettings(dataset="set", tagger="wd-test", pictures=(2,)))
    assert result["tagged"] == 1
    assert tags_by_name(ctx.workspace)["a.png"] == []


def test_progress_has_phases_and_ends_at_the_total(ctx: Context) -> None:
    paint(ctx.workspace.datasets / "set", a="red", b="blue", c="green")
    run(ctx, TagSettings(dataset="set", tagger="wd-test", batch_size=2))
    assert [row[3] for row in ctx.told] == ["scan", "scan", "load", "tag", "tag"]
    assert [row[:3] for row in ctx.told[-2:]] == [(2, 3, "wd-test · CPU"), (3, 3, "wd-test · CPU")]
    assert ctx.told[-1][4]["pictures_per_second"] > 0


def test_a_graph_with_batch_fixed_at_one_gives_the_same(workspace: Workspace) -> None:
    paint(workspace.datasets / "set", a="red", b="green", c="blue")
    paint(workspace.datasets / "fixed", a="red", b="green", c="blue")
    write_wd(workspace.models / "taggers" / "wd-fixed", fixed_batch=1)
    write_wd(workspace.models / "taggers" / "wd-two", fixed_batch=2)
    run(Context(workspace), TagSettings(dataset="set", tagger="wd-test"))
    run(Context(workspace), TagSettings(dataset="fixed", tagger="wd-fixed"))
    assert tags_by_name(workspace) == tags_by_name(workspace, "fixed")
    run(Context(workspace), TagSettings(dataset="fixed", tagger="wd-two"))
    assert tags_by_name(workspace) == tags_by_name(workspace, "fixed")


def test_scores_that_are_not_numbers_are_refused_and_nothing_is_stored(workspace: Workspace) -> None:
    paint(workspace.datasets / "set", a="red")
    write_wd(workspace.models / "taggers" / "wd-nan", nan=True)
    with pytest.raises(ScoresNotNumbers, match=r"a\.png"):
        run(Context(workspace), TagSettings(dataset="set", tagger="wd-nan"))
    assert tags_by_name(workspace)["a.png"] == []


def test_a_picture_deleted_or_cut_off_while_it_runs_is_listed_and_the_rest_goes_on(ctx: Context) -> None:
    folder = ctx.workspace.datasets / "set"
    paint(folder, **{f"p{i:02}": "red" for i in range(40)})

    def disturb() -> None:
        if ctx.checkpoints == 1:
            (folder / "p38.png").unlink()
            Path(folder / "p39.png").write_bytes((folder / "p39.png").read_bytes()[:80])

    ctx.between = disturb
    result = run(ctx, TagSettings(dataset="set", tagger="wd-test", batch_size=2, threads=1))
    assert result["tagged"] == 38
    assert {path: error["code"] for path, error in result["problems"].items()} == {
        "p38.png": "PictureGone",
        "p39.png": "TruncatedPicture",
    }


def test_bad_pictures_are_listed_and_the_rest_is_tagged(ctx: Context) -> None:
    folder = ctx.workspace.datasets / "set"
    paint(folder, good="red")
    (folder / "zero.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    Image.new("CMYK", (40, 40), (0, 255, 255, 0)).save(folder / "cmyk.jpg")
    result = run(ctx, TagSettings(dataset="set", tagger="wd-test"))
    assert result["tagged"] == 2
    assert {path: e["code"] for path, e in result["problems"].items()} == {
        "text.jpg": "NotAPicture",
        "zero.png": "EmptyPicture",
    }
    assert "red_theme" in tags_by_name(ctx.workspace)["cmyk.jpg"]


def test_no_pictures_is_no_error(ctx: Context) -> None:
    (ctx.workspace.datasets / "set").mkdir()
    assert run(ctx, TagSettings(dataset="set", tagger="wd-test"))["tagged"] == 0


def test_an_unknown_tagger_or_dataset_says_what_there_is(ctx: Context) -> None:
    (ctx.workspace.datasets / "set").mkdir()
    with pytest.raises(NotFound, match="wd-test"):
        run(ctx, TagSettings(dataset="set", tagger="wd-tset"))
    with pytest.raises(NotFound, match="set"):
        run(ctx, TagSettings(dataset="other", tagger="wd-test"))


def test_the_run_can_set_the_caption_rules_and_export(ctx: Context) -> None:
    paint(ctx.workspace.datasets / "set", a="red")
    rules = CaptionRules(trigger_word="bbdr", categories=("general", "character"))
    result = run(ctx, TagSettings(dataset="set", tagger="wd-test", captions=rules, export=".txt"))
    assert result["exported"] == 1
    text = (ctx.workspace.datasets / "set" / "a.txt").read_text()
    assert text == "bbdr, red theme, o_o, fate (series), artoria pendragon (fate)"


def test_the_preset_has_the_numbers_of_the_script() -> None:
    data = preset("wd-swinv2-tagger-v3-script")
    assert data["thresholds"] == {"general": 0.35, "character": 0.85}
    settings = settings_from("wd-swinv2-tagger-v3-script", "set", batch_size=4)
    assert not settings.mcut
    assert settings.captions is not None
    assert (settings.captions.trigger_word, settings.captions.categories) == ("bbdr", ("general", "character"))
