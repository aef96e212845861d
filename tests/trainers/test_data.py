import pytest
from PIL import Image

from engine.dataset.library import Library
from engine.errors import NotFound
from engine.workspace import Workspace
from trainers.buckets import Bucket
from trainers.data import (
    Item,
    NoPictures,
    Plan,
    SharedCaption,
    expand,
    freeze,
    read_dataset,
    shown_caption,
    thaw,
    with_trigger,
)
from trainers.settings import TrainSettings

SQUARE, WIDE = Bucket(64, 64), Bucket(128, 64)


def make_items(count, prior=False):
    return [Item(f"{'p' if prior else ''}{i}", f"{i}.png", 64, 64, f"bbdr, a{i}, b, c, d", prior) for i in range(count)]


def picture(path, color=(1, 2, 3), size=(20, 10)):
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "w").create()


def test_a_folder_is_read_with_its_sidecars_whatever_their_names_and_encoding(workspace, tmp_path):
    folder = tmp_path / "猫 pictures 🐈"
    folder.mkdir()
    picture(folder / "a b.png")
    (folder / "a b.txt").write_bytes("\ufeffred,\r\nstar".encode())
    picture(folder / "c.jpg", (9, 9, 9))
    items = read_dataset(workspace, str(folder), "bbdr")
    assert sorted((i.caption, i.width, i.height) for i in items) == [("bbdr", 20, 10), ("bbdr, red, star", 20, 10)]


def test_equal_pictures_count_once(workspace, tmp_path):
    (tmp_path / "f").mkdir()
    picture(tmp_path / "f" / "a.png")
    picture(tmp_path / "f" / "b.png")
    assert len(read_dataset(workspace, str(tmp_path / "f"))) == 1


def test_a_named_dataset_is_read_as_the_dataset_tab_shows_it(workspace):
    with Library(workspace).create("mine") as dataset:
        picture(dataset.root / "a.png")
        from engine.dataset.pictures import scan

        scan(dataset)
        dataset.store.decide([(dataset.store.pictures()[0].id, "red_star", 1)], "test")
    (item,) = read_dataset(workspace, "mine", "bbdr")
    assert item.caption == "bbdr, red star"


def test_a_folder_copied_into_the_datasets_is_read_with_its_sidecars(workspace):
    folder = workspace.datasets / "copied"
    folder.mkdir()
    picture(folder / "a.png")
    (folder / "a.txt").write_text("red star")
    (item,) = read_dataset(workspace, "copied", "bbdr")
    assert item.caption == "bbdr, red star"


def test_no_pictures_no_dataset_and_shared_sidecars_are_clear_errors(workspace, tmp_path):
    (tmp_path / "f").mkdir()
    with pytest.raises(NoPictures):
        read_dataset(workspace, str(tmp_path / "f"))
    for missing in ("nothing", "", str(tmp_path / "gone")):
        with pytest.raises(NotFound):
            read_dataset(workspace, missing)
    picture(tmp_path / "f" / "a.png")
    picture(tmp_path / "f" / "a.jpg")
    (tmp_path / "f" / "a.txt").write_text("x")
    with pytest.raises(SharedCaption, match=r"a.jpg and a.png"):
        read_dataset(workspace, str(tmp_path / "f"))


def test_frozen_items_come_back_equal(tmp_path):
    items = [*make_items(2), Item("h", "猫.png", 1, 2, "é", True)]
    freeze(items, tmp_path / "pictures.json")
    assert thaw(tmp_path / "pictures.json") == items


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("", "bbdr"),
        ("red star", "bbdr, red star"),
        ("bbdr, red star", "bbdr, red star"),
        ("red star, bbdr", "bbdr, red star"),
        ("a photo of bbdr on grass", "a photo of bbdr on grass"),
        ("bbdrs, x", "bbdr, bbdrs, x"),
    ],
)
def test_the_trigger_word_comes_first_once(caption, expected):
    assert with_trigger(caption, "bbdr") == expected


def test_shuffling_keeps_the_first_parts_and_repeats_itself():
    (item,) = make_items(1)
    settings = TrainSettings(shuffle_caption=True, keep_tokens=1)
    shown = [shown_caption(item, settings, step, 0) for step in range(20)]
    assert all(c.startswith("bbdr, ") and sorted(c.split(", ")) == ["a0", "b", "bbdr", "c", "d"] for c in shown)
    assert len(set(shown)) > 5
    assert shown == [shown_caption(item, settings, step, 0) for step in range(20)]


def test_captions_are_dropped_as_often_as_asked_but_never_those_of_prior_pictures():
    (item,), (prior,) = make_items(1), make_items(1, prior=True)
    settings = TrainSettings(caption_dropout=0.3)
    dropped = sum(shown_caption(item, settings, step, 0) == "" for step in range(1000))
    assert 250 < dropped < 350
    assert all(shown_caption(prior, settings, step, 0) for step in range(50))


def test_an_epoch_shows_every_picture_and_batches_are_full_and_of_one_size():
    items = make_items(10)
    buckets = [SQUARE] * 7 + [WIDE] * 3
    plan = Plan(TrainSettings(batch_size=4), items, buckets, [])
    assert plan.batches_per_epoch == 3
    for epoch in range(3):
        batches = [plan.step(epoch * 3 + i)[0] for i in range(3)]
        assert {draw.item.hash for batch in batches for draw in batch} == {item.hash for item in items}
        for batch in batches:
            assert len(batch) == 4 and len({buckets[int(draw.item.hash)] for draw in batch}) == 1


def test_any_step_can_be_asked_for_first():
    settings = TrainSettings(batch_size=2, gradient_accumulation_steps=2, flip=True, shuffle_caption=True)
    one, other = (Plan(settings, make_items(5), [SQUARE] * 5, []) for _ in range(2))
    forward = [one.step(step) for step in range(9)]
    assert [other.step(step) for step in reversed(range(9))] == forward[::-1]
    assert [draw.slot for batch in forward[3] for draw in batch] == [0, 1, 2, 3]


def test_prior_pictures_take_their_part_of_every_batch():
    settings = TrainSettings(batch_size=8, prior_fraction=0.25)
    plan = Plan(settings, make_items(10), [SQUARE] * 10, make_items(5, prior=True))
    for step in range(10):
        (batch,) = plan.step(step)
        assert [draw.item.prior for draw in batch] == [False] * 6 + [True] * 2


def test_with_batches_of_one_prior_pictures_take_their_part_of_the_steps():
    settings = TrainSettings(batch_size=1, prior_fraction=0.25)
    plan = Plan(settings, make_items(3), [SQUARE] * 3, make_items(5, prior=True))
    assert sum(plan.step(step)[0][0].item.prior for step in range(100)) == 25


def test_alternatives_in_braces_are_chosen_at_random_and_the_same_again():
    prompts = [expand("{red|blue} {big {star|heart}|dot}", 1, i) for i in range(40)]
    assert set(prompts) == {"red big star", "red big heart", "red dot", "blue big star", "blue big heart", "blue dot"}
    assert prompts == [expand("{red|blue} {big {star|heart}|dot}", 1, i) for i in range(40)]
