"""`comfy.model_patcher`: the type of MODEL links, for packs that name it."""

from engine.custom.stands import stands_for
from engine.families.base import Model

ModelPatcher = stands_for(Model, "comfy.model_patcher.ModelPatcher", "the model that a node is given, or its clone()")
