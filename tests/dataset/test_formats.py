from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from engine.dataset.captions import CaptionRules
from engine.dataset.export import set_rules
from engine.dataset.formats import FILES, Format, WrongMetadata, export_file, import_file
from engine.dataset.library import Dataset
from engine.dataset.query import matching
from engine.dataset.view import View


@pytest.fixture
def view(dataset: Dataset) -> View:
    set_rules(dataset, CaptionRules(trigger_word="bbdr", order="as read"))
    dataset.store.decide([(1, "red_hat", 1), (1, 'say_"hi"', 1), (3, "红", 1)], "Tags")
    return View(dataset.store)


EXPECTED: dict[Format, str] = {
    "kohya": json.dumps(
        {
            "a": {"caption": 'bbdr, red hat, say "hi"', "train_resolution": [48, 32]},
            "b": {"caption": "bbdr", "train_resolution": [48, 32]},
            "sub/c": {"caption": "bbdr, 红", "train_resolution": [48, 32]},
        },
        ensure_ascii=False,
        indent=2,
    )
    + "\n",
    "kohya jsonl": '{"image_path": "a.png", "caption": "bbdr, red hat, say \\"hi\\""}\n'
    '{"image_path": "b.png", "caption": "bbdr"}\n{"image_path": "sub/c.jpg", "caption": "bbdr, 红"}\n',
    "ms-swift": '{"messages": [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": '
    '"bbdr, red hat, say \\"hi\\""}], "images": ["a.png"]}\n{"messages": [{"role": "user", "content": '
    '"<image>What is it?"}, {"role": "assistant", "content": "bbdr"}], "images": ["b.png"]}\n{"messages": [{"role": '
    '"user", "content": "<image>What is it?"}, {"role": "assistant", "content": "bbdr, 红"}], '
    '"images": ["sub/c.jpg"]}\n',
    "diffusers jsonl": '{"file_name": "a.png", "text": "bbdr, red hat, say \\"hi\\""}\n'
    '{"file_name": "b.png", "text": "bbdr"}\n{"file_name": "sub/c.jpg", "text": "bbdr, 红"}\n',
    "diffusers csv": 'file_name,text\na.png,"bbdr, red hat, say ""hi"""\nb.png,bbdr\nsub/c.jpg,"bbdr, 红"\n',
    "diffsynth": 'image,prompt\na.png,"bbdr, red hat, say ""hi"""\nb.png,bbdr\nsub/c.jpg,"bbdr, 红"\n',
}


@pytest.mark.parametrize("format", get_args(Format))
def test_files_byte_for_byte_and_back(dataset: Dataset, view: View, format: Format) -> None:
    path = export_file(dataset, view, format, prompt="What is it?")
    assert path == dataset.root / FILES[format]
    assert path.read_bytes() == EXPECTED[format].encode()
    assert import_file(dataset, view, path, read_as="caption").done == 3
    assert view.captions() == ['bbdr, red hat, say "hi"', "bbdr", "bbdr, 红"]
    dataset.store.undo()
    assert view.captions() == ["", "", ""]


def test_tags_are_read_as_tags(dataset: Dataset, view: View, tmp_path: Path) -> None:
    (tmp_path / "meta_lat.json").write_text('{"b": {"tags": "long hair, :3"}}')
    assert import_file(dataset, view, tmp_path / "meta_lat.json", read_as="tags").done == 1
    assert [t.name for t in view.tags(2)] == ["long_hair", ":3"]


def test_pictures_that_are_not_there_are_listed(dataset: Dataset, view: View, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text\n./a.png,one\naa.png,two\n")
    report = import_file(dataset, view, tmp_path / "metadata.csv", read_as="caption")
    assert report.done == 1
    assert "aa.png; the nearest is a.png" in report.problems["aa.png"]["en"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("m.csv", b"picture,words\na,b\n", "has picture, words"),
        ("m.csv", b"", "no rows"),
        ("m.jsonl", b'{"file_name": "a.png"}\n', "KeyError"),
        ("m.jsonl", b"not json\n", "JSONDecodeError"),
        ("m.jsonl", b"{}\n\n5\n", "line 1"),
        ("m.jsonl", b'{"file_name": "a.png", "text": 5}', "no text"),
        ("m.csv", b"file_name,text\na.png," + b"x" * 200_000, "field limit"),
        ("m.csv", b'file_name,text\na.png,"one\n', "line 2: unexpected end"),
        ("m.json", b"[1]", "no JSON object"),
        ("m.json", b"[" * 100_000, "Recursion"),
        ("m.json", b'{"a": null}', "'a' has 'None'"),
        ("m.json", b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_what_can_not_be_read_says_why(
    dataset: Dataset, view: View, tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WrongMetadata, match=words):
        import_file(dataset, view, tmp_path / name, read_as="tags")


def test_paths_of_other_machines_are_known_by_their_end(dataset: Dataset, view: View, tmp_path: Path) -> None:
    paths = ("/data/x/sub/c.jpg", "C:\\set\\b.png", "D:\\any\\a")
    (tmp_path / "meta.json").write_text(json.dumps({path: {"tags": f"tag {i}"} for i, path in enumerate(paths)}))
    assert import_file(dataset, view, tmp_path / "meta.json", read_as="tags").done == 3
    assert [[t.name for t in view.tags(i)][:1] for i in (1, 2, 3)] == [["tag_2"], ["tag_1"], ["tag_0"]]
    (tmp_path / "c.json").write_text('{"c": {"tags": "alone"}}')  # its folder is not said, and only one is called so
    assert import_file(dataset, view, tmp_path / "c.json", read_as="tags").done == 1


def test_kohyas_tags_are_tags_and_its_caption_has_them_behind_it(dataset: Dataset, view: View, tmp_path: Path) -> None:
    rows = {"a": {"caption": "a girl", "tags": "bbdr, hat, :3"}, "b": {"caption": None, "tags": None}}
    (tmp_path / "meta.json").write_text(json.dumps(rows))
    import_file(dataset, view, tmp_path / "meta.json", read_as="tags")
    assert [t.name for t in view.tags(1)][:2] == ["hat", ":3"]  # the trigger word is the rules'
    import_file(dataset, view, tmp_path / "meta.json", read_as="caption")
    assert view.captions()[:2] == ["a girl, bbdr, hat, :3", ""]


def test_tags_from_a_file_are_one_edit_and_others_stay(dataset: Dataset, view: View, tmp_path: Path) -> None:
    def tags() -> list[str]:
        return [tag.name for tag in view.tags(2)]

    for text in ("one, two", "three"):
        (tmp_path / "m.csv").write_text(f'file_name,text\nb.png,"{text}"\n')
        import_file(dataset, view, tmp_path / "m.csv", read_as="tags")
    dataset.store.decide([(2, "mine", 1)], "Mine")
    assert tags() == ["three", "mine"]
    dataset.store.undo()
    dataset.store.undo()
    assert tags() == ["one", "two"]
    dataset.store.undo()
    assert tags() == [] and not matching(view, "source:m.csv").any()
    assert [dataset.store.redo() is not None for _ in range(4)] == [True, True, True, False]
    assert tags() == ["three", "mine"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"file_name": "a.png", "text": "one\u2028two"}, "one\u2028two"),
        ({"file_name": "a.png", "text": None}, ""),
        ({"image_path": "a.png", "caption": ["one", "two"]}, "one\ntwo"),
        (
            {
                "messages": [{"role": "assistant", "content": [{"type": "text", "text": "one"}]}],
                "images": [{"path": "a.png"}],
            },
            "one",
        ),
    ],
)
def test_rows_as_other_programs_write_them(dataset: Dataset, view: View, tmp_path: Path, row: dict, text: str) -> None:
    dataset.store.write_captions({1: "before"}, "Before")
    (tmp_path / "m.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n\n", encoding="utf-8-sig")
    assert import_file(dataset, view, tmp_path / "m.jsonl", read_as="caption").done == 1
    assert view.captions()[0] == text
