"""JoyCaption, Qwen-VL and MiniCPM-V at tiny size, in the layouts of their publishers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.models.device import CpuDevice
from engine.models.manager import ModelManager
from taggers.captioner_module import (
    SKIPPED,
    StoredQuantised,
    WronglyQuantised,
    WrongTypes,
    WrongWeights,
    check_quantised,
    count_quantised,
)
from taggers.chat_reader import ChatReader, StartTwice
from taggers.drawing import Drawn
from taggers.folder import BrokenFolder, ModelFolder
from taggers.joycaption import JoyCaptionTool, matrix, open_joycaption
from taggers.minicpm import MiniCpmTool, open_minicpm
from taggers.qwen_vl import QwenTool, TooNarrow, open_qwen
from taggers.reader import ScoresNotNumbers
from taggers.tool import About, Answer
from tests.taggers.tiny import write_joycaption, write_minicpm, write_qwen

KINDS: dict[str, tuple[Callable[[Path], Path], Callable[..., ChatReader], type[Any], dict[str, Any]]] = {
    "joycaption": (write_joycaption, open_joycaption, JoyCaptionTool, {}),
    "qwen2.5-vl": (lambda folder: write_qwen(folder, "2.5"), open_qwen, QwenTool, {"side": 112}),
    "qwen3-vl": (lambda folder: write_qwen(folder, "3"), open_qwen, QwenTool, {"side": 112}),
    "minicpm-v 4.6": (lambda folder: write_minicpm(folder, "4_6"), open_minicpm, MiniCpmTool, {"slices": 4}),
    "minicpm-v 4.7": (lambda folder: write_minicpm(folder, "4_7"), open_minicpm, MiniCpmTool, {"slices": 4}),
}
PICTURES = [Image.new("RGB", (100, 60), (250, 5, 5)), Image.effect_noise((60, 120), 90).convert("RGB")]
ABOUT = [About(key="a"), About(key="b")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("chat")
    return {name: write(root / name) for name, (write, _, _, _) in KINDS.items()}


def opened(name: str, folder: Path, **settings: Any) -> ChatReader:
    _, open_it, tool, usual = KINDS[name]
    wanted = tool(model=folder.name, **{"max_new_tokens": 10, "temperature": 0.0, **usual, **settings})
    return open_it(ModelManager(CpuDevice()), ModelFolder(folder.name, folder), wanted)


def module_of(reader: ChatReader) -> Any:
    with reader._manager.lease(reader._ref) as leased:
        return leased[reader._ref]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_batch_answers_as_each_picture_alone(folders: dict[str, Path], name: str, temperature: float) -> None:
    reader = opened(name, folders[name], temperature=temperature, top_p=0.9)
    prepared = [reader.prepare(picture) for picture in PICTURES]
    together = reader.read(prepared, ABOUT)
    alone = [reader.read([one], [about])[0] for one, about in zip(prepared, ABOUT, strict=True)]
    backwards = reader.read(prepared[::-1], ABOUT[::-1])[::-1]
    assert together == alone == backwards
    assert not temperature or together[0].text != together[1].text


@pytest.mark.parametrize("name", KINDS)
def test_the_picture_changes_the_next_word(folders: dict[str, Path], name: str) -> None:
    reader = opened(name, folders[name])
    blue = Image.new("RGB", PICTURES[0].size, (5, 5, 250))
    inputs = [reader.encode([reader.prepare(one)], ["?"]) for one in (PICTURES[0], blue)]
    assert inputs[0]["input_ids"].tolist() == inputs[1]["input_ids"].tolist()
    module, more = module_of(reader), dict(reader._habits.generate)
    with torch.no_grad():
        first, second = (module(**one, **more).logits[0, -1] for one in inputs)
    assert not torch.allclose(first, second, atol=1e-3)


def test_words_chosen_among_what_is_no_number_are_no_answer(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["joycaption"], tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    next(weights[key] for key in weights if "multi_modal_projector" in key).fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    reader = opened("joycaption", folder, temperature=0.6)
    found = reader.read([reader.prepare(picture) for picture in PICTURES], [About("a.png"), About("b.png")])
    assert [type(one) for one in found] == [ScoresNotNumbers, ScoresNotNumbers] and "a.png" in str(found[0])


def test_a_line_is_too_narrow_for_qwen_and_says_so(folders: dict[str, Path]) -> None:
    reader = opened("qwen2.5-vl", folders["qwen2.5-vl"])
    assert reader.prepare(Image.new("RGB", (1, 200))).width == 28
    with pytest.raises(TooNarrow, match="1 x 201"):
        reader.prepare(Image.new("RGB", (1, 201)))


@pytest.mark.slow
def test_another_seed_draws_other_words(folders: dict[str, Path]) -> None:
    texts = set()
    for seed in range(4):
        reader = opened("qwen3-vl", folders["qwen3-vl"], temperature=1.5, seed=seed)
        texts.add(reader.read([reader.prepare(PICTURES[0])], ABOUT[:1])[0].text)
    assert len(texts) == 4


def test_draws_follow_the_probabilities_and_top_p_cuts() -> None:
    scores = torch.log(torch.tensor([[0.6, 0.3, 0.1]])).repeat(4000, 1)
    keys = [str(n) for n in range(4000)]
    drawn = Drawn(0, keys, 1.0, 1.0, torch.device("cpu"))(torch.zeros(0), scores).argmax(1)
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([0.6, 0.3, 0.1]), atol=0.03)
    drawn = Drawn(0, keys, 1.0, 0.85, torch.device("cpu"))(torch.zeros(0), scores).argmax(1)
    assert torch.bincount(drawn, minlength=3)[2] == 0


def test_joycaption_has_exactly_one_start_word(folders: dict[str, Path], tmp_path: Path) -> None:
    reader = opened("joycaption", folders["joycaption"])
    ids = reader.encode([reader.prepare(PICTURES[0])], ["Write."])["input_ids"]
    assert int((ids == reader.processor.tokenizer.bos_token_id).sum()) == 1
    text = reader._text("Write.")
    assert text.startswith(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful image captioner."
    )
    # what the tokenizer does when it is not told otherwise
    assert len([n for n in reader.processor.tokenizer(text)["input_ids"] if n == ids[0, 0]]) == 2
    for starts in (0, 2):
        reader.processor.chat_template = None
        reader.processor.tokenizer.chat_template = "{{ bos_token }}" * starts + "<|reserved_special_token_69|>hello"
        with pytest.raises(StartTwice, match=f"{starts} start words"):
            reader.encode([reader.prepare(PICTURES[0])], ["Write."])


def test_joycaption_sees_the_picture_squashed_with_lanczos(folders: dict[str, Path]) -> None:
    reader = opened("joycaption", folders["joycaption"])
    prepared = reader.prepare(PICTURES[1])
    assert prepared.tobytes() == PICTURES[1].resize((56, 56), Image.Resampling.LANCZOS).tobytes()
    values = reader.encode([prepared], ["?"])["pixel_values"][0]
    expected = torch.tensor(list(prepared.tobytes())).view(56, 56, 3).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(values, expected, atol=1e-4)


def test_the_whole_matrix_of_joycaption_makes_prompts() -> None:
    assert (len(matrix().types), len(matrix().options), len(matrix().all_lengths())) == (12, 27, 31)
    for kind in matrix().types:
        for length in matrix().all_lengths():
            everything = tuple(option.name for option in matrix().options)
            text = JoyCaptionTool(type=kind.name, length=length, options=everything, person="Ada").asked()  # type: ignore[arg-type]
            assert "{" not in text and "Ada" in text
            assert length == "any" or length in text
    tool = JoyCaptionTool(type="Descriptive", length="60", options=("lighting", "no text"))
    assert tool.asked() == (
        "Write a detailed description for this image in 60 words or less. Include information about lighting. "
        "Do NOT mention any text that is in the image."
    )
    assert JoyCaptionTool(length="very long").asked() == "Write a very long detailed description for this image."
    assert JoyCaptionTool(prompt=" Only colours. ").asked() == "Only colours."
    for wrong in ({"length": "61"}, {"options": ("lightning",)}, {"type": "Poem"}):
        with pytest.raises(ValueError):
            JoyCaptionTool(**wrong)  # type: ignore[arg-type]


def test_a_tag_list_of_joycaption_is_kept_as_tags(folders: dict[str, Path]) -> None:
    reader = opened("joycaption", folders["joycaption"], type="Danbooru tag list")
    assert reader.origin().tool == "tagger:joycaption"
    assert reader.read([reader.prepare(PICTURES[0])], ABOUT[:1])[0].tags is not None
    assert opened("joycaption", folders["joycaption"]).origin().tool == "captioner:joycaption"


def test_positions_of_pictures_in_the_text_reach_qwen(folders: dict[str, Path]) -> None:
    reader = opened("qwen3-vl", folders["qwen3-vl"])
    inputs = reader.encode([reader.prepare(one) for one in PICTURES], ["?", "Describe this."])
    places = inputs["input_ids"] == reader.processor.image_token_id
    assert torch.equal(inputs["mm_token_type_ids"] == 1, places) and places.any(1).all()


def test_a_picture_is_scaled_beside_the_model_as_its_processor_would(folders: dict[str, Path]) -> None:
    for name in ("qwen2.5-vl", "qwen3-vl"):
        reader = opened(name, folders[name])
        large = Image.effect_noise((400, 300), 90).convert("RGB")
        whole, shrunk = (reader.encode([one], ["?"]) for one in (large, reader.prepare(large)))
        assert torch.equal(whole["image_grid_thw"], shrunk["image_grid_thw"])
        assert torch.allclose(whole["pixel_values"], shrunk["pixel_values"], atol=1e-5)
        assert reader.prepare(large).width * reader.prepare(large).height <= 112 * 112


def test_minicpm_keeps_more_places_in_detail(folders: dict[str, Path]) -> None:
    name = "minicpm-v 4.6"
    places = []
    for detail in ("16x", "4x"):
        reader = opened(name, folders[name], detail=detail)
        square = Image.new("RGB", (56, 56), (250, 5, 5))
        places.append(int((reader.encode([square], ["?"])["input_ids"] == reader.processor.image_token_id).sum()))
        assert reader.read([square], ABOUT[:1])[0].text
    assert places[1] == 4 * places[0]


def test_an_answer_may_be_begun_for_the_model(folders: dict[str, Path]) -> None:
    reader = opened("qwen2.5-vl", folders["qwen2.5-vl"], start_with="A photo of")
    assert reader._text("?").endswith("assistant\nA photo of")
    assert reader.read([reader.prepare(PICTURES[0])], ABOUT[:1])[0].text.startswith("A photo of")


def test_thoughts_are_no_caption(folders: dict[str, Path]) -> None:
    reader = opened("qwen3-vl", folders["qwen3-vl"])
    words = reader.processor.tokenizer
    ids = words("<think>it is red</think>\n\nA red card.", return_tensors="pt")["input_ids"][0]
    assert reader._answer(ids).text == "A red card."
    unfinished = reader._answer(words("<think>it is", return_tensors="pt")["input_ids"][0])
    assert (unfinished.text, unfinished.cut) == ("", True)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("what", ["missing", "left over", "another shape"])
def test_weights_that_do_not_fit_are_refused_and_never_random(
    folders: dict[str, Path], tmp_path: Path, name: str, what: str
) -> None:
    folder = Path(shutil.copytree(folders[name], tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in sorted(weights) if key.endswith("mlp.down_proj.weight"))
    if what == "missing":
        del weights[key]
    elif what == "left over":
        weights["unknown.weight"] = torch.zeros(3)
    else:
        weights[key] = weights[key][:-1].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WrongWeights, match=what):
        module_of(opened(name, folder))


def test_a_folder_without_tokenizer_or_with_a_shard_missing_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["qwen3-vl"], tmp_path / "copy"))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BrokenFolder, match="model-00001-of-00002"):
        opened("qwen3-vl", folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BrokenFolder, match=r"no tokenizer\.json"):
        opened("qwen3-vl", folder)


def test_a_tokenizer_of_another_model_is_named_before_its_words_are_looked_up(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["qwen3-vl"], tmp_path / "copy"))
    told = json.loads((folder / "tokenizer.json").read_text())
    told["model"]["vocab"]["a"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(told))
    reader = opened("qwen3-vl", folder)
    with pytest.raises(BrokenFolder, match="word number 5000, but the model only 300 words"):
        reader.read([reader.prepare(PICTURES[0])], ABOUT[:1])


def test_weights_that_were_quantised_elsewhere_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["qwen3-vl"], tmp_path / "copy"))
    told = json.loads((folder / "config.json").read_text())

    def stored(method: str, **settings: Any) -> ChatReader:
        quantised = {**told, "quantization_config": {"quant_method": method}}
        (folder / "config.json").write_text(json.dumps(quantised))
        return opened("qwen3-vl", folder, **settings)

    with pytest.raises(StoredQuantised, match=r"quantised \(fp8\), which is not read here"):
        stored("fp8")
    with pytest.raises(StoredQuantised, match="has to be none, not nf4"):
        stored("bitsandbytes", quantise="nf4")
    (folder / "config.json").write_text(json.dumps(told))
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if key.endswith("down_proj.weight"))
    save_file({**weights, key: weights[key].to(torch.int32)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WrongTypes, match="stored as I32"):
        module_of(opened("qwen3-vl", folder))


@pytest.mark.slow
def test_what_bitsandbytes_stored_is_read_as_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = Path(shutil.copytree(folders["qwen2.5-vl"], tmp_path / "copy"))
    module_of(opened("qwen2.5-vl", folder, quantise="int8")).save_pretrained(folder)
    reader = opened("qwen2.5-vl", folder)
    inside, quantised, outside = count_quantised(module_of(reader))
    assert (quantised, outside) == (inside, 0) and inside >= 8
    assert isinstance(reader.read([reader.prepare(PICTURES[0])], ABOUT[:1])[0], Answer)


def test_a_fingerprint_follows_the_content_and_not_the_name(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["qwen3-vl"], tmp_path / "copy"))
    before = ModelFolder("a", folders["qwen3-vl"]).version()
    assert ModelFolder("b", folder).version() == before
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert ModelFolder("b", folder).version() != before


@pytest.mark.slow
@pytest.mark.parametrize("quantise", ["nf4", "int8"])
@pytest.mark.parametrize("name", ["joycaption", "qwen2.5-vl", "minicpm-v 4.6"])
def test_only_the_language_model_is_quantised(folders: dict[str, Path], name: str, quantise: str) -> None:
    pytest.importorskip("bitsandbytes")
    reader = opened(name, folders[name], quantise=quantise)
    module = module_of(reader)
    inside, quantised, outside = count_quantised(module)
    assert (quantised, outside) == (inside, 0) and inside >= 8
    if (name, quantise) != ("minicpm-v 4.6", "nf4"):  # bitsandbytes on a CPU wants layers of 32 and more
        assert reader.read([reader.prepare(PICTURES[0])], ABOUT[:1])[0].text


def test_a_quantisation_that_missed_or_went_too_far_is_refused() -> None:
    class Linear4bit(torch.nn.Linear):
        pass

    def model(inside: type[torch.nn.Linear], sees: type[torch.nn.Linear]) -> torch.nn.Module:
        return torch.nn.ModuleDict(
            {
                "language_model": torch.nn.ModuleDict({"q_proj": inside(2, 2), "k_proj": Linear4bit(2, 2)}),
                "vision_tower": torch.nn.ModuleDict({"q_proj": sees(2, 2)}),
                "lm_head": torch.nn.Linear(2, 2),
            }
        )

    check_quantised("m", model(Linear4bit, torch.nn.Linear))
    with pytest.raises(WronglyQuantised, match="2 layers 1 were quantised, and 0 outside"):
        check_quantised("m", model(torch.nn.Linear, torch.nn.Linear))
    with pytest.raises(WronglyQuantised, match="2 layers 2 were quantised, and 1 outside"):
        check_quantised("m", model(Linear4bit, Linear4bit))


def test_the_skip_list_names_every_part_that_sees() -> None:
    from transformers.quantizers.quantizers_utils import should_convert_module

    for name in (
        *("model.vision_tower.encoder.layers.0.self_attn.q_proj", "model.multi_modal_projector.linear_1", "lm_head"),
        *("model.visual.blocks.0.attn.qkv", "model.visual.merger.mlp.0", "model.merger.mlp.0"),
    ):
        assert not should_convert_module(name, list(SKIPPED)), name
    assert should_convert_module("model.language_model.layers.0.self_attn.q_proj", list(SKIPPED))
