"""Several tools in one run: context, merges, captions that become current, resuming, one undo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.dataset.library import Library
from engine.dataset.pictures import scan
from engine.dataset.regions import regions_of
from engine.dataset.view import View
from engine.errors import Cancelled
from engine.workspace import Workspace
from taggers.catalogue import UnknownCaptioner, captioner, kind_of
from taggers.endpoint import EndpointRefused, EndpointTool
from taggers.florence import FlorenceTool
from taggers.folder import BrokenFolder
from taggers.job import run
from taggers.settings import Merge, OnnxTool, TagSettings
from taggers.tool import About, filled
from taggers.writing import reading_of, tags_in
from tests.taggers.conftest import Context, paint
from tests.taggers.synthetic import write_wd
from tests.taggers.test_endpoint import Server, said, server  # noqa: F401
from tests.taggers.tiny import write_florence


@pytest.fixture
def place(workspace: Workspace) -> Path:
    paint(workspace.datasets / "set", a="red", b="green", c="blue")
    return workspace.datasets / "set"


def tool(server: Server, **settings: Any) -> EndpointTool:  # noqa: F811
    return EndpointTool(model="llava", base_url=server.url, retries=0, **settings)


def texts(workspace: Workspace) -> dict[str, str]:
    with Library(workspace).open("set") as dataset:
        view = View(dataset.store)
        return {p.name: text for p, text in zip(view.pictures(), view.captions(), strict=True)}


def questions(server: Server) -> list[str]:  # noqa: F811
    return [asked[2]["messages"][0]["content"][1]["text"] for asked in server.asked]


def test_what_a_tagger_read_is_told_to_the_captioner_after_it(ctx: Context, place: Path, server: Server) -> None:  # noqa: F811
    asks = tool(server, prompt="{name} {trigger}: {tags}. {other}", batch_size=1)
    result = run(ctx, TagSettings(dataset="set", tagger="wd-test", tools=(asks,)))
    assert sorted(questions(server)) == [
        "a.png : red theme, artoria pendragon (fate), o_o, fate (series). {other}",
        "b.png : green theme, artoria pendragon (fate), o_o, fate (series). {other}",
        "c.png : blue theme, artoria pendragon (fate), o_o, fate (series). {other}",
    ]
    assert [one["tool"] for one in result["tools"]] == ["tagger:wd-test", "captioner:llava"]
    assert texts(ctx.workspace) == dict.fromkeys(("a.png", "b.png", "c.png"), "a red card")


def test_the_users_own_captions_stay_and_others_give_way(ctx: Context, place: Path, server: Server) -> None:  # noqa: F811
    run(ctx, TagSettings(dataset="set", tools=(tool(server),)))
    with Library(ctx.workspace).open("set") as dataset:
        mine = dataset.store.pictures()[0]
        dataset.store.write_captions({mine.id: "my own words"}, "edit")
    server.script = lambda n: said("newer")
    run(ctx, TagSettings(dataset="set", tools=(tool(server, prompt="Again?"),)))
    assert texts(ctx.workspace) == {"a.png": "my own words", "b.png": "newer", "c.png": "newer"}
    server.script = lambda n: said("kept aside")
    run(ctx, TagSettings(dataset="set", tools=(tool(server, prompt="And?", replace="none"),)))
    assert texts(ctx.workspace) == {"a.png": "my own words", "b.png": "newer", "c.png": "newer"}
    with Library(ctx.workspace).open("set") as dataset:
        versions = [version.text for version in dataset.store.caption_versions(mine.id)]
    assert versions == ["kept aside", "newer", "my own words", "a red card"]


def test_a_run_is_one_entry_of_the_undo_list_and_goes_on_where_it_was(
    workspace: Workspace,
    place: Path,
    server: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("taggers.results.FLUSH_COUNT", 1)
    settings = TagSettings(dataset="set", tools=(tool(server, batch_size=1),))
    with pytest.raises(Cancelled):
        run(Context(workspace, cancel_after=2), settings)
    assert len(server.asked) == 2
    assert sum(map(bool, texts(workspace).values())) == 2
    result = run(Context(workspace), settings)
    assert (result["tagged"], result["skipped"], len(server.asked)) == (1, 2, 3)
    with Library(workspace).open("set") as dataset:
        assert [event.title for event in dataset.store.events()] == ["llava", "llava"]
        dataset.store.undo()
        dataset.store.undo()
        assert texts(workspace) == dict.fromkeys(("a.png", "b.png", "c.png"), "")
        dataset.store.redo()
    assert sum(map(bool, texts(workspace).values())) == 2


def test_what_is_wrong_with_one_picture_is_listed_and_what_is_wrong_with_all_ends_the_run(
    ctx: Context,
    place: Path,
    server: Server,  # noqa: F811
) -> None:
    server.script = lambda n: said("fine") if n != 2 else (400, "application/json", b'{"error": "too dark"}')
    result = run(ctx, TagSettings(dataset="set", tools=(tool(server, batch_size=1),)))
    assert (result["tagged"], [one["code"] for one in result["problems"].values()]) == (2, ["EndpointRefused"])
    server.script = lambda n: (400, "application/json", b'{"error": "no pictures"}')
    with pytest.raises(EndpointRefused, match="no pictures"):
        run(ctx, TagSettings(dataset="set", tools=(tool(server, prompt="New?"),)))


def test_answers_without_a_text_are_listed(ctx: Context, place: Path, server: Server) -> None:  # noqa: F811
    server.script = lambda n: said("words") if n == 1 else said("", finish="length")
    result = run(ctx, TagSettings(dataset="set", tools=(tool(server, batch_size=1),)))
    assert (result["tagged"], result["cut"]) == (1, 2)
    assert {one["code"] for one in result["problems"].values()} == {"NoAnswer"}


def test_two_taggers_share_a_pass_and_their_merge_is_kept(workspace: Workspace, place: Path) -> None:
    write_wd(workspace.models / "taggers" / "second", size=48)
    one = OnnxTool(tagger="wd-test", thresholds={"character": 0.7}, weight=2.0)
    two = OnnxTool(tagger="second", thresholds={"general": 0.9, "character": 0.9}, weight=1.0, batch_size=2)
    ctx = Context(workspace)
    result = run(ctx, TagSettings(dataset="set", tools=(one, two), merge=Merge(how="intersection")))
    assert [(one["tool"], one["tagged"]) for one in result["tools"]] == [("tagger:wd-test", 3), ("tagger:second", 3)]
    assert {text for *_, text, phase, _ in ctx.told if phase == "tag"} == {"wd-test + second · CPU"}

    def tags(how: str, share: float = 0.5) -> list[str]:
        run(ctx, TagSettings(dataset="set", tools=(one, two), merge=Merge(how=how, share=share)))  # type: ignore[arg-type]
        with Library(workspace).open("set") as dataset:
            view = View(dataset.store)
            return sorted(t.name for t in view.tags(view.pictures()[0].id) if t.category != "rating")

    both, first_only = ["artoria_pendragon_(fate)", "red_theme"], ["fate_(series)", "hatsune_miku", "o_o"]
    assert tags("intersection") == both
    assert tags("union") == sorted([*both, *first_only])
    assert tags("vote", 0.6) == sorted([*both, *first_only])  # the first alone has two thirds of the weight
    assert tags("vote", 0.7) == both
    subtracting = two.model_copy(update={"subtracts": True})
    run(ctx, TagSettings(dataset="set", tools=(one, subtracting), merge=Merge(how="union")))
    with Library(workspace).open("set") as dataset:
        view = View(dataset.store)
        left = sorted(t.name for t in view.tags(view.pictures()[0].id) if t.category != "rating")
    assert left == first_only


def test_florence_writes_captions_and_regions_into_the_store(ctx: Context, place: Path) -> None:
    write_florence(ctx.workspace.models / "captioners" / "florence", microsoft=True)
    caption = FlorenceTool(model="florence", task="<CAPTION>", max_new_tokens=8)
    objects = FlorenceTool(model="florence", task="<OD>", max_new_tokens=8)
    result = run(ctx, TagSettings(dataset="set", tools=(caption, objects)))
    assert [(one["tagged"], one["provider"]) for one in result["tools"]] == [(3, "CPU"), (3, "CPU")]
    again = run(ctx, TagSettings(dataset="set", tools=(caption, objects)))
    assert [(one["tagged"], one["skipped"]) for one in again["tools"]] == [(0, 3), (0, 3)]
    assert all(texts(ctx.workspace).values())
    with Library(ctx.workspace).open("set") as dataset:
        found = regions_of(dataset.store, dataset.store.pictures()[0].id)
        assert list(found) == [result["tools"][1]["source"]]


def test_an_answer_about_a_region_is_its_label_and_no_caption(ctx: Context, place: Path) -> None:
    write_florence(ctx.workspace.models / "captioners" / "florence")
    with Library(ctx.workspace).open("set") as dataset:
        scan(dataset)
        first, second, _ = (picture.id for picture in dataset.store.pictures())

    def ask(*region: float, picture: int = first) -> dict[str, Any]:
        told = FlorenceTool(model="florence", task="<REGION_TO_CATEGORY>", region=region, max_new_tokens=8)  # type: ignore[arg-type]
        return run(ctx, TagSettings(dataset="set", tools=(told,), pictures=(picture,)))

    ask(0.1, 0.2, 0.5, 0.75)
    source = ask(0.5, 0.5, 1.0, 1.0)["source"]
    assert ask(0.1, 0.2, 0.5, 0.75)["source"] == source  # the same once more: its label is replaced
    ask(0.0, 0.0, 0.5, 0.5, picture=second)
    with Library(ctx.workspace).open("set") as dataset:
        found = regions_of(dataset.store, first)
        assert [region.points for region in found[source]] == [(0.5, 0.5, 1.0, 1.0), (0.1, 0.2, 0.5, 0.75)]
        assert all(region.shape == "box" and region.label for region in found[source])
        assert len(regions_of(dataset.store, second)[source]) == 1
        assert View(dataset.store).captions() == ["", "", ""]


def test_what_is_no_captioner_is_named_with_a_way_out(workspace: Workspace) -> None:
    folder = workspace.models / "captioners" / "old"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "minicpmv"}')
    with pytest.raises(UnknownCaptioner, match=r"'minicpmv'.*endpoint"):
        kind_of(captioner(workspace, "old"))
    (folder / "config.json").write_text('{"model_type": "florence2"}')
    with pytest.raises(BrokenFolder, match="Florence-2, not a Qwen-VL"):
        from taggers.opening import open_reader
        from taggers.qwen_vl import QwenTool

        open_reader(workspace, Context(workspace).models, QwenTool(model="old"))
    (folder / "config.json").write_text("{")
    with pytest.raises(BrokenFolder, match=r"config\.json can't be read"):
        kind_of(captioner(workspace, "old"))


def test_prompts_are_filled_once_and_other_braces_stay() -> None:
    about = About(name="{tags}.png", tags=("a", "b", "c"), characters=(), trigger="bbdr")
    assert filled("{name} {tags} {characters} {x} {trigger}", about, 2) == "{tags}.png a, b none {x} bbdr"


def test_lists_become_tags_with_their_categories() -> None:
    assert tags_in("1girl, long hair, (o)_(o)\nsmile., 1girl,") == ("1girl", "long_hair", "(o)_(o)", "smile")
    found = reading_of(tags_in("artist: foo bar, character:hatsune miku, rating: safe, species: cat, :d, red hair"))
    assert [(name, category) for name, category, _ in found.tags] == [
        *(("foo_bar", "artist"), ("hatsune_miku", "character"), ("rating:safe", "rating"), ("cat", "general")),
        *((":d", "general"), ("red_hair", "general")),
    ]


@pytest.mark.parametrize("wrong", [{"dataset": "set"}, {"dataset": "set", "tools": [{"kind": "poem"}]}])
def test_a_run_without_a_tool_or_with_an_unknown_one_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        TagSettings.model_validate(wrong)
