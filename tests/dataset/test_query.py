from __future__ import annotations

import pytest

from engine.dataset.health import health
from engine.dataset.library import Dataset
from engine.dataset.pictures import scan
from engine.dataset.query import BadFilter, matching
from engine.dataset.records import Policy, Reading
from engine.dataset.regions import Region, add_regions
from engine.dataset.view import View
from tests.dataset.conftest import picture


@pytest.fixture
def view(dataset: Dataset) -> View:
    """a.png: cat, long_hair, :3. b.png: dog, long_hair, rating. sub/c.jpg: the user's red_hat and a caption."""
    source = dataset.store.source("tagger:wd", policy=Policy({"general": 0.5}))
    dataset.store.add_readings(
        source.id,
        {
            1: Reading([("cat", "general", 0.9), ("long_hair", "general", 0.6), (":3", "general", 0.9)]),
            2: Reading([("dog", "general", 0.7), ("long_hair", "general", 0.6), ("rating:safe", "rating", 0.9)]),
            3: Reading([("cat", "general", 0.2)]),
        },
    )
    dataset.store.decide([(3, "red_hat_(fate)", 1)], "Hat")
    dataset.store.write_captions({3: "A photo of a cat in the rain."}, "Write")
    return View(dataset.store)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "abc"),
        ("cat", "a"),
        ("-cat", "bc"),
        ("NOT cat", "bc"),
        ("long_hair", "ab"),
        ('"long hair"', "ab"),
        ("long_hair -cat", "b"),
        ("cat OR dog", "ab"),
        ("cat AND dog", ""),
        ("(cat OR dog) -(cat)", "b"),
        ("cat OR dog long_hair", "ab"),
        ("*a*", "abc"),
        ("tag:*_hair", "ab"),
        ("tag:nothing", ""),
        (":3", "a"),
        ("rating:safe", "b"),
        ("red_hat_(fate)", "c"),
        ("-red_hat_(fate)", "ab"),
        ("rain", "c"),
        ("text:cat", "ac"),
        ('text:"long hair"', "ab"),
        ("caption:photo", "c"),
        ("name:.png", "ab"),
        ("path:sub/", "c"),
        ("tags:>=2", "ab"),
        ("tags:1", "c"),
        ("chars:>5", "c"),
        ("tags:==2", "b"),
        ("tags:!=2", "ac"),
        ("tokens:>5", "a"),
        ("caption:ph*cat", "c"),
        ("name:?.png", "ab"),
        ("path:s*b/*.jpg", "c"),
        ("score:cat>0.1", "ac"),
        ("score:cat>=0.9", "a"),
        ("-score:cat>0.5", "bc"),
        ("source:wd", "abc"),
        ("source:user", "c"),
        ("has:caption", "c"),
        ("has:tags", "abc"),
        ("has:decisions", "c"),
        ("changed:today", "c"),
        ("changed:3d -has:caption", ""),
        ("w:48 h:<=32", "abc"),
        ("ar:>1.4", "abc"),
        ("res:>32", ""),
    ],
)
def test_filters(view: View, text: str, found: str) -> None:
    assert "".join(p.name[0] for p, hit in zip(view.pictures(), matching(view, text), strict=True) if hit) == found


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("(cat", "the end"),
        ("cat)", "')'"),
        ("cat OR", "the end"),
        ("AND cat", "'AND'"),
        ('"cat', '"cat'),
        ("tags:many", "tags:many"),
        ("score:cat", "score:TAG"),
        ("scroe:cat>1", "did you mean 'score:'"),
        ("dup:maybe", "dup:yes"),
        ("changed:soon", "changed:7d"),
    ],
)
def test_what_can_not_be_understood_says_where(view: View, text: str, at: str) -> None:
    with pytest.raises(BadFilter) as caught:
        matching(view, text)
    assert at in str(caught.value)


def test_a_source_that_only_wrote_captions_or_found_regions_is_found(view: View) -> None:
    view.store.write_captions({2: "A dog."}, "Describe", tool="captioner:florence-2")
    source = view.store.source("regions:grounder")
    add_regions(view.store, source.id, {1: [Region("hat", "box", (0.1, 0.1, 0.5, 0.5))]})
    assert matching(view, "source:florence").tolist() == [False, True, False]
    assert matching(view, "source:grounder").tolist() == [True, False, False]
    assert not matching(view, "source:use").any()  # nobody's name; a person is asked for with the whole word


def test_near_copies_and_blur(dataset: Dataset) -> None:
    import numpy as np
    from PIL import Image, ImageFilter

    from engine.dataset.measures import measure

    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "sub/c.jpg"):
        (dataset.root / name).unlink()
    base = [
        Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
        for _ in range(6)
    ]
    for i, image in enumerate(base):
        image.save(dataset.root / f"p{i}.png")
    base[0].resize((320, 240)).save(dataset.root / "small.png")
    base[1].transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(dataset.root / "turned.jpg", quality=40)
    base[2].filter(ImageFilter.GaussianBlur(20)).point(lambda v: v // 2 + 60).save(dataset.root / "soft.png")
    scan(dataset)
    view = View(dataset.store)
    assert not matching(view, "dup:yes").any()
    assert measure(dataset) == 9
    assert measure(dataset) == 0
    names = [p.name for p in view.pictures()]
    copies = {name for name, hit in zip(names, matching(view, "dup:yes"), strict=True) if hit}
    assert (
        {"p0.png", "small.png", "p1.png", "turned.jpg"}
        <= copies
        <= {"p0.png", "small.png", "p1.png", "turned.jpg", "p2.png", "soft.png"}
    )
    assert [name for name, hit in zip(names, matching(view, "blur:<10"), strict=True) if hit] == ["soft.png"]
    group = dict(zip(names, view.near_copies().tolist(), strict=True))
    assert group["p0.png"] == group["small.png"] != group["p1.png"] == group["turned.jpg"]


def test_pictures_where_taggers_disagree(dataset: Dataset) -> None:
    for tool, tags in (("tagger:x", ["a", "b"]), ("tagger:y", ["a", "c", "d"])):
        source = dataset.store.source(tool, policy=Policy({"general": 0.5}))
        dataset.store.add_readings(
            source.id,
            {1: Reading([(t, "general", 0.9) for t in tags]), 2: Reading([("a", "general", 0.9)])},
        )
    view = View(dataset.store)
    assert view.disagreement().tolist() == [0.75, 0.0, 0.0]
    assert matching(view, "disagree:>0.5").tolist() == [True, False, False]


def test_a_picture_added_later_is_found(dataset: Dataset) -> None:
    view = View(dataset.store)
    assert matching(view, "w:100").sum() == 0
    picture(dataset.root / "new.png", 5, (100, 10))
    scan(dataset)
    assert matching(view, "w:100").sum() == 1


def test_captions_that_loop_contradict_or_leave_out_are_found(dataset: Dataset) -> None:
    dataset.store.decide([(1, "black_hair", 1), (2, "cat", 1)], "Tags")
    loop = "a cat on a mat " * 12
    texts = {1: "A girl with blonde hair.", 2: f"{loop.strip()}.", 3: "This image shows a dog. It is"}
    dataset.store.write_captions(texts, "Write")
    view = View(dataset.store)

    def found(words: str) -> list[int]:
        return [p.id for p, hit in zip(view.pictures(), matching(view, words), strict=True) if hit]

    assert (found("prose:contradicts"), found("prose:loops")) == ([1], [2])
    assert (found("prose:phrases"), found("prose:unfinished")) == ([3], [3])
    assert (found("coverage:<0.5"), found("coverage:=1")) == ([1], [2, 3])
    assert {finding.code for finding in health(dataset, view).findings} >= {"loops", "phrases", "contradictions"}
    dataset.store.write_captions({1: "A girl with black hair."}, "Correct")
    assert found("prose:contradicts") == []
    with pytest.raises(BadFilter, match="prose:loops"):
        found("prose:bad")
