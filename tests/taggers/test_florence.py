from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.dataset.regions import Region
from engine.models.device import CpuDevice
from engine.models.manager import ModelManager
from taggers.captioner_module import WrongWeights
from taggers.florence import REGION_TASKS, TASKS, FlorenceTool
from taggers.florence_keys import added_words, native_name
from taggers.florence_reader import FlorenceReader
from taggers.florence_regions import regions_in
from taggers.folder import BrokenFolder, ModelFolder
from taggers.tool import About, Answer
from tests.taggers.tiny import _microsoft_name, write_florence

PICTURES = [Image.new("RGB", (100, 60), (250, 5, 5)), Image.new("RGB", (30, 80), (5, 5, 250))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("florence")
    return {"native": write_florence(root / "native"), "microsoft": write_florence(root / "ms", microsoft=True)}


def reader(folder: Path, **settings: Any) -> FlorenceReader:
    tool = FlorenceTool(model=folder.name, **{"task": "<CAPTION>", "max_new_tokens": 12, **settings})
    return FlorenceReader(ModelManager(CpuDevice()), ModelFolder(folder.name, folder), tool)


def module_of(opened: FlorenceReader) -> Any:
    with opened._manager.lease(opened._ref) as leased:
        return leased[opened._ref]


@pytest.mark.parametrize("layout", ["native", "microsoft"])
def test_a_batch_answers_as_each_picture_alone(folders: dict[str, Path], layout: str) -> None:
    opened = reader(folders[layout])
    prepared = [opened.prepare(picture) for picture in PICTURES]
    about = [About(), About()]
    together = opened.read(prepared, about)
    alone = [opened.read([one], about[:1])[0] for one in prepared]
    assert together == alone
    assert [answer.regions for answer in together] == [None, None]
    assert opened.provider == "CPU"


def test_a_seed_draws_the_same_words_in_whatever_batch_and_another_draws_others(folders: dict[str, Path]) -> None:
    about, texts = [About(key="a"), About(key="b")], []
    for seed in (0, 1):
        opened = reader(folders["native"], temperature=1.5, seed=seed, max_new_tokens=24)
        prepared = [opened.prepare(picture) for picture in PICTURES]
        together = opened.read(prepared, about)
        assert together == [opened.read([one], [who])[0] for one, who in zip(prepared, about, strict=True)]
        texts.append([answer.text for answer in together if isinstance(answer, Answer)])
    assert len(texts[0]) == 2 and texts[0] != texts[1]


@pytest.mark.parametrize("settings", [{}, {"num_beams": 1}, {"temperature": 1.0}])
def test_words_chosen_among_what_is_no_number_are_no_answer(
    folders: dict[str, Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(folders["native"], tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    weights["model.multi_modal_projector.image_proj_norm.bias"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    opened = reader(folder, **settings)
    found = opened.read([opened.prepare(picture) for picture in PICTURES], [About("a.png"), About("b.png")])
    assert [str(one).partition(" for ")[2][:5] for one in found] == ["a.png", "b.png"]


def test_microsofts_tokenizer_names_no_mark_and_has_them(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["microsoft"], tmp_path / "ms"))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    as_saved, as_published = (reader(place).encode(["a", "longer"]) for place in (folders["microsoft"], folder))
    assert as_published["input_ids"].tolist() == as_saved["input_ids"].tolist()
    assert as_published["attention_mask"].tolist() == as_saved["attention_mask"].tolist()


def test_the_picture_reaches_the_model(folders: dict[str, Path]) -> None:
    opened = reader(folders["native"])
    module = module_of(opened)
    inputs = opened.encode([opened._tool.asked()] * 2)
    pixels = np.stack([opened.prepare(picture) for picture in PICTURES]).transpose(0, 3, 1, 2) / 255.0
    start = torch.full((2, 1), 2)
    with torch.no_grad():
        logits = module(
            **inputs, pixel_values=torch.tensor(pixels, dtype=torch.float32), decoder_input_ids=start
        ).logits
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)


def test_words_and_pixels_are_those_of_the_models_own_processor(folders: dict[str, Path]) -> None:
    from transformers import Florence2Processor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    opened = reader(folders["native"])
    words = opened._tokenizer
    words.image_token, words.image_token_id = "<image>", words.convert_tokens_to_ids("<image>")
    own = Florence2Processor(CLIPImageProcessorPil.from_pretrained(folders["native"]), words)
    for task in ("<CAPTION>", "<OD>"):
        theirs = own(text=[task], images=[PICTURES[0]], return_tensors="pt")
        assert opened.encode([TASKS[task].question])["input_ids"].tolist() == theirs["input_ids"].tolist()
        from taggers.pixels import batch

        ours = batch([opened.prepare(PICTURES[0])], opened._pixels)
        assert np.allclose(ours, theirs["pixel_values"].numpy(), atol=1e-5)


def test_all_the_questions_are_those_of_transformers(folders: dict[str, Path]) -> None:
    from transformers import Florence2Processor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    opened = reader(folders["native"])
    words = opened._tokenizer
    words.image_token, words.image_token_id = "<image>", words.convert_tokens_to_ids("<image>")
    own = Florence2Processor(CLIPImageProcessorPil.from_pretrained(folders["native"]), words)
    for task, told in TASKS.items():
        about = " a cat" if "{text}" in told.question else ""
        about = " <loc_1><loc_2><loc_3><loc_4>" if task in REGION_TASKS else about
        asked = FlorenceTool(task=task, text=about.strip()).asked()  # type: ignore[arg-type]
        assert own._construct_prompts(f"{task}{about}") == [asked]


def test_microsofts_files_become_native_weight_by_weight(folders: dict[str, Path]) -> None:
    stored = load_file(folders["microsoft"] / "model.safetensors")
    module = module_of(reader(folders["microsoft"]))
    size = 5 + 256 + len(added_words())
    assert module.config.image_token_id == size
    seen = set()
    for name, weight in module.state_dict().items():
        theirs = stored.get(_microsoft_name(name))
        if theirs is None:  # tied to another name
            assert name.endswith(("embed_tokens.weight", "lm_head.weight", "shared.weight")) or "position_ids" in name
            continue
        seen.add(_microsoft_name(name))
        if name.endswith("image_projection.weight"):
            theirs = theirs.t()
        if len(weight) != len(theirs):  # the embedding, grown by the picture's place
            assert (len(weight) % 64, len(theirs)) == (0, size)
            weight = weight[: len(theirs)]
        assert torch.equal(weight, theirs), name
    assert set(stored) - seen == {"language_model.final_logits_bias"}


def test_a_weight_that_no_rule_knows_is_refused() -> None:
    with pytest.raises(KeyError):
        native_name("vision_tower2.blocks.0")


@pytest.mark.parametrize("layout", ["native", "microsoft"])
@pytest.mark.parametrize("what", ["missing", "left over", "another shape"])
def test_weights_that_do_not_fit_are_refused_and_never_random(
    folders: dict[str, Path], tmp_path: Path, layout: str, what: str
) -> None:
    import shutil

    folder = Path(shutil.copytree(folders[layout], tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "channel_block" in name and name.endswith("qkv.weight"))
    if what == "missing":
        del weights[name]
    elif what == "left over":
        weights["unknown.weight"] = torch.zeros(3)
    else:
        weights[name] = weights[name][:-1].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WrongWeights, match=what if what != "left over" else r"unknown\.weight|left over"):
        module_of(reader(folder))


def test_a_cut_off_or_missing_file_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(folders["native"], tmp_path / "copy"))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1000])
    from engine.weights.header import Truncated

    with pytest.raises(Truncated, match=r"model\.safetensors"):
        module_of(reader(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(BrokenFolder, match=r"no model\.safetensors"):
        reader(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    from engine.weights.header import PickleFile

    with pytest.raises(PickleFile):
        reader(folder)


@pytest.mark.parametrize(
    ("text", "gives", "expected"),
    [
        (
            "</s><s>cat<loc_10><loc_20><loc_30><loc_40><loc_1><loc_2><loc_3><loc_4>dog<loc_999><loc_999><loc_0><loc_0></s><pad>",
            "boxes",
            [
                Region("cat", "box", (0.0105, 0.0205, 0.0305, 0.0405)),
                Region("cat", "box", (0.0015, 0.0025, 0.0035, 0.0045)),
                Region("dog", "box", (0.0005, 0.0005, 0.9995, 0.9995)),
            ],
        ),
        ("<loc_1><loc_2><loc_3><loc_4>", "boxes", [Region("", "box", (0.0015, 0.0025, 0.0035, 0.0045))]),
        ("ein Mädchen<loc_1><loc_2><loc_3>", "grounding", []),
        (
            "SALE<loc_0><loc_0><loc_9><loc_0><loc_9><loc_9><loc_0><loc_9>",
            "quads",
            [Region("SALE", "quad", (0.0005, 0.0005, 0.0095, 0.0005, 0.0095, 0.0095, 0.0005, 0.0095))],
        ),
        (
            "hat<loc_0><loc_0><loc_9><loc_0><loc_9><loc_9><sep><loc_1><loc_1><loc_2><loc_2><loc_3><loc_3><loc_4>",
            "polygons",
            [
                Region("hat", "polygon", (0.0005, 0.0005, 0.0095, 0.0005, 0.0095, 0.0095)),
                Region("hat", "polygon", (0.0015, 0.0015, 0.0025, 0.0025, 0.0035, 0.0035)),
            ],
        ),
        (
            "red hat<poly><loc_0><loc_0><loc_9><loc_0><loc_9><loc_9></poly>",
            "boxes or polygons",
            [Region("red hat", "polygon", (0.0005, 0.0005, 0.0095, 0.0005, 0.0095, 0.0095))],
        ),
        ("", "boxes", []),
        ("a plain sentence", "grounding", []),
        ("x<loc_5000><loc_1><loc_2><loc_3>", "boxes", [Region("x", "box", (0.0025, 0.0015, 0.9995, 0.0035))]),
    ],
)
def test_coordinates_become_regions(text: str, gives: Any, expected: list[Region]) -> None:
    assert regions_in(text, gives) == expected


def test_boxes_are_those_of_transformers_own_parser(folders: dict[str, Path]) -> None:
    from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

    text = "<s>a cat<loc_10><loc_20><loc_30><loc_40><loc_1><loc_2><loc_30><loc_40>dog<loc_9><loc_9><loc_99><loc_99></s>"
    theirs = Florence2PostProcessor({"description_with_bboxes": {}}, reader(folders["native"])._tokenizer)(
        text=text, image_size=(1000, 1000), parse_tasks="description_with_bboxes"
    )["description_with_bboxes"]
    ours = regions_in(text, "boxes")
    assert [region.label for region in ours] == [one["cat_name"] for one in theirs]
    assert [[int(1000 * share) for share in region.points] for region in ours] == [one["bbox"] for one in theirs]


def test_a_region_is_asked_about_by_its_coordinates() -> None:
    tool = FlorenceTool(task="<REGION_TO_DESCRIPTION>", region=(0.0, 0.25, 1.0, 0.5))
    assert tool.asked() == "What does the region <loc_0><loc_250><loc_999><loc_500> describe?"


def test_an_answer_as_long_as_it_may_be_is_marked(folders: dict[str, Path]) -> None:
    opened = reader(folders["microsoft"], max_new_tokens=4)
    assert opened.read([opened.prepare(PICTURES[0])], [About()])[0].cut


@pytest.mark.parametrize("region", [None, (0.5, 0.0, 0.5, 1.0), (0.0, 0.9, 1.0, 0.1), (0.0, 0.0, 1.0, 1.01)])
def test_a_task_about_a_region_needs_one(region: Any) -> None:
    with pytest.raises(ValueError, match="region"):
        FlorenceTool(task="<REGION_TO_OCR>", region=region)
    by_hand = FlorenceTool(task="<REGION_TO_OCR>", text="<loc_0><loc_0><loc_500><loc_500>")
    assert by_hand.asked() == "What text is in the region <loc_0><loc_0><loc_500><loc_500>?"
