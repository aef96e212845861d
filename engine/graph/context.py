"""What a run may use, and what one call of a node may use of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.graph.builder import GraphBuilder

if TYPE_CHECKING:
    from PIL.Image import Image

    from engine.graph.dynprompt import DynPrompt
    from engine.models.manager import ModelManager
    from engine.workspace import Workspace


PREVIEW_METHODS = ("auto", "latent2rgb", "taesd", "none")
WARNING = "easel_warning"  # a message of ours among ComfyUI's: something went otherwise than the user may think


@dataclass(frozen=True)
class RunContext:
    """What a run may use, and whom it tells. `prompt` is what was submitted: it goes into the metadata of pictures."""

    prompt_id: str
    workspace: Workspace
    models: ModelManager
    prompt: dict[str, Any] = field(default_factory=dict)
    extra_data: dict[str, Any] = field(default_factory=dict)
    draft: bool = False
    live: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)  # tokens that the client sent for this run
    interrupt_check: Callable[[], None] = lambda: None
    preview: Callable[[Image, dict[str, Any]], None] = lambda image, about: None


class CallContext:
    """The NodeContext of engine/graph/node.py. `about` holds the ids of the node; `report(step, total)` tells how far
    it is; `index` is the place of the call among those of the node."""

    __slots__ = ("_about", "_graph", "_graphs", "_index", "_report", "_run", "_warn", "dynprompt")

    def __init__(
        self,
        run: RunContext,
        about: dict[str, Any],
        index: int,
        report: Callable[[int, int], None],
        dynprompt: DynPrompt,
        warn: Callable[[str, str], None],
    ) -> None:
        self.dynprompt = dynprompt
        self._run = run
        self._about = about
        self._index = index
        self._report = report
        self._warn = warn
        self._graph: GraphBuilder | None = None
        self._graphs = 0

    @property
    def workspace(self) -> Workspace:
        return self._run.workspace

    @property
    def models(self) -> ModelManager:
        return self._run.models

    @property
    def node_id(self) -> str:
        return self._about["node_id"]

    @property
    def index(self) -> int:
        return self._index

    @property
    def job_id(self) -> str:
        return self._run.prompt_id

    @property
    def client_id(self) -> str:
        """The websocket client that sent the prompt; "" when there is none."""
        return str(self._run.extra_data.get("client_id") or "")

    @property
    def prompt(self) -> dict[str, Any]:
        return self._run.prompt

    @property
    def extra_pnginfo(self) -> dict[str, Any]:
        return self._run.extra_data.get("extra_pnginfo") or {}

    def secret(self, name: str) -> str | None:
        """A token that the client sent for this run, such as "api_key_comfy_org"."""
        return self._run.secrets.get(name)

    @property
    def usage_source(self) -> str | None:
        """Which program sent the prompt, where it says so."""
        source = self._run.extra_data.get("comfy_usage_source")
        return source if isinstance(source, str) else None

    @property
    def draft(self) -> bool:
        return self._run.draft

    @property
    def preview_method(self) -> str:
        method = self._run.extra_data.get("preview_method")
        return method if method in PREVIEW_METHODS else "auto"

    @property
    def live(self) -> dict[str, Any]:
        return self._run.live

    @property
    def graph(self) -> GraphBuilder:
        if self._graph is None:
            self._graph = GraphBuilder(self.graph_prefix())
        return self._graph

    def graph_prefix(self) -> str:
        """What the ids of the next graph start with that this call expands into."""
        prefix = f"{self.node_id}.{self._index}.{self._graphs}."
        self._graphs += 1
        return prefix

    def progress(self, step: int, total: int) -> None:
        self._report(step, total)
        self._run.interrupt_check()

    def warn(self, en: str, zh: str) -> None:
        self._warn(en, zh)

    def preview(self, image: Image) -> None:
        self._run.preview(image, self._about)

    def interrupt_check(self) -> None:
        self._run.interrupt_check()
