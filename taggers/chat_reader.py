"""A chat model at work: the question in its own template, batches padded to the left, answers without thoughts.

It runs in the worker, on transformers' native classes and the model's own processor. What kinds differ in is Habits.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from engine.errors import FileError
from engine.models.manager import ModelManager
from taggers.captioner_module import Source, captioner_spec
from taggers.chat import ChatTool
from taggers.drawing import Drawn
from taggers.folder import BrokenFolder, ModelFolder, config_value, first_line
from taggers.reader import Origin, ScoresNotNumbers
from taggers.text_files import LIBRARY_ERRORS, open_processor, refuse_other_words
from taggers.tool import About, Answer, filled
from taggers.watching import Watched
from taggers.writing import captioner_origin, tags_in

_THOUGHTS = re.compile(r"^.*</think>\s*", re.S)
_PICTURE_WORDS = 1500  # places that a picture takes in the text, at a guess


class StartTwice(FileError):
    en = "{name}: its text begins with {count} start words instead of one. Its chat template and tokenizer do not fit."
    zh = "{name}：文本开头有 {count} 个起始词元，应为 1 个。对话模板与分词器不匹配。"


@dataclass(frozen=True)
class Habits:
    """How one kind of chat model differs from the others.

    `plain_text`: messages are text, and the template puts the picture's place in. `one_start`: exactly one start word
    is asserted. `squash`: pictures are squashed to this square beforehand; else `shrink(processor, picture)` may scale.
    """

    plain_text: bool = False
    system: str = ""
    one_start: bool = False
    squash: int | None = None
    shrink: Callable[[Any, Image.Image], Image.Image] | None = None
    at_least: int | None = None
    processor: Mapping[str, Any] = field(default_factory=dict)
    generate: Mapping[str, Any] = field(default_factory=dict)


class ChatReader:
    """One question to one model."""

    wants_words = True

    def __init__(
        self, manager: ModelManager, folder: ModelFolder, tool: ChatTool, habits: Habits, gives_tags: bool = False
    ) -> None:
        self._manager, self._folder, self._tool, self._habits = manager, folder, tool, habits
        self._gives_tags = gives_tags or tool.write == "tags"
        self.title, self.batch_size, self.provider = folder.name, tool.batch_size, ""
        self.at_least = habits.squash or habits.at_least
        self.processor = open_processor(folder)
        self._ref = manager.add(captioner_spec(folder, tool, functools.partial(_source, folder)))

    def origin(self) -> Origin:
        return captioner_origin(self._folder.name, self._folder.version(), self._tool, self._gives_tags)

    def prepare(self, image: Image.Image) -> Image.Image:
        if self._habits.squash is not None:
            square = (self._habits.squash, self._habits.squash)
            return image if image.size == square else image.resize(square, Image.Resampling.LANCZOS)
        return self._habits.shrink(self.processor, image) if self._habits.shrink else image

    def read(self, prepared: Sequence[Image.Image], about: Sequence[About]) -> list[Answer | ScoresNotNumbers]:
        inputs = self.encode(prepared, [filled(self._tool.asked(), one, self._tool.most_tags) for one in about])
        length = inputs["input_ids"].shape[1]
        with self._manager.lease(self._ref, working=self._working(len(about), length)) as leased, torch.no_grad():
            module: Any = leased[self._ref]
            refuse_other_words(
                self._folder, int(inputs["input_ids"].max()), module.get_input_embeddings().num_embeddings
            )
            self.provider = self._manager.device.name
            placed = {name: _placed(value, leased.device, module.dtype) for name, value in inputs.items()}
            watched = Watched(len(about), leased.device)
            ids = module.generate(**placed, **self._options(about, watched, leased.device))[:, length:].cpu()
        return [
            ScoresNotNumbers(name=self.title, picture=one.name) if broken else self._answer(row)
            for row, one, broken in zip(ids, about, watched.broken, strict=True)
        ]

    def encode(self, pictures: Sequence[Image.Image], asked: Sequence[str]) -> dict[str, Any]:
        """What the model takes. Raises StartTwice, BrokenFolder for a template or processor that does not fit."""
        try:
            texts = [self._text(question) for question in asked]
            found = self.processor(
                text=texts,
                images=list(pictures),
                padding=True,
                return_tensors="pt",
                add_special_tokens=False,
                **self._habits.processor,
            )
        except LIBRARY_ERRORS as error:
            reason = f"its processor fails ({first_line(error)})"
            raise BrokenFolder(name=self._folder.name, reason=reason) from error
        self._refuse_doubled_start(found["input_ids"], found["attention_mask"])
        return dict(found)

    def close(self) -> None:
        pass

    def _text(self, question: str) -> str:
        system = self._tool.system.strip() or self._habits.system
        plain = self._habits.plain_text
        content: Any = question if plain else [{"type": "image"}, {"type": "text", "text": question}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": system if plain else [{"type": "text", "text": system}]})
        words = self.processor.tokenizer
        told = words.apply_chat_template(
            messages,
            chat_template=self.processor.chat_template or words.chat_template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        return told + self._tool.start_with

    def _refuse_doubled_start(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        start = self.processor.tokenizer.bos_token_id
        if start is None:
            return
        for count in ((ids == start) & mask.bool()).sum(1).tolist():
            if count > 1 or (self._habits.one_start and count != 1):
                raise StartTwice(name=self._folder.name, count=count)

    def _options(self, about: Sequence[About], watched: Watched, device: torch.device) -> dict[str, Any]:
        tool, words = self._tool, self.processor.tokenizer
        chance: list[Any] = [watched]
        if tool.temperature > 0:
            chance.append(Drawn(tool.seed, [one.key for one in about], tool.temperature, tool.top_p, device))
        return {
            **self._habits.generate,
            "max_new_tokens": tool.max_new_tokens,
            "do_sample": False,
            "num_beams": 1,
            "temperature": None,
            "top_p": None,
            "top_k": None,
            "pad_token_id": words.pad_token_id,
            "logits_processor": chance,
        }

    def _answer(self, ids: torch.Tensor) -> Answer:
        words = self.processor.tokenizer
        ends = {words.eos_token_id, words.pad_token_id, *_ends(self._folder)}
        cut = len(ids) >= self._tool.max_new_tokens and int(ids[-1]) not in ends
        text = words.decode(ids, skip_special_tokens=True)
        if "<think>" in text and "</think>" not in text:
            return Answer("", cut=True)  # it has thought for as long as it may speak
        text = (self._tool.start_with + _THOUGHTS.sub("", text)).strip()
        return Answer(text, tags=tags_in(text) if self._gives_tags else None, cut=cut)

    def _working(self, pictures: int, length: int) -> int:
        """Keys and values of all words, the scores of the last, and what the eyes need, at a guess."""
        config = self._folder.config()
        hidden = int(config_value(config, "hidden_size", default=1024))
        layers = int(config_value(config, "num_hidden_layers", default=24))
        heads = int(config_value(config, "num_attention_heads", default=16))
        kept = int(config_value(config, "num_key_value_heads", default=heads)) * hidden // max(1, heads)
        words = max(length, _PICTURE_WORDS) + self._tool.max_new_tokens
        scores = 4 * 4 * int(config_value(config, "vocab_size", default=150_000))
        return pictures * (words * (layers * 2 * kept * 4 + hidden * 48) + scores)


def _source(folder: ModelFolder) -> Source:
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(str(folder.path), local_files_only=True, trust_remote_code=False)
    return Source(AutoModelForImageTextToText, config)


def _placed(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)


def _ends(folder: ModelFolder) -> list[int]:
    """All words that end an answer: models of dialogue have several."""
    if not folder.has("generation_config.json"):
        return []
    found = folder.json("generation_config.json").get("eos_token_id")
    return found if isinstance(found, list) else [] if found is None else [found]
