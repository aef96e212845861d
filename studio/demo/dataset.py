"""The demo dataset as a dataset of the studio: the creature's pictures, ready to be tagged."""

from __future__ import annotations

from engine.dataset.captions import CaptionRules
from engine.dataset.export import set_rules
from engine.dataset.library import Dataset, Library
from engine.dataset.pictures import scan
from engine.workspace import replacing
from studio.demo.bbdr import TRIGGER_WORD, demo_dataset

NAME = "bbdr"


def make_demo_dataset(library: Library) -> Dataset:
    """A new dataset with the pictures of the demo world's unknown creature. Raises NameTaken when it is there."""
    dataset = library.create(NAME)
    for picture in demo_dataset():
        with replacing(dataset.root / picture.name) as file:
            picture.image.save(file, "PNG")
    scan(dataset)
    set_rules(dataset, CaptionRules.model_validate({"trigger_word": TRIGGER_WORD}))
    return dataset
