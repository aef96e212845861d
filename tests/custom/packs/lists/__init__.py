"""A pack of list nodes and of expansions, as loop packs write them."""

import comfy.model_management
import comfy.utils
import nodes
import torch
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.graph_utils import GraphBuilder, is_link


class MakeList:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"count": ("INT", {"default": 3})}}

    RETURN_TYPES = ("INT",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "make"
    CATEGORY = "lists"

    def make(self, count):
        bar = comfy.utils.ProgressBar(count)
        for _ in range(count):
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update(1)
        return (list(range(count)),)


class SumList:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"values": ("INT", {"forceInput": True}), "factor": ("INT", {"default": 1})},
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    INPUT_IS_LIST = True
    RETURN_TYPES = ("INT", "STRING")
    FUNCTION = "total"
    CATEGORY = "lists"

    def total(self, values, factor, unique_id):
        return sum(values) * factor[0], unique_id[0]


class OnlyEven:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"forceInput": True})}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "check"
    CATEGORY = "lists"

    def check(self, value):
        return (value if value % 2 == 0 else ExecutionBlocker(None),)


class Repeat:
    """Expands into itself until nothing is left: a loop."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"value": ("INT", {"default": 0}), "times": ("INT", {"default": 1})},
            "hidden": {"dynprompt": "DYNPROMPT", "unique_id": "UNIQUE_ID"},
        }

    RETURN_TYPES = ("INT",)
    FUNCTION = "repeat"
    CATEGORY = "lists"

    def repeat(self, value, times, dynprompt, unique_id):
        assert not is_link(dynprompt.get_node(unique_id)["inputs"]["times"])
        if times <= 0:
            return (value,)
        graph = GraphBuilder()
        more = graph.node("AddOne", value=value)
        again = graph.node("Repeat", id="again", value=more.out(0), times=times - 1)
        return {"result": (again.out(0),), "expand": graph.finalize()}


class AddOne:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"forceInput": True})}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "add"
    CATEGORY = "lists"

    def add(self, value):
        return (value + 1,)


class SlowAdd:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"forceInput": True})}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "add"
    CATEGORY = "lists"

    async def add(self, value):
        import asyncio

        await asyncio.sleep(0.001)
        comfy.utils.ProgressBar(1).update(1)
        return (value + 10,)


class InvertTwice:
    """Calls a node of the studio by its class."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    RETURN_TYPES = ("FLOAT",)
    FUNCTION = "run"
    CATEGORY = "lists"

    def run(self, image):
        invert = nodes.NODE_CLASS_MAPPINGS["ImageInvert"]()
        once = getattr(invert, invert.FUNCTION)(image)[0]
        twice = nodes.ImageInvert().invert(image=once)[0]
        return (float(torch.max(torch.abs(twice - image))),)


class SaveSmall(nodes.SaveImage):
    """Inherits a node of the studio."""

    def __init__(self):
        super().__init__()
        self.prefix_append = "_small"

    FUNCTION = "save"

    def save(self, images, filename_prefix="pack", prompt=None, extra_pnginfo=None):
        small = comfy.utils.common_upscale(images.movedim(-1, 1), 8, 8, "area", "center").movedim(1, -1)
        return self.save_images(small, filename_prefix, prompt, extra_pnginfo)


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls for cls in (MakeList, SumList, OnlyEven, Repeat, AddOne, SlowAdd, InvertTwice, SaveSmall)
}
