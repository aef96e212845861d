"""The page about training settings, made from the settings themselves: `python -m trainers.reference` writes docs/."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from engine.errors import Language
from trainers.presets import presets
from trainers.settings import SECTION_TITLES, SECTIONS, TrainSettings

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES: dict[Language, str] = {"en": "training.md", "zh": "training.zh-CN.md"}

_HEAD: dict[Language, str] = {
    "en": """# Training settings

A run is a TOML file with any of these settings, or the form in the Train tab. `studio train FILE.toml` runs one. A file
may stand on a preset of `configs/train` and change what differs:

```toml
preset = "sd1-character"
model = "v1-5.safetensors"
dataset = "mine"
trigger_word = "zxq"
```

A key that does not exist is refused, with the nearest one that does. The same settings, seed and pictures give the same
LoRA, bit by bit, on one machine: also when the run was killed and went on, made sample pictures, or gave way to other
jobs. Everything of a run lies in `runs/NAME`: its settings, the pictures and captions it began with, `metrics.jsonl`,
samples, checkpoints, and the state it goes on from. The finished LoRA is `models/loras/NAME.safetensors`.
""",
    "zh": """# 训练设置

一次训练由一个 TOML 文件（包含下列任意设置）或“训练”标签页中的表单定义。用 `studio train FILE.toml` 运行。文件可以基于
`configs/train` 中的预设，只写不同之处：

```toml
preset = "sd1-character"
model = "v1-5.safetensors"
dataset = "mine"
trigger_word = "zxq"
```

不存在的键会被拒绝，并提示最接近的名称。在同一台机器上，相同的设置、种子和图片会得到逐位相同的 LoRA：
即使训练曾被终止后恢复、生成过示例图片，或为其他任务让过路。一次训练的全部内容都在 `runs/NAME` 中：
设置、开始时的图片与描述、`metrics.jsonl`、示例图片、检查点以及用于恢复的状态。
完成的 LoRA 为 `models/loras/NAME.safetensors`。
""",
}
_COLUMNS: dict[Language, str] = {
    "en": "| setting | default | what it does |\n|---|---|---|\n",
    "zh": "| 设置 | 默认值 | 作用 |\n|---|---|---|\n",
}
_PRESETS: dict[Language, str] = {"en": "Presets", "zh": "预设"}


def page(language: Language) -> str:
    """The whole page as Markdown."""
    chinese = language == "zh"
    parts = [_HEAD[language], f"\n## {_PRESETS[language]}\n\n"]
    parts += [f"- `{preset.name}`: {preset.title_zh if chinese else preset.title}\n" for preset in presets()]
    for section in SECTIONS:
        parts.append(f"\n## {SECTION_TITLES[section][chinese]}\n\n{_COLUMNS[language]}")
        parts += [_row(name, field, chinese) for name, field in _fields() if _extra(field)["section"] == section]
    return "".join(parts)


def _row(name: str, field: FieldInfo, chinese: bool) -> str:
    help = _extra(field)["help_zh"] if chinese else field.description
    return f"| `{name}` | {_default(field)} | {help} |\n".replace("{red|blue}", "`{red\\|blue}`")


def _default(field: FieldInfo) -> str:
    value, choices = field.default, get_args(field.annotation)
    if get_origin(field.annotation) is not tuple and choices:
        return ", ".join(f"**{choice}**" if choice == value else str(choice) for choice in choices)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in ("", ()) else f"{value:g}" if isinstance(value, float) else str(value)


def _fields() -> list[tuple[str, FieldInfo]]:
    return list(TrainSettings.model_fields.items())


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


if __name__ == "__main__":
    for language, name in PAGES.items():
        (DOCS / name).write_text(page(language), encoding="utf-8")
