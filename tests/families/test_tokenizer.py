from pathlib import Path
from typing import Any, cast

import pytest
from transformers import CLIPTokenizer

from engine.families.parts.tokenizer import END, BadTokenizer, ClipTokenizer, clip_tokenizer, tokenizer_from_json


@pytest.fixture(scope="module")
def clip() -> ClipTokenizer:
    return clip_tokenizer()


def test_the_bundled_vocabulary_is_that_of_clip(clip: ClipTokenizer):
    assert (len(clip), clip.start, clip.end) == (49408, 49406, 49407)
    assert clip.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]


@pytest.mark.parametrize(
    "text",
    [
        "A Red FOX\nin the   SNOW\t!!! 12345 don't they'll",
        "un renard été, café ☃ 😀 İstanbul ß Ǆ",
        "½ ³ ab12c !!!'s ___ :) -- e\u0301",
        "狐 狸",
        f"before {END} after",
        "",
    ],
)
def test_tokens_are_those_of_transformers(clip: ClipTokenizer, text: str):
    other = CLIPTokenizer(vocab=clip.vocab, merges=cast(Any, list(clip._ranks)))
    assert clip.encode(text) == other(text).input_ids[1:-1]


def test_chinese_characters_are_words_of_their_own(clip: ClipTokenizer):
    assert clip.encode("狐狸") == clip.encode("狐 狸")


def test_control_characters_are_left_out(clip: ClipTokenizer):
    assert clip.encode("c\0a\u200bt") == clip.encode("cat")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"vocab": {"a": 0}, "merges": []}', '{"vocab": 1, "merges": 2}'])
def test_a_broken_tokenizer_says_which_file(text: str):
    with pytest.raises(BadTokenizer, match=r"a\.safetensors"):
        tokenizer_from_json(text, Path("a.safetensors"))
