from __future__ import annotations

from pathlib import Path

import pytest

from engine.dataset.autocomplete import BadTagList, ListedTag, complete, read_tag_list
from engine.dataset.view import Count

OWN = [Count("long_hair", "general", 9), Count("red_hair", "general", 3), Count("hairband", "general", 1)]


def test_a_list_is_read_with_categories_and_aliases(tmp_path: Path) -> None:
    path = tmp_path / "danbooru.csv"
    path.write_text('\ufeff1girl,0,6000000,"1girls,sole_female"\nhatsune_miku,4,100000,\n', encoding="utf-8")
    assert read_tag_list(path) == [
        ListedTag("1girl", "general", 6_000_000, ("1girls", "sole_female")),
        ListedTag("hatsune_miku", "character", 100_000),
    ]


@pytest.mark.parametrize(
    "data",
    [
        *(b"tag only\n", b"a,b\n", b"a,0,many\n", b"\xff\xfe\x00", b",0,5,\n", b"tag_id,name,category,count\n"),
        *(b'a,0,5,"' + b"x" * 200_000 + b'"\n', b"a,x," + b"9" * 5000 + b",\n", b"", b"\0\n", b'a,0,5,"b\n'),
    ],
)
def test_a_list_with_wrong_columns_says_which_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(BadTagList, match=r"x\.csv"):
        read_tag_list(tmp_path / "x.csv")


def test_which_line_it_is_is_said_in_chinese_as_well(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"a;b\n")
    with pytest.raises(BadTagList) as refused:
        read_tag_list(tmp_path / "x.csv")
    assert refused.value.text("zh").startswith("x.csv 不是标签列表：第 1 行为 'a;b'。")


def test_a_list_of_quality_tags_has_words_for_counts(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("best_quality,5,Quality tag,null\n")
    assert read_tag_list(tmp_path / "q.csv") == [ListedTag("best_quality", "meta", 0)]


def test_own_tags_come_first_and_beginnings_before_middles() -> None:
    listed = [ListedTag("hair_bow", "general", 500), ListedTag("long_hair", "general", 5000)]
    assert [c.tag.name for c in complete("hair", OWN, listed)] == ["hairband", "hair_bow", "long_hair", "red_hair"]
    assert complete("long h", OWN, listed)[0].tag == ListedTag("long_hair", "general", 9, own=True)
    assert complete("  ", OWN) == []
    assert len(complete("hair", OWN, listed, limit=2)) == 2


def test_an_alias_leads_to_its_tag() -> None:
    (found,) = complete("sole", OWN, [ListedTag("1girl", "general", 5, ("sole_female",))])
    assert (found.tag.name, found.alias) == ("1girl", "sole_female")
