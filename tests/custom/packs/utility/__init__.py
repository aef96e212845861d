"""A pack as utility packs are: wildcard types, state, messages, hidden inputs, choices from folders."""

import hashlib
import os

import folder_paths
from server import PromptServer

from .switches import AnySwitch, LazySwitch, PowerInputs

WEB_DIRECTORY = "./web"


class AnyType(str):
    def __ne__(self, other):
        return False


anything = AnyType("*")


class Counter:
    """Keeps state between prompts and says every time that it changed."""

    def __init__(self):
        self.count = 0

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"step": ("INT", {"default": 1, "min": 1, "max": 100})}}

    RETURN_TYPES = ("INT",)
    RETURN_NAMES = ("count",)
    FUNCTION = "advance"
    CATEGORY = "utility"
    DESCRIPTION = "Counts up."

    def advance(self, step):
        self.count += step
        return (self.count,)

    @classmethod
    def IS_CHANGED(cls, **kwargs):
        return float("nan")


class FileChooser:
    @classmethod
    def INPUT_TYPES(cls):
        folder = folder_paths.get_input_directory()
        return {
            "required": {
                "file": (sorted(os.listdir(folder)), {"image_upload": True}),
                "checkpoint": (folder_paths.get_filename_list("checkpoints"),),
            }
        }

    RETURN_TYPES = ("STRING",)
    FUNCTION = "choose"
    CATEGORY = "utility"

    def choose(self, file, checkpoint):
        return (folder_paths.get_annotated_filepath(file),)

    @classmethod
    def VALIDATE_INPUTS(cls, file):
        return True if folder_paths.exists_annotated_filepath(file) else f"no such file: {file}"


class ShowAnything:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"source": (anything, {"forceInput": True})},
            "hidden": {"node": "UNIQUE_ID", "whole": "PROMPT", "info": "EXTRA_PNGINFO", "running": "DYNPROMPT"},
        }

    RETURN_TYPES = (anything,)
    FUNCTION = "show"
    CATEGORY = "utility"
    OUTPUT_NODE = True

    def show(self, source, node=None, whole=None, info=None, running=None):
        PromptServer.instance.send_sync("utility.shown", {"node": node, "text": str(source)})
        about = [str(source), node, whole[node]["class_type"], str(info), str(running.has_node(node))]
        return {"ui": {"text": about}, "result": (source,)}


class SameType:
    """Checks the types of its links itself."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("INT", {"forceInput": True}), "b": ("INT", {"forceInput": True})}}

    RETURN_TYPES = ("STRING",)
    FUNCTION = "both"
    CATEGORY = "utility"

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True if input_types["a"] == input_types["b"] else f"{input_types['a']} is not {input_types['b']}"

    def both(self, a, b):
        return (f"{a} {b}",)


class PlainChooser:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"file": (sorted(os.listdir(folder_paths.get_input_directory())),)}}

    RETURN_TYPES = ("STRING",)
    FUNCTION = "choose"
    CATEGORY = "utility"

    def choose(self, file):
        return (file,)


class Say:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {})}, "hidden": {"node": "UNIQUE_ID"}}

    RETURN_TYPES = ("STRING",)
    FUNCTION = "say"
    CATEGORY = "utility"

    def say(self, text, node):
        PromptServer.instance.send_progress_text(text, node)
        return (text,)


class NoMethod:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    RETURN_TYPES = ()
    FUNCTION = "missing"


@PromptServer.instance.routes.get("/utility/hello/{name}")
async def hello(request):
    from aiohttp import web

    return web.json_response({"hello": request.match_info["name"], "loud": request.query.get("loud")})


class Paid:
    """Asks for what pays for a service elsewhere, and quotes it when it is refused."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"refused": ("BOOLEAN", {"default": False}), "invoice": ("INT", {"default": 0})},
            "hidden": {
                "auth_token": "AUTH_TOKEN_COMFY_ORG",
                "api_key": "API_KEY_COMFY_ORG",
                "source": "COMFY_USAGE_SOURCE",
            },
        }

    RETURN_TYPES = ("STRING",)
    FUNCTION = "pay"
    CATEGORY = "utility"

    def pay(self, refused, invoice, auth_token=None, api_key=None, source=None):
        if refused:
            raise RuntimeError(f"the service refused {auth_token} and {api_key}")
        known = (hashlib.sha256(str(one).encode()).hexdigest()[:12] for one in (auth_token, api_key))
        return ("/".join([*known, str(source)]),)


NODE_CLASS_MAPPINGS = {
    "Paid": Paid,
    "Counter": Counter,
    "FileChooser": FileChooser,
    "ShowAnything": ShowAnything,
    "SameType": SameType,
    "PlainChooser": PlainChooser,
    "Say": Say,
    "AnySwitch": AnySwitch,
    "LazySwitch": LazySwitch,
    "PowerInputs": PowerInputs,
    "NoMethod": NoMethod,
}
NODE_DISPLAY_NAME_MAPPINGS = {"Counter": "Count up"}
