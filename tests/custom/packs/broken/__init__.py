"""A pack that needs what is not here."""

import comfy.ldm  # noqa: F401

NODE_CLASS_MAPPINGS = {}
