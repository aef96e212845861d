"""Captions as a view: rules that turn a picture's tags and caption text into the line a trainer reads.

Tags come in with their canonical names (booru underscores) and go out as the rules say. The trigger word is a rule of
the dataset and never stored among the tags. It knows no store and no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from engine.dataset.tokens import count_tokens
from engine.settings import setting

# the 19 of SmilingWolf's taggers whose underscores are eyes, mouths or walls
KAOMOJI = frozenset(
    (
        *("0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3"),
        *("6_9", ">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"),
    )
)
CATEGORIES = ("general", "character", "copyright", "artist", "style", "meta", "quality", "model", "year", "rating")


class Tag(NamedTuple):
    """A tag that counts for a picture. `position` is its place among the tags as they were read or written."""

    name: str
    category: str = "general"
    score: float = 1.0
    position: int = 0


Encoder = Literal["clip", "t5"]


class CaptionRules(BaseModel):
    """How tags and caption become one text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # fmt: off
    trigger_word: str = setting(
        "", "Trigger word", "触发词",
        "Comes first in every caption and calls the concept later.", "位于每条描述最前，之后用它调用所学概念。",
    )
    parts: Literal["tags", "caption", "tags, caption", "caption, tags"] = setting(
        "tags", "A caption is", "描述内容",
        options={
            "tags": ("tags", "标签"), "caption": ("caption text", "描述文字"),
            "tags, caption": ("tags, then text", "标签，然后文字"),
            "caption, tags": ("text, then tags", "文字，然后标签"),
        },
    )
    order: Literal["score", "alphabet", "as read"] = setting(
        "score", "Order of tags", "标签顺序",
        "Inside a category.", "同一类别内的顺序。",
        options={
            "score": ("by score", "按分数"), "alphabet": ("alphabetical", "按字母"),
            "as read": ("as read", "按读取顺序"),
        },
    )
    max_tags: int = setting(
        0, "At most so many tags", "标签数量上限", "After the trigger word; 0 is no limit.", "触发词之后；0 表示不限。",
        ge=0, le=10_000,
    )
    always_first: tuple[str, ...] = setting(
        (), "Tags that come first", "始终在前的标签",
        "Right after the trigger word, in pictures that have them.", "紧跟触发词之后（仅在图片具有该标签时）。",
    )
    blacklist: tuple[str, ...] = setting(
        (), "Left out", "排除的标签", "* and ? stand for any letters.", "* 和 ? 代表任意字符。",
    )
    replacements: dict[str, str] = setting(
        {}, "Replacements", "替换",
        "One a line: old tag = new tag. Nothing after = leaves the tag out.",
        "每行一个：旧标签 = 新标签。等号后留空则去掉该标签。",
    )
    aliases: dict[str, str] = setting(
        {}, "Aliases", "别名",
        "One a line: other name = name. They come before everything else, implications included.",
        "每行一个：别名 = 正式名称。先于其他所有规则（包括蕴含）生效。",
        basic=False,
    )
    implications: dict[str, tuple[str, ...]] = setting(
        {}, "Implications", "蕴含",
        "One a line: kitten = cat, animal.", "每行一个：kitten = cat, animal。",
        basic=False,
    )
    implied: Literal["keep", "drop", "add"] = setting(
        "keep", "Implied tags", "被蕴含的标签",
        "Drop them for short captions, add them as boorus do, or neither.",
        "去掉可缩短描述，补全则与图库一致，也可保持原样。",
        basic=False,
        options={
            "keep": ("stay as they are", "保持原样"), "drop": ("are dropped", "去掉"), "add": ("are added", "补全"),
        },
    )
    categories: tuple[str, ...] = setting(
        ("general", "character", "copyright", "artist"), "Categories", "类别",
        "Those that are used, in this order. Others: style, meta, quality, model, year, rating.",
        "使用的类别及其顺序。其他可选：style、meta、quality、model、year、rating。",
        basic=False,
    )
    category_prefix: dict[str, str] = setting(
        {}, "Text before a category", "类别前缀",
        "One a line, such as: artist = by . It stands before each tag of the category.",
        "每行一个，例如：artist = by 。会加在该类别的每个标签之前。",
        basic=False,
    )
    underscores: Literal["space", "keep"] = setting(
        "space", "Underscores", "下划线",
        "Those of faces such as o_o always stay.", "o_o 等颜文字中的下划线始终保留。",
        basic=False, options={"space": ("become spaces", "变为空格"), "keep": ("stay", "保留")},
    )
    escape: bool = setting(
        False, "Escape brackets", "转义括号",
        "Writes \\( and \\) as A1111-style prompts want them. Most trainers do not.",
        "按 A1111 提示词的写法输出 \\( 和 \\)。多数训练器不需要。",
        basic=False,
    )
    separator: str = setting(
        ", ", "Between tags", "分隔符", "A comma inside a tag becomes a space where commas separate.",
        "以逗号分隔时，标签内部的逗号会变为空格。",
        basic=False, max_length=20,
    )
    max_tokens: dict[Encoder, Annotated[int, Field(ge=0, le=100_000)]] = setting(
        {}, "Most tokens", "词元上限",
        "By text encoder, such as: clip = 75, t5 = 512. Tags go from the end until all fits, then words of the text.",
        "按文本编码器设置，例如：clip = 75、t5 = 512。从末尾开始去掉标签，仍不够时再截短文字。",
        basic=False,
    )
    # fmt: on


def canonical(tag: str) -> str:
    """A tag as typed or read from a file, as the store names it: no escapes, underscores for spaces."""
    if "\\" in tag and not re.search(r"(?<!\\)[()]", tag):  # \(^o^)/ has arms, not escapes
        tag = re.sub(r"\\([\\()])", r"\1", tag)
    return re.sub(r"\s+", "_", tag.strip())


def pretty(name: str) -> str:
    """A canonical name for people: spaces for underscores, except where they are part of a face."""
    return name if name in KAOMOJI else name.replace("_", " ")


def escape(text: str) -> str:
    return re.sub(r"([\\()])", r"\\\1", text)


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern with * and ?. Brackets are letters: tags have them.

    A pattern of signs alone, such as !?, is a tag.
    """
    if pattern == name or ("*" not in pattern and ("?" not in pattern or not any(map(str.isalnum, pattern)))):
        return pattern == name
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), name) is not None


def split_tags(text: str) -> list[str]:
    """Tags of a comma-separated text, canonical, each once, in order. Lines count as commas."""
    return list(dict.fromkeys(filter(None, (canonical(part) for part in re.split(r"[,\n\r]", text)))))


def caption(rules: CaptionRules, tags: Iterable[Tag], text: str = "") -> str:
    """The caption of one picture."""
    listed = tag_list(rules, tags)
    prose = " ".join(text.split())
    first = [rules.trigger_word] if rules.trigger_word else []
    if first and prose and rules.parts != "tags" and mentions(prose, rules.trigger_word):
        first = []

    def whole(tags: Sequence[str], prose: str) -> str:
        pieces = {
            "tags": tags,
            "caption": [prose] if prose else [],
            "tags, caption": [*tags, *([prose] if prose else [])],
            "caption, tags": [*([prose] if prose else []), *tags],
        }[rules.parts]
        return rules.separator.join([*first, *pieces])

    if not rules.max_tokens:
        return whole(listed, prose)
    listed = _longest_fit(listed, lambda kept: _fits(rules, whole(kept, prose)))
    words = _longest_fit(prose.split(), lambda kept: _fits(rules, whole(listed, " ".join(kept))))
    return whole(listed, " ".join(words))


def tag_list(rules: CaptionRules, tags: Iterable[Tag]) -> list[str]:
    """The tags as they are written, without the trigger word; each text once."""
    named = _renamed(chains(rules.aliases), list(tags))
    barred = [canonical(pattern) for pattern in rules.blacklist]
    kept = [
        tag
        for tag in _replaced(rules, _with_implications(rules, named))
        if not any(matches(pattern, tag.name) for pattern in barred)
    ]
    first = {canonical(name): place for place, name in enumerate(rules.always_first)}
    place = {category: i for i, category in enumerate(rules.categories)}
    kept = [tag for tag in kept if tag.category in place or tag.name in first]
    kept.sort(key=lambda tag: (first.get(tag.name, len(first)), place.get(tag.category, 0), *_rank(rules, tag)))
    words = dict.fromkeys(_written(rules, tag) for tag in kept)
    words.pop(rules.trigger_word, None)
    return list(words)[: rules.max_tags or None]


def writer(rules: CaptionRules) -> Callable[[Tag], tuple[str, str, int] | None]:
    """What the rules make of one tag by itself: its name after all renaming, its text, rank of its group; None where it
    is left out. Each of the tags that come first is a group, then come the categories. Implications are left aside.
    """
    aliases = chains(rules.aliases)
    replaced = {canonical(old): canonical(new) for old, new in rules.replacements.items()}
    barred = [canonical(pattern) for pattern in rules.blacklist]
    first = {canonical(name): place for place, name in enumerate(rules.always_first)}
    place = {category: i for i, category in enumerate(rules.categories)}

    def write(tag: Tag) -> tuple[str, str, int] | None:
        name = aliases.get(tag.name, tag.name)
        name = replaced.get(name, name)
        if not name or any(matches(pattern, name) for pattern in barred):
            return None
        if name not in first and tag.category not in place:
            return None
        rank = first.get(name, len(first)) * (len(place) + 1) + place.get(tag.category, 0)
        return name, _written(rules, Tag(name, tag.category)), rank

    return write


def _rank(rules: CaptionRules, tag: Tag) -> tuple[float | str, ...]:
    if rules.order == "alphabet":
        return (tag.name,)
    if rules.order == "as read":
        return (tag.position,)
    return (-tag.score, tag.position)


def _written(rules: CaptionRules, tag: Tag) -> str:
    word = pretty(tag.name) if rules.underscores == "space" else tag.name
    if "," in rules.separator:
        word = " ".join(word.replace(",", " ").split())  # trainers would take it for two
    word = rules.category_prefix.get(tag.category, "") + word
    return escape(word) if rules.escape else word


def _replaced(rules: CaptionRules, tags: Sequence[Tag]) -> list[Tag]:
    return _renamed({canonical(old): canonical(new) for old, new in rules.replacements.items()}, tags)


def _renamed(table: Mapping[str, str], tags: Sequence[Tag]) -> list[Tag]:
    """Tags under the names of a table; those whose name is then empty are left out."""
    if not table:
        return list(tags)
    renamed = [Tag(table.get(t.name, t.name), t.category, t.score, t.position) for t in tags]
    return [tag for tag in renamed if tag.name]


def chains(aliases: Mapping[str, str]) -> dict[str, str]:
    """Each alias with the name at the end of its chain; names in a circle stay as they are."""
    table = {canonical(alias): canonical(name) for alias, name in aliases.items()}
    found = {}
    for alias in table:
        name, seen = alias, {alias}
        while name in table and table[name] not in seen:
            name = table[name]
            seen.add(name)
        found[alias] = alias if name in table else name
    return found


def _with_implications(rules: CaptionRules, tags: list[Tag]) -> list[Tag]:
    if rules.implied == "keep" or not rules.implications:
        return tags
    table = {canonical(a): [canonical(b) for b in many] for a, many in rules.implications.items()}
    implied = {tag.name: _closure(tag.name, table) for tag in tags}
    if rules.implied == "drop":
        unwanted = {b for a, many in implied.items() for b in many if a not in implied.get(b, ())}
        return [tag for tag in tags if tag.name not in unwanted]
    have = {tag.name for tag in tags}
    extra = [Tag(b, t.category, t.score, t.position) for t in tags for b in implied[t.name] if b not in have]
    return [*tags, *{tag.name: tag for tag in reversed(extra)}.values()]


def _closure(name: str, table: dict[str, list[str]]) -> list[str]:
    """Everything that `name` implies, directly or by way of others."""
    found: list[str] = []
    waiting = [name]
    while waiting:
        for implied in table.get(waiting.pop(), ()):
            if implied not in found and implied != name:
                found.append(implied)
                waiting.append(implied)
    return found


def _fits(rules: CaptionRules, text: str) -> bool:
    return all(count_tokens(encoder, text) <= most for encoder, most in rules.max_tokens.items() if most)


def _longest_fit(parts: Sequence[str], fits: Callable[[Sequence[str]], bool]) -> list[str]:
    """As many parts from the start as fit; more never fit where fewer do not."""
    low, high = 0, len(parts)
    if fits(parts):
        return list(parts)
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(parts[:middle]) else (low, middle)
    return list(parts[:low])


def mentions(text: str, word: str) -> bool:
    """Whether a text has the word, as one of its own."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None
