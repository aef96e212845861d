import logging

import pytest

from engine.families.parts.prompt import Token, chunks_of, weighted
from engine.families.parts.tokenizer import clip_tokenizer

CLIP = clip_tokenizer()


def none(name: str) -> None:
    return None


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a (red:1.3) fox", [("a ", 1.0), ("red", 1.3), (" fox", 1.0)]),
        ("((light))", [("light", 1.1 * 1.1)]),
        ("(a (nested:1.2) word:0.8)", [("a ", 0.8), ("nested", 1.2), (" word", 0.8)]),
        ("[snow] {x}", [("[snow] {x}", 1.0)]),
        (r"a \(b\) (c \(d\):1.2)", [("a (b) ", 1.0), ("c (d)", 1.2)]),
        (r"back\slash", [(r"back\slash", 1.0)]),
        ("(never closed", [("(never closed", 1.0)]),
        ("never opened)", [("never opened)", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:nan)", [("a:nan", 1.1)]),
        ("(a:-0.5)", [("a", -0.5)]),
        ("()", []),
        ("", []),
    ],
)
def test_weights(text: str, runs: list[tuple[str, float]]):
    assert weighted(text) == [(run, pytest.approx(weight)) for run, weight in runs]


def test_a_hundred_thousand_parentheses_are_no_trouble():
    assert weighted("(" * 100_000 + ")" * 100_000)


def test_an_empty_prompt_is_one_chunk_of_ends():
    assert chunks_of("", CLIP, none) == [[Token(CLIP.start)] + [Token(CLIP.end)] * 76]


def test_a_chunk_is_start_tokens_end_and_ends_as_padding():
    (chunk,) = chunks_of("a (cat:1.5)", CLIP, none)
    assert chunk[:4] == [Token(CLIP.start), Token(320), Token(2368, 1.5), Token(CLIP.end)]
    assert chunk[4:] == [Token(CLIP.end)] * 73


def test_a_long_prompt_goes_on_in_the_next_chunk():
    chunks = chunks_of("cat " * 80, CLIP, none)
    assert [len(chunk) for chunk in chunks] == [77, 77]
    assert [token.id for token in chunks[0][1:76]] == [2368] * 75
    assert [token.id for token in chunks[1][:7]] == [CLIP.start, *[2368] * 5, CLIP.end]


def test_a_short_word_is_not_cut_in_two():
    word = "strawberrycake"
    tokens = CLIP.encode(word)
    assert 2 <= len(tokens) < 8
    first, second = chunks_of("cat " * 74 + word, CLIP, none)
    assert first[75] == Token(CLIP.end)
    assert [token.id for token in second[1 : 1 + len(tokens)]] == tokens


def test_a_word_of_many_tokens_is_cut_in_two():
    word = "xqzj" * 10
    tokens = CLIP.encode(word)
    assert len(tokens) >= 8
    first, second = chunks_of("cat " * 70 + word, CLIP, none)
    assert [token.id for token in (*first[71:76], *second[1:])][: len(tokens)] == tokens


def test_the_vectors_of_an_embedding_take_the_place_of_its_name():
    (chunk,) = chunks_of("a (embedding:thing:1.2) cat", CLIP, {"thing": ["v", "w"]}.get)
    assert [(t.vector, t.weight) for t in chunk[1:5]] == [(None, 1.0), ("v", 1.2), ("w", 1.2), (None, 1.0)]


def test_a_comma_behind_an_embedding_is_not_part_of_its_name():
    (chunk,) = chunks_of("embedding:thing, cat", CLIP, {"thing": ["v"]}.get)
    assert chunk[1].vector == "v"
    assert [t.id for t in chunk[2:4]] == CLIP.encode(", cat")


def test_a_missing_embedding_is_a_log_line(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        (chunk,) = chunks_of("a embedding:none cat", CLIP, none)
    assert [t.id for t in chunk[1:4]] == [320, 2368, CLIP.end]
    assert "'none'" in caplog.text
