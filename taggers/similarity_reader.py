"""CLIP or SigLIP at work: the cosine of picture and caption. It runs in the worker, on transformers' native classes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from engine.dataset.records import Policy
from engine.models.manager import ModelManager
from taggers.captioner_module import Source, captioner_spec
from taggers.folder import BrokenFolder, ModelFolder, config_value, first_line
from taggers.reader import Found, Origin, ScoresNotNumbers, UnfitPicture
from taggers.similarity import SimilarityTool
from taggers.text_files import LIBRARY_ERRORS, open_processor, refuse_other_words
from taggers.tool import About, Answer, filled


def open_similarity(manager: ModelManager, folder: ModelFolder, tool: SimilarityTool) -> SimilarityReader:
    return SimilarityReader(manager, folder, tool)


class NoCaption(UnfitPicture):
    en = "{name}: it has no caption to be compared with. Write one, or let a captioner."
    zh = "{name}：没有可供比较的描述。请撰写，或使用描述模型生成。"


class SimilarityReader:
    wants_words = True

    def __init__(self, manager: ModelManager, folder: ModelFolder, tool: SimilarityTool) -> None:
        self._manager, self._folder, self._tool = manager, folder, tool
        self.title, self.batch_size, self.provider = folder.name, tool.batch_size, ""
        self.at_least = int((folder.config().get("vision_config") or {}).get("image_size") or 384)
        self._processor = open_processor(folder)
        self._processor.tokenizer.padding_side = "right"  # the text's last place is what counts, as in training
        # SigLIP was trained with its padding in sight
        clip = folder.config().get("model_type") == "clip"
        self._takes = ("input_ids", "attention_mask") if clip else ("input_ids",)
        self._longest = int(config_value(folder.config(), "max_position_embeddings", default=64))
        self._ref = manager.add(captioner_spec(folder, tool, functools.partial(_source, folder)))

    def origin(self) -> Origin:
        """Its reading is a number, not a tag: by its policy it never counts."""
        policy = Policy(enabled=False)
        return Origin(f"score:{self._folder.name}", self._folder.version(), self._tool.identity(), policy)

    def prepare(self, image: Image.Image) -> Any:
        """(channel, height, width)."""
        return self._processor.image_processor(images=[image], return_tensors="pt")["pixel_values"][0]

    def read(self, prepared: Sequence[Any], about: Sequence[About]) -> list[Found]:
        texts = [filled(self._tool.asked(), one) for one in about]
        try:
            words = self._processor.tokenizer(
                texts, padding="max_length", truncation=True, max_length=self._longest, return_tensors="pt"
            )
        except LIBRARY_ERRORS as error:
            raise BrokenFolder(name=self._folder.name, reason=first_line(error)) from error
        working = len(texts) * 64 * 4 * 3 * self.at_least**2
        with self._manager.lease(self._ref, working=working) as leased, torch.no_grad():
            module: Any = leased[self._ref]
            rows = module.text_model.get_input_embeddings().num_embeddings
            refuse_other_words(self._folder, int(words["input_ids"].max()), rows)
            self.provider = self._manager.device.name
            pixels = torch.stack(list(prepared)).to(leased.device, module.dtype)
            inputs = {name: words[name].to(leased.device) for name in self._takes if name in words}
            found = module(**inputs, pixel_values=pixels)
            cosine = torch.nn.functional.cosine_similarity(found.image_embeds.float(), found.text_embeds.float())
        return [
            self._found(one.name, text, value) for one, text, value in zip(about, texts, cosine.tolist(), strict=True)
        ]

    def close(self) -> None:
        pass

    def _found(self, name: str, text: str, cosine: float) -> Found:
        if not text.strip():
            return NoCaption(name=name)
        if not math.isfinite(cosine):
            return ScoresNotNumbers(name=self.title, picture=name)
        return Answer(score=round(cosine, 5))


def _source(folder: ModelFolder) -> Source:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(str(folder.path), local_files_only=True, trust_remote_code=False)
    return Source(AutoModel, config)
