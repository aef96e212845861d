"""A V1 pack of nodes that do nothing: what is left is the price of the graph itself."""


class AnyType(str):
    def __ne__(self, other):
        return False


class BenchConst:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 0, "min": -(2**53), "max": 2**53})}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "bench"

    def run(self, value):
        return (value,)


class BenchNoop(BenchConst):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 0, "forceInput": True})}}


class BenchSink:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": (AnyType("*"), {})}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    CATEGORY = "bench"
    OUTPUT_NODE = True

    def run(self, value):
        return {}


class BenchSteps:
    """Takes its time in small steps, as a sampler does."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seconds": ("FLOAT", {"default": 1.0}), "step": ("FLOAT", {"default": 0.01})}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "bench"

    def run(self, seconds, step):
        import time

        from comfy.utils import ProgressBar

        count = max(1, int(seconds / step))
        bar = ProgressBar(count)
        for _ in range(count):
            time.sleep(step)
            bar.update(1)
        return (count,)


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (BenchConst, BenchNoop, BenchSink, BenchSteps)}
