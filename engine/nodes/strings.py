"""Text in, text or an answer out."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from engine.graph.node import In, NodeContext, Out, node
from engine.patterns import Expression, expression

Text = Annotated[str, In("STRING", multiline=True)]
Switch = Annotated[bool, In("BOOLEAN", default=False)]
On = Annotated[bool, In("BOOLEAN", default=True)]
CATEGORY = "utils/string"


@node("StringSubstring", title="Substring", title_zh="截取文本", category=CATEGORY, outputs=[Out("STRING")])
def string_substring(
    ctx: NodeContext, string: Text, start: Annotated[int, In("INT")], end: Annotated[int, In("INT")]
) -> tuple[str]:
    return (string[start:end],)


@node("StringLength", title="Length", title_zh="文本长度", category=CATEGORY, outputs=[Out("INT", "length")])
def string_length(ctx: NodeContext, string: Text) -> tuple[int]:
    return (len(string),)


@node("CaseConverter", title="Case Converter", title_zh="大小写转换", category=CATEGORY, outputs=[Out("STRING")])
def case_converter(
    ctx: NodeContext, string: Text, mode: Annotated[str, In(["UPPERCASE", "lowercase", "Capitalize", "Title Case"])]
) -> tuple[str]:
    match mode:
        case "UPPERCASE":
            return (string.upper(),)
        case "lowercase":
            return (string.lower(),)
        case "Capitalize":
            return (string.capitalize(),)
    return (string.title(),)


@node("StringTrim", title="Trim", title_zh="去除首尾空白", category=CATEGORY, outputs=[Out("STRING")])
def string_trim(ctx: NodeContext, string: Text, mode: Annotated[str, In(["Both", "Left", "Right"])]) -> tuple[str]:
    return ({"Both": string.strip, "Left": string.lstrip, "Right": string.rstrip}[mode](),)


@node("StringReplace", title="Replace", title_zh="替换文本", category=CATEGORY, outputs=[Out("STRING")])
def string_replace(ctx: NodeContext, string: Text, find: Text, replace: Text) -> tuple[str]:
    return (string.replace(find, replace),)


@node(
    "StringContains",
    title="Contains",
    title_zh="是否包含",
    category=CATEGORY,
    outputs=[Out("BOOLEAN", "contains")],
)
def string_contains(ctx: NodeContext, string: Text, substring: Text, case_sensitive: On) -> tuple[bool]:
    whole, part = (string, substring) if case_sensitive else (string.lower(), substring.lower())
    return (part in whole,)


@node("StringCompare", title="Compare", title_zh="比较文本", category=CATEGORY, outputs=[Out("BOOLEAN")])
def string_compare(
    ctx: NodeContext,
    string_a: Text,
    string_b: Text,
    mode: Annotated[str, In(["Starts With", "Ends With", "Equal"])],
    case_sensitive: On,
) -> tuple[bool]:
    a, b = (string_a, string_b) if case_sensitive else (string_a.lower(), string_b.lower())
    return ({"Starts With": a.startswith, "Ends With": a.endswith, "Equal": a.__eq__}[mode](b),)


@node("RegexMatch", title="Regex Match", title_zh="正则匹配", category=CATEGORY, outputs=[Out("BOOLEAN", "matches")])
def regex_match(
    ctx: NodeContext, string: Text, regex_pattern: Text, case_insensitive: On, multiline: Switch, dotall: Switch
) -> tuple[bool]:
    """Whether the pattern is anywhere in the text."""
    return (_expression(regex_pattern, case_insensitive, multiline, dotall).found(string),)


@node("RegexExtract", title="Regex Extract", title_zh="正则提取", category=CATEGORY, outputs=[Out("STRING")])
def regex_extract(
    ctx: NodeContext,
    string: Text,
    regex_pattern: Text,
    mode: Annotated[str, In(["First Match", "All Matches", "First Group", "All Groups"])],
    case_insensitive: On,
    multiline: Switch,
    dotall: Switch,
    group_index: Annotated[int, In("INT", default=1, min=0, max=100)],
) -> tuple[str]:
    """What the pattern found, one find a line; nothing where it found nothing. A group that the pattern does not have
    is nothing as well."""
    pattern = _expression(regex_pattern, case_insensitive, multiline, dotall)
    group = group_index if mode.endswith("Groups") or mode == "First Group" else 0
    if group > pattern.compiled.groups:
        return ("",)
    found = islice(pattern.finds(string), 1 if mode.startswith("First") else None)
    return ("\n".join(match[group] or "" for match in found),)


@node("RegexReplace", title="Regex Replace", title_zh="正则替换", category=CATEGORY, outputs=[Out("STRING")])
def regex_replace(
    ctx: NodeContext,
    string: Text,
    regex_pattern: Text,
    replace: Text,
    case_insensitive: On = True,
    multiline: Switch = False,
    dotall: Switch = False,
    count: Annotated[int, In("INT", default=0, min=0, max=100)] = 0,
) -> tuple[str]:
    """At most `count` finds, all of them at 0."""
    return (_expression(regex_pattern, case_insensitive, multiline, dotall).replaced(string, replace, count),)


def _expression(pattern: str, case_insensitive: bool, multiline: bool, dotall: bool) -> Expression:
    return expression(pattern, ignore_case=case_insensitive, multiline=multiline, dotall=dotall)
