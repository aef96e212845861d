"""`comfy.model_base`: what a model predicts, for packs that ask `model.model.model_type`."""

from __future__ import annotations

from enum import Enum
from typing import Any

from engine.custom.links import missing
from engine.custom.links.model import Inner
from engine.custom.stands import stands_for


class ModelType(Enum):
    EPS = 1
    V_PREDICTION = 2
    V_PREDICTION_EDM = 3
    STABLE_CASCADE = 4
    EDM = 5
    FLOW = 6
    V_PREDICTION_CONTINUOUS = 7
    FLUX = 8
    IMG_TO_IMG = 9
    FLOW_COSMOS = 10


BaseModel = stands_for(Inner, "comfy.model_base.BaseModel", "model.model of a MODEL link")


def __getattr__(name: str) -> Any:
    raise missing("comfy.model_base", name, "ModelType, and BaseModel as a type")
