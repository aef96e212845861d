"""Every kind of tagger against a synthetic ONNX with its contract: three tags follow red, green and blue."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from engine.models.device import CpuDevice
from engine.workspace import Workspace
from taggers.catalogue import TAGGERS, tagger
from taggers.contract import WrongShape, contract
from taggers.described import WrongDescription
from taggers.onnx_tagger import (
    RunFailed,
    ScoresNotNumbers,
    WrongOutputKind,
    open_session,
    refuse_broken,
    scores,
    version_of,
)
from taggers.pixels import load
from taggers.spec import TaggerSpec, WrongVocabulary
from taggers.wd import WD, WD_MODELS
from tests.taggers.conftest import COLOURS
from tests.taggers.synthetic import write_model, write_wd

NAMES = ("red_theme", "green_theme", "blue_theme", "rating_safe")


def pixai_csv(folder: Path) -> None:
    rows = "".join(f"{i},{i},{name},0,1\n" for i, name in enumerate(NAMES[:3]))
    (folder / "selected_tags.csv").write_text(f"id,tag_id,name,category,count\n{rows}3,3,safe,9,1\n")


def camie_json(folder: Path) -> None:
    mapping = {
        "idx_to_tag": {str(i): name for i, name in enumerate(NAMES)},
        "tag_to_category": {**dict.fromkeys(NAMES[:3], "general"), NAMES[3]: "rating"},
    }
    (folder / "camie-tagger-v2-metadata.json").write_text(json.dumps({"dataset_info": {"tag_mapping": mapping}}))


def cl_json(folder: Path) -> None:
    rows = {str(i): {"tag": name, "category": "General" if i < 3 else "Rating"} for i, name in enumerate(NAMES)}
    (folder / "tag_mapping.json").write_text(json.dumps(rows))


def joytag_txt(folder: Path) -> None:
    (folder / "top_tags.txt").write_text("\n".join(NAMES) + "\n")


KINDS: dict[str, tuple[int, Callable[[Path], None], tuple[str, ...]]] = {
    "pixai-v0.9": (48, pixai_csv, ("logits", "embedding", "output")),
    "pixai-v1.0": (1008, pixai_csv, ("output",)),
    "camie-v2": (48, camie_json, ("initial_predictions", "refined_predictions")),
    "cl_tagger": (48, cl_json, ("output",)),
    "joytag": (48, joytag_txt, ("tags",)),
}


def write_kind(workspace: Workspace, name: str, folder: str = "kind") -> Path:
    """The model of a kind: its input undone to colours 0..1, 12 x colour - 6 as logits."""
    spec = next(spec for spec in TAGGERS if spec.name == name)
    size, write_words, outputs = KINDS[name]
    place = workspace.models / "taggers" / folder
    place.mkdir(parents=True)
    write_words(place)
    mean, std = np.array(spec.pixels.mean, np.float32), np.array(spec.pixels.std, np.float32)
    weight, bias = np.zeros((3, 4), np.float32), np.full(4, -6, np.float32)
    for channel in range(3):
        tag = channel if spec.pixels.channels == "RGB" else 2 - channel
        weight[channel, tag] = 12 * std[channel]
        bias[tag] += 12 * mean[channel]
    write_model(
        place / "model.onnx",
        weight,
        bias,
        ["batch", 3, size, size],
        axes=[2, 3],
        sigmoid=spec.output == "probability",
        outputs=outputs,
    )
    return place


def read(workspace: Workspace, pictures: list[Path], folder: str = "kind") -> np.ndarray:
    model = contract(tagger(workspace, folder))
    session = open_session(tagger(workspace, folder).file, CpuDevice(), threads=1)
    return scores(session, model, [load(p, model.spec.pixels, model.size) for p in pictures])


@pytest.mark.parametrize("name", KINDS)
def test_the_kind_is_recognised_and_its_tags_follow_the_colours(
    workspace: Workspace, tmp_path: Path, name: str
) -> None:
    write_kind(workspace, name)
    assert tagger(workspace, "kind").spec().name == name
    for colour, rgb in COLOURS.items():
        Image.new("RGB", (60, 60), rgb).save(tmp_path / f"{colour}.png")
    found = read(workspace, [tmp_path / f"{colour}.png" for colour in COLOURS])
    high, low = 1 / (1 + np.exp(-(12 * 250 / 255 - 6))), 1 / (1 + np.exp(-(12 * 5 / 255 - 6)))
    assert np.allclose(found[:, :3], np.where(np.eye(3) > 0, high, low), atol=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_the_padding_has_the_colour_of_the_contract(workspace: Workspace, tmp_path: Path, name: str) -> None:
    write_kind(workspace, name)
    spec = tagger(workspace, "kind").spec()
    Image.new("RGB", (60, 30), (0, 0, 0)).save(tmp_path / "wide.png")
    logits = np.log(1 / (1 / read(workspace, [tmp_path / "wide.png"])[0, :3].astype(np.float64) - 1))
    padding = (0, 0, 0) if spec.pixels.fit == "squash" else spec.pixels.pad_colour
    assert np.allclose((logits + 6) / 12 * 255, np.array(padding) / 2, atol=1.5)


def test_every_kind_has_thresholds_for_all_its_categories_and_a_licence() -> None:
    for spec in TAGGERS:
        assert spec.thresholds["general"] > 0 and spec.licence and spec.sources
    assert {spec.name: spec.licence for spec in TAGGERS}["camie-v2"] == "GPL-3.0"


def test_ratings_have_names_of_their_own(workspace: Workspace) -> None:
    write_kind(workspace, "camie-v2")
    assert contract(tagger(workspace, "kind")).words.names[3] == "rating:safe"


@pytest.mark.parametrize("name", KINDS)
def test_a_tag_list_that_is_too_short_is_refused(workspace: Workspace, name: str, monkeypatch) -> None:
    place = write_kind(workspace, name)
    monkeypatch.setattr("tests.taggers.test_kinds.NAMES", NAMES[:2])
    KINDS[name][1](place) if name != "camie-v2" else (place / "camie-tagger-v2-metadata.json").write_text(
        json.dumps({"idx_to_tag": {"0": "a"}, "tag_to_category": {"a": "general"}})
    )
    with pytest.raises(WrongShape, match="the tag list has"):
        contract(tagger(workspace, "kind"))


def test_words_with_gaps_or_no_json_are_refused(workspace: Workspace) -> None:
    place = write_kind(workspace, "cl_tagger")
    for text, words in (
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"0": {"tag": "a"}}', "KeyError"),
        ("{}", "gaps"),
    ):
        (place / "tag_mapping.json").write_text(text)
        with pytest.raises(WrongVocabulary, match=words):
            contract(tagger(workspace, "kind"))


def test_a_missing_output_is_named(workspace: Workspace) -> None:
    place = write_kind(workspace, "cl_tagger")
    (place / "tagger.toml").write_text('kind = "camie-v2"\n')
    camie_json(place)
    with pytest.raises(WrongShape, match="no output refined_predictions, only output"):
        contract(tagger(workspace, "kind"))


def test_a_model_may_be_described_beside_it(workspace: Workspace, tmp_path: Path) -> None:
    place = write_wd(workspace.models / "taggers" / "own")
    (place / "tagger.toml").write_text(
        'kind = "wd"\nthresholds = { general = 0.6 }\n[pixels]\nchannels = "RGB"\nfit = "squash"\n'
    )
    spec: TaggerSpec = tagger(workspace, "own").spec()
    assert (spec.pixels.channels, spec.pixels.fit, spec.pixels.layout) == ("RGB", "squash", "NHWC")
    assert (spec.thresholds["general"], spec.thresholds["character"]) == (0.6, 0.85)
    Image.new("RGB", (60, 60), COLOURS["red"]).save(tmp_path / "red.png")
    assert read(workspace, [tmp_path / "red.png"], "own")[0, 6] > 0.9  # blue_theme, as told


def test_a_description_with_a_mistake_says_which(workspace: Workspace) -> None:
    place = write_wd(workspace.models / "taggers" / "own")
    (place / "tagger.toml").write_text('kind = "wd"\nouput = "logit"\n')
    with pytest.raises(WrongDescription, match="output"):
        tagger(workspace, "own").spec()
    (place / "tagger.toml").write_text('kind = "wd14"\n')
    with pytest.raises(WrongDescription, match="wd14"):
        tagger(workspace, "own").spec()


def write_open(folder: Path, shape: list, *, count: int = 4, output: float = 0.0) -> Path:
    """A model with any input shape whose every score is `output`."""
    axes = [axis for axis, side in enumerate(shape) if axis and side != 3]
    write_model(
        folder / "model.onnx",
        np.zeros((3, count), np.float32),
        np.full(count, output, np.float32),
        shape,
        axes=axes,
        sigmoid=False,
    )
    return folder


@pytest.mark.parametrize("model", WD_MODELS, ids=lambda spec: spec.name)
def test_every_wd_model_is_known_by_its_folder_and_has_its_own_row(workspace: Workspace, model: TaggerSpec) -> None:
    write_wd(workspace.models / "taggers" / f"SmilingWolf_{model.name}")
    found = tagger(workspace, f"SmilingWolf_{model.name}").spec()
    assert (found.name, found.sources) == (model.name, (f"SmilingWolf/{model.name}",))
    assert (found.pixels, found.thresholds) == (WD.pixels, WD.thresholds)


def test_a_published_balance_is_offered_and_not_taken(workspace: Workspace) -> None:
    presets = {spec.name: spec.presets for spec in TAGGERS}
    assert presets["wd-eva02-large-tagger-v3"] == {"precision = recall": {"general": 0.5296}}
    assert presets["pixai-v0.9"]["endpoint"]["character"] == 0.85


def test_gated_models_and_licences_are_named() -> None:
    assert [spec.name for spec in TAGGERS if spec.gated] == ["pixai-v0.9"]
    assert {spec.licence for spec in TAGGERS} == {"Apache-2.0", "GPL-3.0"}


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (["batch", 3, 48, 64], "not square"),
        (["batch", 3, 48], "not NCHW"),
        (["batch", 48, 48, 3], "not NCHW"),
    ],
)
def test_inputs_of_another_shape_are_refused(workspace: Workspace, shape: list, reason: str) -> None:
    place = write_kind(workspace, "cl_tagger")
    (place / "tagger.toml").write_text('kind = "cl_tagger"\n')
    write_open(place, shape)
    with pytest.raises(WrongShape, match=reason):
        contract(tagger(workspace, "kind"))


def test_an_open_side_gets_the_size_of_the_kind(workspace: Workspace) -> None:
    place = write_kind(workspace, "cl_tagger")
    write_open(place, ["batch", 3, "height", "width"])
    assert contract(tagger(workspace, "kind")).size == 448


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", KINDS)
def test_scores_that_are_not_numbers_name_the_model_and_the_picture(
    workspace: Workspace, name: str, value: float
) -> None:
    place = write_kind(workspace, name)
    spec = tagger(workspace, "kind").spec()
    bias = np.zeros(4, np.float32)
    bias[2] = value
    size, _, outputs = KINDS[name]
    shape = ["batch", 3, size, size]
    write_model(
        place / "model.onnx",
        np.zeros((3, 4), np.float32),
        bias,
        shape,
        axes=[2, 3],
        sigmoid=spec.output == "probability" and not np.isinf(value),
        outputs=outputs,
    )
    model = contract(tagger(workspace, "kind"))
    session = open_session(tagger(workspace, "kind").file, CpuDevice(), threads=1)
    found = scores(session, model, [np.zeros((size, size, 3), np.uint8)])
    with pytest.raises(ScoresNotNumbers, match=r"kind .* a\.png"):
        refuse_broken(model, found, ["a.png"])


def test_logits_where_probabilities_are_expected_are_told_apart(workspace: Workspace) -> None:
    place = write_wd(workspace.models / "taggers" / "own")
    write_open(place, ["batch", 32, 32, 3], count=11, output=-6.0)
    model = contract(tagger(workspace, "own"))
    with pytest.raises(WrongOutputKind, match='output = "logit"'):
        refuse_broken(model, np.full((1, 11), -6.0), ["a.png"])


def test_a_sigmoid_of_probabilities_is_told_apart(workspace: Workspace) -> None:
    place = write_kind(workspace, "joytag")
    (place / "top_tags.txt").write_text("\n".join(f"tag{i}" for i in range(100)))
    write_open(place, ["batch", 3, 48, 48], count=100)
    model = contract(tagger(workspace, "kind"))
    with pytest.raises(WrongOutputKind, match='output = "probability"'):
        refuse_broken(model, np.full((2, 100), 0.51), ["a.png", "b.png"])
    refuse_broken(model, np.full((2, 100), 0.49), ["a.png", "b.png"])


def test_a_graph_that_wants_more_than_a_picture_is_refused(workspace: Workspace) -> None:
    place = write_kind(workspace, "joytag")
    model = onnx.load(place / "model.onnx")
    model.graph.input.append(onnx.helper.make_tensor_value_info("prompt", onnx.TensorProto.INT64, [1]))
    onnx.save(model, place / "model.onnx")
    with pytest.raises(WrongShape, match="input, prompt, not a picture alone"):
        contract(tagger(workspace, "kind"))


def test_a_side_that_is_fixed_inside_the_graph_is_named_when_it_runs(workspace: Workspace, tmp_path: Path) -> None:
    place = write_kind(workspace, "joytag")
    model = onnx.load(place / "model.onnx")
    for dimension, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
        dimension.dim_param = name
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 3, 48, 48]), "fixed"))
    model.graph.node.insert(0, onnx.helper.make_node("Reshape", ["input", "fixed"], ["shaped"]))
    model.graph.node[1].input[0] = "shaped"
    onnx.save(model, place / "model.onnx")
    Image.new("RGB", (60, 30)).save(tmp_path / "a.png")
    with pytest.raises(RunFailed, match="1 pictures of 3 x 448 x 448"):
        read(workspace, [tmp_path / "a.png"])


def test_weights_in_a_file_of_their_own_are_part_of_what_a_model_is(workspace: Workspace) -> None:
    file = write_kind(workspace, "joytag") / "model.onnx"
    alone = version_of(file)
    (file.parent / "model_fp16.onnx").write_bytes(b"another model")
    assert version_of(file) == alone
    versions = {alone}
    for weights in (b"one tuning", b"another"):
        (file.parent / "model.onnx.data").write_bytes(weights)
        versions.add(version_of(file))
    assert len(versions) == 3
