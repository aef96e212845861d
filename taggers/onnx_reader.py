"""An ONNX tagger at work in a run: one session under the device layer, probabilities as readings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from engine.dataset.arrays import TAGGER
from engine.dataset.records import Policy, Reading
from engine.models.manager import ModelManager
from taggers.catalogue import InstalledTagger
from taggers.contract import contract
from taggers.onnx_tagger import Session, model_spec, refuse_broken, scores, version_of, working_bytes
from taggers.pixels import fitted
from taggers.reader import Origin
from taggers.rules import reading
from taggers.settings import OnnxTool
from taggers.tool import About


class OnnxReader:
    """Raises WrongShape, WrongVocabulary, NotOnnx when it is opened."""

    wants_words = False

    def __init__(self, manager: ModelManager, installed: InstalledTagger, tool: OnnxTool) -> None:
        self._manager, self._installed, self._tool = manager, installed, tool
        self._model = contract(installed)
        self.title, self.batch_size, self.provider = installed.name, tool.batch_size, ""
        self.at_least = self._model.size
        self._ref = manager.add(model_spec(installed))
        side, first = self._model.size, self._model.spec.pixels.layout == "NCHW"
        shape = (3, side, side) if first else (side, side, 3)
        self._memory = np.empty((tool.batch_size, *shape), np.float32)  # untouched, it takes none

    def origin(self) -> Origin:
        """Thresholds are no part of its identity: they move without running again."""
        policy = Policy(
            {**self._installed.thresholds(), **self._tool.thresholds},
            mcut=self._installed.mcut() if self._tool.mcut is None else self._tool.mcut,
        )
        name, version = self._installed.name, version_of(self._installed.file)
        return Origin(f"{TAGGER}{name}", version, {"floor": self._tool.floor}, policy)

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(fitted(image, self._model.spec.pixels, self._model.size))

    def read(self, prepared: Sequence[np.ndarray], about: Sequence[About]) -> list[Reading]:
        working = working_bytes(self._model, len(prepared))
        with self._manager.lease(self._ref, working=working) as leased:
            session: Session = leased[self._ref]
            found, self.provider = scores(session, self._model, prepared, self._memory), session.provider
        refuse_broken(self._model, found, [one.name for one in about])
        return [reading(row, self._model.words, self._tool.floor) for row in found]

    def close(self) -> None:
        pass
