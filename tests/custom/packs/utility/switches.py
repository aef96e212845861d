"""Switches as packs write them: inputs that no list names, any number of outputs, lazy sides."""


class AnyType(str):
    def __ne__(self, other):
        return False


class EveryName(dict):
    """Claims to hold every input."""

    def __contains__(self, key):
        return True

    def __getitem__(self, key):
        return (AnyType("*"),)


class EverySlot(tuple):
    def __getitem__(self, index):
        return super().__getitem__(min(index, len(self) - 1))


class AnySwitch:
    """The first input that is there."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": EveryName()}

    RETURN_TYPES = (AnyType("*"),)
    FUNCTION = "switch"
    CATEGORY = "utility"

    def switch(self, **inputs):
        return (next((value for value in inputs.values() if value is not None), None),)


class LazySwitch:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "choose_b": ("BOOLEAN", {"default": False}),
                "a": ("*", {"lazy": True}),
                "b": ("*", {"lazy": True}),
            }
        }

    RETURN_TYPES = ("*",)
    FUNCTION = "switch"
    CATEGORY = "utility"

    def check_lazy_status(self, choose_b, a=None, b=None):
        wanted = "b" if choose_b else "a"
        return [wanted] if (b if choose_b else a) is None else []

    def switch(self, choose_b, a=None, b=None):
        return (b if choose_b else a,)


class PowerInputs:
    """Rows that its page adds, as constants under names of its own; and as many outputs as are asked for."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"start": ("INT", {"default": 0})}, "optional": EveryName()}

    RETURN_TYPES = EverySlot(("INT",))
    FUNCTION = "rows"
    CATEGORY = "utility"

    def rows(self, start, **rows):
        values = [row["strength"] for name, row in sorted(rows.items()) if isinstance(row, dict) and row.get("on")]
        return (start + sum(values), *values)
