"""Florence-2 at work: pictures squashed to its square, one question each, beams, and answers as text or regions.

It runs in the worker, on transformers' native classes. Files in Microsoft's layout are converted while they are read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.dataset.regions import Region
from engine.models.manager import ModelManager
from engine.weights.header import read_header
from engine.weights.load import read_tensors
from taggers import florence_keys as keys
from taggers.captioner_module import NotLoadable, Source, WrongWeights, captioner_spec, dtype_for
from taggers.drawing import Drawn
from taggers.florence import FlorenceTool
from taggers.florence_regions import regions_in
from taggers.folder import BrokenFolder, ModelFolder
from taggers.pixels import batch, fitted
from taggers.reader import Origin, ScoresNotNumbers
from taggers.spec import Pixels, Resample
from taggers.text_files import open_tokenizer, refuse_other_words
from taggers.tool import About, Answer, filled
from taggers.watching import Watched
from taggers.writing import captioner_origin, tags_in

_PAD_TO = 64  # rows of the embedding, as transformers' own conversion has it
_RESAMPLE: dict[int, Resample] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
_GENERATION = ("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "no_repeat_ngram_size")


def open_florence(manager: ModelManager, folder: ModelFolder, tool: FlorenceTool) -> FlorenceReader:
    return FlorenceReader(manager, folder, tool)


class FlorenceReader:
    """One task of one Florence-2 model."""

    wants_words = True

    def __init__(self, manager: ModelManager, folder: ModelFolder, tool: FlorenceTool) -> None:
        self._manager, self._folder, self._tool = manager, folder, tool
        self.title, self.batch_size, self.provider = folder.name, tool.batch_size, ""
        self._pixels, self._image_tokens = _pixels(folder)
        self.at_least = self._pixels.size
        self._tokenizer = florence_tokenizer(folder)
        self._image_token = str(self._tokenizer.convert_ids_to_tokens(_image_id(folder)))
        self._generation = _generation(folder)
        source = functools.partial(_source, folder, dtype_for(tool, manager.device))
        self._ref = manager.add(captioner_spec(folder, tool, source))

    def origin(self) -> Origin:
        return captioner_origin(self._folder.name, self._folder.version(), self._tool, self._tool.gives == "tags")

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(fitted(image, self._pixels, self._pixels.size or 768))

    def read(self, prepared: Sequence[np.ndarray], about: Sequence[About]) -> list[Answer | ScoresNotNumbers]:
        asked = [filled(self._tool.asked(), one, self._tool.most_tags) for one in about]
        with self._manager.lease(self._ref, working=self._working(len(asked))) as leased, torch.no_grad():
            module: Any = leased[self._ref]
            self.provider = self._manager.device.name
            inputs = {name: value.to(leased.device) for name, value in self.encode(asked).items()}
            rows = module.get_input_embeddings().num_embeddings
            refuse_other_words(self._folder, int(inputs["input_ids"].max()), rows)
            pixels = torch.from_numpy(batch(prepared, self._pixels)).to(leased.device, module.dtype)
            watched = Watched(len(asked), leased.device)
            options = self._options(module, about, watched, leased.device)
            ids = module.generate(**inputs, pixel_values=pixels, **options).cpu()
        return [
            ScoresNotNumbers(name=self.title, picture=one.name) if broken else self._answer(row)
            for row, one, broken in zip(ids, about, watched.broken, strict=True)
        ]

    def encode(self, asked: Sequence[str]) -> dict[str, torch.Tensor]:
        """Token numbers: the picture's place, then the question between <s> and </s>."""
        words = self._tokenizer
        place = self._image_token * self._image_tokens
        texts = [f"{place}{words.bos_token}{text}{words.eos_token}" for text in asked]
        found = words(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}

    def close(self) -> None:
        pass

    def _options(self, module: Any, about: Sequence[About], watched: Watched, device: torch.device) -> dict[str, Any]:
        tool, words = self._tool, len(self._tokenizer)
        rows = module.get_input_embeddings().num_embeddings
        beams, chance = tool.num_beams, list[Any]([watched])
        if tool.temperature > 0:  # each picture draws for itself
            beams = 1
            chance.append(Drawn(tool.seed, [one.key for one in about], tool.temperature, tool.top_p, device))
        return {
            **self._generation,
            "max_new_tokens": tool.max_new_tokens,
            "num_beams": beams,
            "do_sample": False,
            "logits_processor": chance,
            **({"early_stopping": True} if beams > 1 else {}),
            # rows that only fill up the embedding, and the picture's own place, are no words
            "suppress_tokens": sorted({_image_id(self._folder), *range(words, rows)}),
        }

    def _answer(self, ids: torch.Tensor) -> Answer:
        words, gives = self._tokenizer, self._tool.gives
        # the last word is made an end by force, so only the length tells; the first is the decoder's start
        cut = int((ids != words.pad_token_id).sum()) > self._tool.max_new_tokens
        if gives in ("text", "tags"):
            text = words.decode(ids, skip_special_tokens=True).strip()
            if self._tool.region is not None and text:
                named = Region(text, "box", tuple(round(share, 4) for share in self._tool.region))
                return Answer(regions=(named,), tags=self._tags([text]), cut=cut, more=True)
            wanted = gives == "tags" or self._tool.write == "tags"
            return Answer(text, tags=tags_in(text) if wanted else None, cut=cut)
        # places are special words in some tokenizers: they must be kept here
        regions = regions_in(words.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False), gives)
        names = tuple(dict.fromkeys(region.label for region in regions if region.label))
        return Answer(regions=tuple(regions), tags=self._tags(names), cut=cut, more=self._tool.region is not None)

    def _tags(self, labels: Iterable[str]) -> tuple[str, ...] | None:
        return tags_in(", ".join(labels)) if self._tool.labels_as_tags else None

    def _working(self, pictures: int) -> int:
        side = self._pixels.size or 768
        return pictures * (
            16 * 4 * 3 * side * side + self._tool.num_beams * (self._tool.max_new_tokens + 700) * 200_000
        )


def florence_tokenizer(folder: ModelFolder) -> Any:
    """The folder's tokenizer, with the words that Microsoft's code adds to it, and the picture's place."""
    words = open_tokenizer(folder)
    for role, mark in keys.MARKS.items():  # Microsoft's tokenizer_config.json names none of them
        if getattr(words, role) != mark and words.convert_tokens_to_ids(mark) not in (None, words.unk_token_id):
            setattr(words, role, mark)
    missing = [word for word in keys.added_words() if words.convert_tokens_to_ids(word) in (None, words.unk_token_id)]
    if missing:
        words.add_tokens(missing, special_tokens=True)
    image = _image_id(folder)
    if image == len(words):
        words.add_tokens([keys.IMAGE_TOKEN], special_tokens=True)
    if image >= len(words):
        reason = f"its picture token is number {image}, but its tokenizer has {len(words)} words"
        raise BrokenFolder(name=folder.name, reason=reason)
    words.padding_side = "right"
    return words


def _image_id(folder: ModelFolder) -> int:
    config = folder.config()
    if isinstance(config.get("image_token_id"), int):
        return config["image_token_id"]
    # Microsoft's layout has none: the next number behind the vocabulary
    return int((config.get("text_config") or {}).get("vocab_size") or config.get("vocab_size") or 51289)


def _pixels(folder: ModelFolder) -> tuple[Pixels, int]:
    """How a picture goes in, and how many places it takes in the text."""
    told = folder.json("preprocessor_config.json")
    size, crop = told.get("size") or {}, told.get("crop_size") or {}
    height, width = (size.get(side) or crop.get(side) or 768 for side in ("height", "width"))
    if height != width or told.get("resample", 3) not in _RESAMPLE:
        reason = f"pictures of {width} x {height}, resampled as {told.get('resample')}, are not known"
        raise BrokenFolder(name=folder.name, reason=reason)
    mean = tuple(told.get("image_mean") or (0.485, 0.456, 0.406))
    std = tuple(told.get("image_std") or (0.229, 0.224, 0.225))
    pixels = Pixels(
        layout="NCHW",
        channels="RGB",
        fit="squash",
        resample=_RESAMPLE[told.get("resample", 3)],
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
        size=int(height),
    )
    return pixels, int(told.get("image_seq_length") or 577)


def _generation(folder: ModelFolder) -> dict[str, Any]:
    """Whose words begin and end an answer: of generation_config.json, else of the text config (Microsoft's layout)."""
    text = {k: v for k, v in (folder.config().get("text_config") or {}).items() if k in _GENERATION and v is not None}
    if folder.has("generation_config.json"):
        text |= {k: v for k, v in folder.json("generation_config.json").items() if k in _GENERATION and v is not None}
    return text


def _source(folder: ModelFolder, dtype: torch.dtype) -> Source:
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    tensors = folder.tensors()
    if not keys.is_microsoft_layout(tensors):
        return Source(Florence2ForConditionalGeneration, Florence2Config.from_pretrained(str(folder.path)))
    weights = _converted(folder, dtype)
    rows = weights["lm_head.weight"].shape[0]
    try:
        settings = keys.native_config(folder.config())
        settings["text_config"]["vocab_size"] = rows
        config = Florence2Config(**settings, image_token_id=_image_id(folder))
    except (TypeError, ValueError) as error:
        raise NotLoadable(name=folder.name, reason=str(error).splitlines()[0]) from error
    return Source(Florence2ForConditionalGeneration, config, weights)


def _converted(folder: ModelFolder, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All tensors of Microsoft's files by native names, the embedding grown by the picture's place."""
    found: dict[str, torch.Tensor] = {}
    for path in folder.weights():
        for name, tensor in read_tensors(read_header(path), dtype=dtype).items():
            try:
                native = keys.native_name(name)
            except KeyError as error:
                words = {"what": "are left over", "what_zh": "多余", "example": name}
                raise WrongWeights(name=folder.name, count=1, **words) from error
            if native is not None:
                found[native] = tensor.t().contiguous() if native == keys.TRANSPOSED else tensor
    table = found.get("model.language_model.shared.weight", found.get("lm_head.weight"))
    if table is None:
        words = {"what": "are missing", "what_zh": "缺失", "example": "language_model.model.shared.weight"}
        raise WrongWeights(name=folder.name, count=1, **words)
    rows = -(-(len(table) + 1) // _PAD_TO) * _PAD_TO
    grown = torch.cat([table, table.float().mean(0, keepdim=True).to(dtype).expand(rows - len(table), -1)])
    return {**found, **dict.fromkeys(_embedding_names(found), grown)}


def _embedding_names(found: dict[str, torch.Tensor]) -> list[str]:
    """The embedding under every name that a file may have it by; all are one tensor."""
    always = ["model.language_model.shared.weight", "lm_head.weight"]
    return always + [name for name in found if name.endswith("embed_tokens.weight")]
