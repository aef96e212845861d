from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from engine.dataset.captions import CaptionRules
from engine.dataset.export import set_rules
from engine.dataset.formats import FILES, Format, WrongMetadata, export_file, import_file
from engine.dataset.library import Dataset
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
        ("m.json", b"[1]", "no JSON object"),
        ("m.json", b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_what_can_not_be_read_says_why(
    dataset: Dataset, view: View, tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WrongMetadata, match=words):
        import_file(dataset, view, tmp_path / name, read_as="tags")
