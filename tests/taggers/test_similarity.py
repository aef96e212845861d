from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.dataset.library import Library
from engine.dataset.pictures import scan
from engine.dataset.query import matching
from engine.dataset.view import View
from taggers.job import run
from taggers.reader import ScoresNotNumbers
from taggers.settings import TagSettings
from taggers.similarity import SimilarityTool
from tests.taggers.conftest import Context, paint
from tests.taggers.tiny import write_clip, write_siglip

TEXTS = ["a red card", "a green card " * 30, ""]


def test_the_score_of_picture_and_caption_is_a_number_to_filter_by_and_no_tag(ctx: Context) -> None:
    folder = write_siglip(ctx.workspace.models / "clip_vision" / "siglip")
    paint(ctx.workspace.datasets / "set", a="red", b="green", c="blue")
    with Library(ctx.workspace).open("set") as dataset:
        scan(dataset)
        ids = [picture.id for picture in dataset.store.pictures()]
        dataset.store.write_captions(dict(zip(ids, TEXTS, strict=True)), "edit")
    result = run(ctx, TagSettings(dataset="set", tools=(SimilarityTool(model="siglip"),)))
    assert (result["tagged"], result["provider"]) == (2, "CPU")
    assert [one["code"] for one in result["problems"].values()] == ["NoCaption"]

    from transformers import SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    from taggers.folder import ModelFolder
    from taggers.text_files import open_tokenizer

    words, pixels = open_tokenizer(ModelFolder("s", folder)), SiglipImageProcessorPil.from_pretrained(folder)
    with Library(ctx.workspace).open("set") as dataset:
        view = View(dataset.store)
        found = view.scores("similarity")
        for place, text in enumerate(TEXTS[:2]):
            image = Image.open(dataset.path(view.pictures()[place].path)).convert("RGB")
            told = words([text], padding="max_length", truncation=True, max_length=32, return_tensors="pt")
            seen = pixels(images=[image], return_tensors="pt")["pixel_values"]
            with torch.no_grad():
                out = SiglipModel.from_pretrained(folder)(input_ids=told["input_ids"], pixel_values=seen)
            assert found[place] == pytest.approx(float((out.image_embeds * out.text_embeds).sum()), abs=1e-4)
        assert np.isnan(found[2])
        assert [list(view.tags(picture.id)) for picture in view.pictures()] == [[], [], []]
        assert view.counts() == []
        middle = float(found[:2].mean())
        assert matching(view, f"score:similarity>{middle:.6f}").sum() == 1 if middle > 0 else True


def test_clip_compares_as_transformers_own_class_does(ctx: Context) -> None:
    folder = write_clip(ctx.workspace.models / "clip_vision" / "clip")
    place = ctx.workspace.datasets / "set"
    paint(place, a="red", b="green", c="blue")
    Image.new("RGB", (96, 64), "white").save(place / "d.png")  # its middle is what CLIP sees
    with Library(ctx.workspace).open("set") as dataset:
        scan(dataset)
        ids = [picture.id for picture in dataset.store.pictures()]
        dataset.store.write_captions(dict(zip(ids, [*TEXTS, "a wide card"], strict=True)), "edit")
    result = run(ctx, TagSettings(dataset="set", tools=(SimilarityTool(model="clip", batch_size=3),)))
    assert (result["tool"], result["tagged"]) == ("score:clip", 3)

    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model, pixels = CLIPModel.from_pretrained(folder), CLIPImageProcessorPil.from_pretrained(folder)
    words = CLIPTokenizer.from_pretrained(folder)
    with Library(ctx.workspace).open("set") as dataset:
        view = View(dataset.store)
        found = view.scores("similarity")
        assert np.isnan(found).tolist() == [False, False, True, False]
        for place, (picture, text) in enumerate(zip(view.pictures(), view.captions(), strict=True)):
            if not text:
                continue
            image = Image.open(dataset.path(picture.path)).convert("RGB")
            seen = pixels(images=[image], return_tensors="pt")["pixel_values"]
            told = words([text], truncation=True, max_length=24, return_tensors="pt")
            with torch.no_grad():
                out = model(**told, pixel_values=seen)
            assert found[place] == pytest.approx(float((out.image_embeds * out.text_embeds).sum()), abs=1e-4)


def test_a_caption_that_changed_is_compared_again(ctx: Context) -> None:
    write_siglip(ctx.workspace.models / "captioners" / "siglip")
    paint(ctx.workspace.datasets / "set", a="red")
    settings = TagSettings(dataset="set", tools=(SimilarityTool(model="siglip"),))
    scores = []
    for text in ("one", "something else"):
        with Library(ctx.workspace).open("set") as dataset:
            scan(dataset)
            dataset.store.write_captions({dataset.store.pictures()[0].id: text}, "edit")
        run(ctx, settings)
        with Library(ctx.workspace).open("set") as dataset:
            scores.append(float(View(dataset.store).scores("similarity")[0]))
    assert scores[0] != scores[1]


def test_pictures_without_a_caption_keep_nobody_from_being_compared(ctx: Context) -> None:
    write_siglip(ctx.workspace.models / "captioners" / "siglip")
    paint(ctx.workspace.datasets / "set", a="red", b="green", c="blue", d="red", e="green", f="blue")
    with Library(ctx.workspace).open("set") as dataset:
        scan(dataset)
        dataset.store.write_captions({dataset.store.pictures()[-1].id: "a card"}, "edit")
    settings = TagSettings(dataset="set", tools=(SimilarityTool(model="siglip", batch_size=1),))
    result = run(ctx, settings)
    assert (result["tagged"], {one["code"] for one in result["problems"].values()}) == (1, {"NoCaption"})
    # nothing is wrong with the files
    with Library(ctx.workspace).open("set") as dataset:
        assert scan(dataset).problems == {}
        dataset.store.write_captions({dataset.store.pictures()[-1].id: ""}, "edit")
    assert (run(ctx, settings)["tagged"], len(result["problems"])) == (0, 5)


def test_a_score_that_is_no_number_is_refused(ctx: Context) -> None:
    folder = write_siglip(ctx.workspace.models / "captioners" / "siglip")
    paint(ctx.workspace.datasets / "set", a="red")
    weights = load_file(folder / "model.safetensors")
    weights["text_model.head.bias"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with Library(ctx.workspace).open("set") as dataset:
        scan(dataset)
        dataset.store.write_captions({dataset.store.pictures()[0].id: "a card"}, "edit")
    with pytest.raises(ScoresNotNumbers, match=r"siglip .* a\.png"):
        run(ctx, TagSettings(dataset="set", tools=(SimilarityTool(model="siglip"),)))
