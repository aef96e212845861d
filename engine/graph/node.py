"""How a graph node is declared: one typed function under `@node`. Torch-free; it knows no executor and no server.

    from typing import Annotated
    from engine.graph.node import In, Models, NodeContext, Out, node

    @node("LoraLoader", title="Load LoRA", category="loaders", outputs=[Out("MODEL"), Out("CLIP")])
    def lora_loader(
        ctx: NodeContext,
        model: Annotated[Model, In("MODEL")],
        clip: Annotated[Clip, In("CLIP", tooltip="The CLIP model the LoRA is applied to.")],
        lora_name: Annotated[str, In(Models("loras"))],
        strength_model: Annotated[float, In("FLOAT", default=1.0, min=-100.0, max=100.0, step=0.01)],
        mode: Annotated[str, In(["both", "unet only"], default="both")],
        mask: Annotated[Tensor | None, In("MASK")] = None,
    ) -> tuple[Model, Clip]:
        ...
        return model, clip

Rules
- The first parameter is the context. Every other one is an input of the same name, `Annotated[python type, In(...)]`.
  The Python type is for pyright only; names imported under TYPE_CHECKING alone are fine.
- A parameter with a Python default is an optional input, all others are required. `In(default=...)` is what an editor
  shows; a prompt must still send it.
- `In("INT")` takes a socket type ("INT", "FLOAT", "STRING", "BOOLEAN", "IMAGE", "MODEL", "INT,FLOAT", "*"), or choices:
  a list, or something callable with the workspace that lists them when asked (`Models("checkpoints")`,
  `InputPictures()`, or a function of a torch-free module: the server calls it too).
- Shorthands for plain sockets: `image: IMAGE`, `mask: MASK`, `latent: LATENT`, `model: MODEL` ...
- It returns a tuple with one value per output; nothing when there are no outputs; or a dict with any of
  `{"ui": {"images": [...]}, "result": (...), "expand": {...}}`. It may be `async def`.
- `output_node=True`: it runs because of what it does (saves, previews), and what it feeds on runs because of it.
- Hooks are functions of the same parameters by name (each takes what it names, plus `ctx` where it names it):
  `fingerprint` (called with the constants only, links are None; its value joins the cache key; NaN = never cached),
  `validate` (True, or a message why not; runs before the prompt is accepted),
  `check_lazy` (for `In(..., lazy=True)`: gets None for what is not computed yet, returns the names it needs now).
- Inputs that depend on others are declared as ComfyUI shows them, and arrive as dicts (engine/graph/dynamic.py):
  `In("COMFY_AUTOGROW_V3", extra={"template": {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image",
  "min": 1, "max": 50}})`, `In("COMFY_DYNAMICCOMBO_V3", extra={"options": [{"key": "png", "inputs": {...}}]})`.
- Which node stands in for which in a draft is a table in engine/graph/draft.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias, TypeVar

from engine.errors import PathError
from engine.workspace import inside, is_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from engine.graph.builder import GraphBuilder
    from engine.models.manager import ModelManager
    from engine.workspace import Workspace

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
Function = TypeVar("Function", bound=Callable[..., Any])


class NodeContext(Protocol):
    """What a node may use besides its inputs. Made anew for every call of a node."""

    @property
    def workspace(self) -> Workspace: ...
    @property
    def models(self) -> ModelManager: ...
    @property
    def node_id(self) -> str: ...
    @property
    def job_id(self) -> str: ...
    @property
    def prompt(self) -> dict[str, Any]:
        """The API prompt as it was submitted (what goes into a picture's metadata)."""
        ...

    @property
    def extra_pnginfo(self) -> dict[str, Any]:
        """{"workflow": ...} and whatever else a client wants kept in its pictures."""
        ...

    @property
    def draft(self) -> bool:
        """True in a draft: pictures must be marked as such."""
        ...

    @property
    def preview_method(self) -> str:
        """How the client wants to see latents on the way: "auto", "latent2rgb", "taesd" or "none", as ComfyUI's."""
        ...

    @property
    def live(self) -> dict[str, Any]:
        """Objects patched in by whoever started the run (the LoRA under training for previews); usually empty."""
        ...

    def progress(self, step: int, total: int) -> None:
        """Tell how far this node is. Raises errors.Cancelled when the run was interrupted."""
        ...

    @property
    def graph(self) -> GraphBuilder:
        """For nodes that expand: names the nodes so that an equal expansion is found in the cache the next time."""
        ...

    def preview(self, image: Image) -> None:
        """Show a picture of the work so far (a PIL image, any size; it is made smaller for the wire)."""
        ...

    def warn(self, en: str, zh: str) -> None:
        """Tell the user something that is no error: in the editor on the node, on the page, in the history."""
        ...

    def interrupt_check(self) -> None:
        """Raise errors.Cancelled when the run was interrupted. Cheap; call it between parts of long work."""
        ...


class Choices(Protocol):
    """Lists what may be chosen, when asked."""

    def __call__(self, workspace: Workspace, /) -> list[str]: ...


@dataclass(frozen=True)
class Models:
    """Choices: the model files of one of the workspace's model folders."""

    folder: str

    def __call__(self, workspace: Workspace, /) -> list[str]:
        return workspace.list_models(self.folder)


@dataclass(frozen=True)
class InputFiles:
    """Choices: files directly in the workspace's input folder whose names end as one of `suffixes`; or those in the
    output folder and below it, newest first, as "folder/x.png [output]"."""

    suffixes: tuple[str, ...]
    what: str = "image"
    folder: Literal["input", "output"] = "input"

    def __call__(self, workspace: Workspace, /) -> list[str]:
        if self.folder == "output":
            return [f"{name} [output]" for name in self._below(workspace.output)]
        if not workspace.input.is_dir():
            return []
        files = (p for p in workspace.input.iterdir() if is_text(p.name) and os.path.isfile(p))
        return sorted(p.name for p in files if p.name.lower().endswith(self.suffixes))

    def problem(self, workspace: Workspace, value: str) -> str:
        """Why `value` can't be used, or "". Names in subfolders and of other folders ("x.png [output]") are fine."""
        try:
            found = os.path.isfile(workspace_file(workspace, value))
        except PathError:
            found = False
        return "" if found else f"Invalid {self.what} file: {value}"

    def _below(self, root: Path) -> list[str]:
        found: list[tuple[float, str]] = []
        for folder, _, files in os.walk(root):
            for name in files:
                path = os.path.join(folder, name)
                if name.lower().endswith(self.suffixes) and is_text(path) and os.path.isfile(path):
                    found.append((-os.path.getmtime(path), Path(path).relative_to(root).as_posix()))
        return [name for _, name in sorted(found)]


def OutputPictures() -> InputFiles:
    """Choices: the pictures in the output folder."""
    return InputFiles(PICTURES, folder="output")


def InputPictures() -> InputFiles:
    """Choices: the pictures in the input folder."""
    return InputFiles(PICTURES)


def workspace_file(workspace: Workspace, name: str) -> Path:
    """The path a file name of a prompt means: in the input folder, or in the one it names: "a/x.png [output]".
    Raises PathError for names that leave the folder."""
    match = re.fullmatch(r"(.*?)\s*\[(input|output|temp)\]", name, re.DOTALL)
    name, folder = match.groups() if match else (name, "input")
    return inside(getattr(workspace, folder), name)


@dataclass(frozen=True)
class In:
    """One input. `type` is a socket type or the choices of a combo; the rest are ComfyUI's options of the same names
    (`extra` holds any other). None means not stated."""

    type: str | Sequence[str] | Choices
    default: Any = None
    min: float | None = None
    max: float | None = None
    step: float | None = None
    round: float | bool | None = None
    multiline: bool | None = None
    dynamic_prompts: bool | None = None
    control_after_generate: bool | None = None
    force_input: bool | None = None
    lazy: bool | None = None
    multiselect: bool | None = None
    image_upload: bool | None = None
    advanced: bool | None = None
    tooltip: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Out:
    """One output: socket type, name (the type when empty), and whether its value is a list to be mapped over."""

    type: str
    name: str = ""
    is_list: bool = False
    tooltip: str = ""


@dataclass(frozen=True)
class Declaration:
    """What `@node` was told; `registry.NodeType.of(function)` reads it together with the signature."""

    name: str
    title: str
    title_zh: str
    category: str
    description: str
    outputs: tuple[Out, ...]
    hidden: tuple[str, ...]
    output_node: bool
    input_is_list: bool
    not_idempotent: bool
    has_intermediate_output: bool
    deprecated: bool
    experimental: bool
    search_aliases: tuple[str, ...]
    internal: bool
    fingerprint: Callable[..., Any] | None
    validate: Callable[..., bool | str] | None
    check_lazy: Callable[..., Sequence[str]] | None
    inputs: dict[str, In] = field(default_factory=dict)


def node(
    name: str,
    *,
    category: str,
    outputs: Sequence[Out] = (),
    title: str = "",
    title_zh: str = "",
    description: str = "",
    hidden: Sequence[
        str
    ] = (),  # "PROMPT", "EXTRA_PNGINFO", "UNIQUE_ID": what of ctx it reads; UNIQUE_ID joins its cache key
    output_node: bool = False,
    input_is_list: bool = False,  # every input arrives whole, as a list
    not_idempotent: bool = False,  # two equal nodes in one prompt both run
    has_intermediate_output: bool = False,
    deprecated: bool = False,
    experimental: bool = False,
    search_aliases: Sequence[str] = (),
    internal: bool = False,  # not listed to clients and not accepted from them: put in by a rewrite (drafts)
    fingerprint: Callable[..., Any] | None = None,
    validate: Callable[..., bool | str] | None = None,
    check_lazy: Callable[..., Sequence[str]] | None = None,
    inputs: Mapping[str, In] | None = None,  # more, whose names can't be parameters: the last one is their mapping
) -> Callable[[Function], Function]:
    """Declare a function as the node `name` (its class_type in prompts). The function itself is returned unchanged, so
    that other code and tests call it directly. `engine.nodes.load_all` finds it; nothing is registered at import."""

    def declare(function: Function) -> Function:
        function.__node__ = Declaration(  # type: ignore[attr-defined]
            name=name,
            title=title or name,
            title_zh=title_zh,
            category=category,
            description=description,
            outputs=tuple(outputs),
            hidden=tuple(hidden),
            output_node=output_node,
            input_is_list=input_is_list,
            not_idempotent=not_idempotent,
            has_intermediate_output=has_intermediate_output,
            deprecated=deprecated,
            experimental=experimental,
            search_aliases=tuple(search_aliases),
            internal=internal,
            fingerprint=fingerprint,
            validate=validate,
            check_lazy=check_lazy,
            inputs=dict(inputs or {}),
        )
        return function

    return declare


class Blocker:
    """As an output value: whoever would use it is skipped, and so is what follows. With a message, the skipped node
    reports it as an error while the rest of the run goes on; without one it is silent."""

    __slots__ = ("message",)

    def __init__(self, message: str | None = None) -> None:
        self.message = message


# Shorthands for plain required sockets. The values that flow along them:
IMAGE: TypeAlias = Annotated[Any, In("IMAGE")]  # float32 (batch, height, width, channel), 0..1
MASK: TypeAlias = Annotated[Any, In("MASK")]  # float32 (batch, height, width), 0..1
LATENT: TypeAlias = Annotated[dict[str, Any], In("LATENT")]  # {"samples": (b, c, h, w), "noise_mask"?, "batch_index"?}
CONDITIONING: TypeAlias = Annotated[list[Any], In("CONDITIONING")]  # [[(batch, n, c), {"pooled_output": ...}], ...]
MODEL: TypeAlias = Annotated[Any, In("MODEL")]  # engine.families.base.Model
CLIP: TypeAlias = Annotated[Any, In("CLIP")]  # engine.families.base.Clip
VAE: TypeAlias = Annotated[Any, In("VAE")]  # engine.families.base.Vae
