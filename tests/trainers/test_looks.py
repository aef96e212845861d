"""Pictures as steps show them: crops, masks and variants together, in the cache, in the loss and in the look job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engine.dataset.library import Library
from engine.dataset.masks import set_crop, set_mask
from engine.dataset.pictures import scan
from engine.workspace import Workspace
from tests.trainers.conftest import Context, tiny_settings
from trainers import job, look
from trainers.augment import Variant
from trainers.buckets import Bucket
from trainers.cache import Masks
from trainers.data import Item, Plan, freeze, read_dataset, thaw
from trainers.looks import Look, look_at, look_at_mask
from trainers.settings import LookSettings, TrainSettings


@pytest.fixture
def item(tmp_path: Path) -> Item:
    """Red on the left, blue on the right; the mask is white on the left."""
    image = Image.new("RGB", (80, 40), "blue")
    image.paste((255, 0, 0), (0, 0, 40, 40))
    image.save(tmp_path / "a.png")
    mask = Image.new("L", (40, 20), 0)
    mask.paste(255, (0, 0, 20, 20))
    mask.save(tmp_path / "mask.png")
    return Item("a", str(tmp_path / "a.png"), 80, 40, "a card", mask=str(tmp_path / "mask.png"))


def test_a_mask_follows_its_picture(item: Item) -> None:
    size = Bucket(64, 32)
    for shown in (Look(size), Look(size, flip=True), Look(size, variant=Variant(zoom=1.5))):
        red = np.asarray(look_at(item, shown))[..., 0].astype(int)
        mask = look_at_mask(item, shown)
        assert mask is not None and np.abs(red - np.asarray(mask)).mean() < 8


def test_a_crop_is_all_there_is(item: Item) -> None:
    cut = Item("a", item.path, 40, 40, "", crop=(40, 0, 80, 40), whole=(80, 40), mask=item.mask)
    plain = Look(Bucket(32, 32))
    assert np.unique(np.asarray(look_at(cut, plain)).reshape(-1, 3), axis=0).tolist() == [[0, 0, 255]]
    mask = look_at_mask(cut, plain)
    assert mask is not None and np.asarray(mask)[:, 2:].max() < 100


def test_weights_of_a_mask_have_the_mean_one_and_leave_the_rest_its_share(item: Item) -> None:
    weights = Masks(8, unmasked_weight=0.25).get(item, Look(Bucket(64, 32)))
    assert weights is not None and weights.shape == (1, 4, 8)
    assert abs(float(weights.mean()) - 1) < 1e-6
    assert float(weights[0, 0, 0] / weights[0, 0, 7]) == pytest.approx(4, rel=0.01)
    assert Masks(8, 0.25).get(Item("b", "", 1, 1, ""), Look(Bucket(8, 8))) is None


def test_a_mask_that_leaves_nothing_counts_everywhere(item: Item, tmp_path: Path) -> None:
    Image.new("L", (40, 20), 0).save(tmp_path / "mask.png")
    weights = Masks(8, unmasked_weight=0.0).get(item, Look(Bucket(64, 32)))
    assert weights is not None and torch.equal(weights, torch.ones(1, 4, 8))


def test_a_plan_draws_variants_only_when_asked_and_never_of_prior_pictures() -> None:
    items = [Item(str(i), f"{i}.png", 64, 64, "x") for i in range(4)]
    prior = [Item("p", "", 64, 64, "y", prior=True)]
    buckets = [Bucket(64, 64)] * 4
    settings = TrainSettings(batch_size=2, augment_rotation=5, augment_variants=3, prior_fraction=0.5)
    draws = [draw for step in range(40) for batch in Plan(settings, items, buckets, prior).step(step) for draw in batch]
    assert {draw.variant for draw in draws if not draw.item.prior} == {1, 2, 3}
    assert {draw.variant for draw in draws if draw.item.prior} == {0}
    plain = Plan(TrainSettings(), items, buckets, [])
    assert {draw.variant for step in range(9) for batch in plain.step(step) for draw in batch} == {0}


def named(workspace: Workspace, *, drawn: bool = True) -> None:
    """A dataset by name with two pictures; one has a crop, one a mask."""
    with Library(workspace).create("drawn") as dataset:
        for i, colour in enumerate(("red", "green")):
            Image.new("RGB", (64, 48), colour).save(dataset.root / f"{i}.png")
        scan(dataset)
        first, second = dataset.store.pictures()
        dataset.store.decide([(first.id, "red", 1), (second.id, "green", 1)], "Tags")
        if drawn:
            set_crop(dataset, first, (0, 0, 32, 48), "Crop")
            mask = Image.new("L", (64, 48), 0)
            mask.paste(255, (0, 0, 32, 48))
            set_mask(dataset, second, mask, "Mask")


def test_what_is_drawn_on_a_dataset_reaches_the_run_and_is_frozen_with_it(workspace: Workspace, tmp_path: Path) -> None:
    named(workspace)
    items = {item.caption: item for item in read_dataset(workspace, "drawn")}
    red, green = items["red"], items["green"]
    assert (red.crop, red.width, red.height, red.whole, red.mask) == ((0, 0, 32, 48), 32, 48, (64, 48), "")
    assert green.crop is None and Path(green.mask).is_file()
    freeze([red, green], tmp_path / "frozen.json")
    assert thaw(tmp_path / "frozen.json") == [red, green]


def trained(workspace: Workspace, registry, **changes) -> dict[str, torch.Tensor]:
    ctx = Context(workspace, registry, str(sorted(changes.items())))
    name = f"run{len(list(workspace.runs.iterdir()))}"
    job.run(ctx, tiny_settings(workspace, dataset="drawn", name=name, steps=2, **changes))
    return load_file(workspace.models / "loras" / f"{name}.safetensors")


def differs(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


def test_masks_and_variants_change_what_is_learned_and_runs_repeat_themselves(workspace: Workspace, registry) -> None:
    named(workspace)
    masked = trained(workspace, registry)
    assert not differs(masked, trained(workspace, registry))
    assert differs(masked, trained(workspace, registry, masked_loss=False))
    turned = trained(workspace, registry, augment_rotation=20, augment_variants=2)
    assert differs(masked, turned)
    assert not differs(turned, trained(workspace, registry, augment_rotation=20, augment_variants=2))


def test_a_look_shows_what_a_training_would_see(workspace: Workspace, registry) -> None:
    named(workspace)
    ctx = Context(workspace, registry)
    train = tiny_settings(workspace, flip=True, shuffle_caption=True, caption_dropout=0.5, augment_scale=0.5)
    found = look.run(ctx, LookSettings(dataset="drawn", train=train, count=12))
    samples = found["samples"]
    assert len(samples) == 12
    plan_items = read_dataset(workspace, "drawn", "zz")
    assert {sample["whole_caption"] for sample in samples} == {item.caption for item in plan_items}
    assert {bool(sample["caption"]) for sample in samples} == {True, False}
    assert {sample["flip"] for sample in samples} == {True, False}
    assert all(sample["tokens"].keys() == {"l"} for sample in samples)
    assert all(sample["tokens"]["l"] > 0 for sample in samples if sample["caption"])
    for sample in samples:
        picture = Image.open(workspace.temp / sample["subfolder"] / sample["file"])
        assert picture.size == (sample["width"], sample["height"])
        assert bool(sample["mask"]) == ("green" in sample["whole_caption"])
        assert sample["crop"] == ("red" in sample["whole_caption"])
    later = look.run(ctx, LookSettings(dataset="drawn", train=train, count=2, start=found["next"]))
    assert later["samples"][0]["step"] == found["next"]


def test_a_look_needs_no_model_and_names_pictures_that_are_gone(workspace: Workspace, registry) -> None:
    named(workspace, drawn=False)
    train = TrainSettings(resolution=32, bucket_step=16)
    ctx = Context(workspace, registry)
    ctx.progress = lambda *_, phase="", **__: phase == "look" and (workspace.datasets / "drawn" / "0.png").unlink(True)  # type: ignore[assignment]
    samples = look.run(ctx, LookSettings(dataset="drawn", train=train, count=4))["samples"]
    assert {sample.get("error", {}).get("code") for sample in samples} == {None, "PictureGone"}
