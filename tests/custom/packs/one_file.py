"""A pack in a single file."""


class Twice:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"multiline": True})}}

    RETURN_TYPES = ("STRING",)
    FUNCTION = "twice"
    CATEGORY = "one file"

    def twice(self, text):
        return (text * 2,)


NODE_CLASS_MAPPINGS = {"Twice": Twice}
