"""Tokenizers and chat templates from a captioner's folder, and processors without torchvision. Runs in the worker.

transformers' video processors exist for torchvision only, and so do, by way of them, the whole processors of models
that also see films. Ours show them pictures alone: `image_only` is the model's own processor class without that part.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub.errors import StrictDataclassError

from taggers.folder import BrokenFolder, ModelFolder, first_line

# what transformers raises on files that are broken or do not belong together
LIBRARY_ERRORS = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError, RuntimeError, ArithmeticError),
    StrictDataclassError,
)


def refuse_other_words(folder: ModelFolder, highest: int, rows: int) -> None:
    """A tokenizer of another model: on a GPU, a word without a row would end the process."""
    if highest >= rows:
        reason = f"its tokenizer has a word number {highest}, but the model only {rows} words"
        raise BrokenFolder(name=folder.name, reason=reason)


def open_tokenizer(folder: ModelFolder) -> Any:
    """Raises BrokenFolder."""
    from transformers import AutoTokenizer

    _refuse_without_words(folder)
    try:
        words = AutoTokenizer.from_pretrained(str(folder.path), local_files_only=True, trust_remote_code=False)
    except LIBRARY_ERRORS as error:
        raise BrokenFolder(name=folder.name, reason=f"its tokenizer can't be read ({first_line(error)})") from error
    if words.pad_token_id is None:
        words.pad_token = words.eos_token
    return words


def open_processor(folder: ModelFolder) -> Any:
    """The model's own processor, on Pillow: the same pixels with torchvision or without. Raises BrokenFolder."""
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    _refuse_without_words(folder)
    try:
        config = AutoConfig.from_pretrained(str(folder.path), local_files_only=True, trust_remote_code=False)
        known = PROCESSOR_MAPPING.get(type(config), None)
        opener = image_only(known) if known is not None else AutoProcessor
        found = opener.from_pretrained(str(folder.path), local_files_only=True, trust_remote_code=False, backend="pil")
    except LIBRARY_ERRORS as error:
        raise BrokenFolder(name=folder.name, reason=f"its processor can't be read ({first_line(error)})") from error
    words = found.tokenizer
    words.padding_side = "left"
    if words.pad_token_id is None:
        words.pad_token = words.eos_token
    return found


def image_only(whole: Any) -> Any:
    """A processor class without its video processor; pictures and words go in as with the whole one."""
    parts = whole.get_attributes()
    if "video_processor" not in parts:
        return whole
    kept = [part for part in parts if part != "video_processor"]

    class ImageOnly(whole):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return list(kept)

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return object if name == "video_processor" else super().check_argument_for_proper_class(name, argument)

        def __init__(
            self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **more: Any
        ) -> None:
            # the whole one's own __init__ asks for all parts: the picture's stands in for the film's, and goes again
            self.get_attributes = lambda: list(parts)
            try:
                whole.__init__(
                    self,
                    image_processor=image_processor,
                    tokenizer=tokenizer,
                    video_processor=image_processor,
                    chat_template=chat_template,
                    **more,
                )
            finally:
                del self.get_attributes
            del self.video_processor

    ImageOnly.__name__, ImageOnly.__qualname__ = whole.__name__, whole.__qualname__
    return ImageOnly


def _refuse_without_words(folder: ModelFolder) -> None:
    """transformers makes a tokenizer without any words where the file is missing."""
    if not folder.has("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt"):
        raise BrokenFolder(name=folder.name, reason="it has no tokenizer.json")
