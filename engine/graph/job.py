"""The "generate" job: runs one prompt in the worker. The server imports this too, for its settings: no torch at import.

The executors with their caches are kept by the worker between jobs; drafts have one of their own, so that a draft
never pushes out or feeds what a final needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import GraphError
from engine.graph.cache import NoCache
from engine.graph.catalogue import Catalogue
from engine.graph.context import RunContext
from engine.graph.draft import drafted
from engine.graph.errors import is_out_of_memory
from engine.graph.executor import Executor
from engine.graph.registry import Registry, WholeHook, call_hook
from engine.graph.strategies import cache_for, dump
from engine.graph.validation import CustomCheck, validate

if TYPE_CHECKING:
    from PIL.Image import Image

    from engine.jobs.types import JobContext
    from engine.workspace import Workspace

PREVIEW_SIDE = 512  # previews are made no larger than this


class PromptRefused(GraphError):
    """`result` holds the answer in ComfyUI's shape."""

    en = "The workflow can't run: {reason}"
    zh = "工作流无法运行：{reason}"

    def __init__(self, **values: Any) -> None:
        self.result: dict[str, Any] = {}
        super().__init__(**values)


class GenerateSettings(BaseModel):
    """A prompt to run. `outputs` are the good output nodes as validation found them; None: validate in the worker."""

    model_config = ConfigDict(extra="forbid")

    prompt: dict[str, Any]
    extra_data: dict[str, Any] = Field(default_factory=dict)
    client_id: str = ""
    outputs: list[str] | None = None
    draft: bool = False


@dataclass(frozen=True)
class GraphOptions:
    """What the worker's `setup` may say about graphs: `kept[GraphOptions] = GraphOptions(cache="lru:20")`."""

    cache: str = "classic"


class Live(dict[str, Any]):
    """Objects that nodes find under `ctx.live`: a training run leaves its LoRA here while it lives."""


class Executors:
    """One executor for finals, one for drafts, and a passing one for a prompt that runs inside another."""

    def __init__(self, registry: Registry, options: GraphOptions) -> None:
        import torch

        self._registry = registry
        self._no_grad = torch.no_grad
        self._idle = {draft: Executor(registry, cache_for(options.cache), torch.no_grad) for draft in (False, True)}

    @contextmanager
    def one(self, draft: bool) -> Iterator[Executor]:
        executor = self._idle.pop(draft, None)
        if executor is None:
            yield Executor(self._registry, NoCache(), self._no_grad)
            return
        try:
            yield executor
        finally:
            self._idle[draft] = executor

    def forget(self) -> None:
        """Drop all kept results (POST /free)."""
        for executor in self._idle.values():
            executor.cache.clear()
            executor.bound.clear()

    def dump(self) -> dict[str, Any]:
        """What is kept between prompts, for whoever looks for the memory; not what a running prompt uses."""
        names = {False: "finals", True: "drafts"}
        return {names[draft]: dump(executor.cache) for draft, executor in self._idle.items()}


def run(ctx: JobContext, settings: GenerateSettings) -> dict[str, Any]:
    """Run the prompt; returns {"outputs", "meta", "status", "messages"}. An error or an interrupt is raised with the
    same as its `result`."""
    registry: Registry = ctx.kept[Registry]
    if Executors not in ctx.kept:
        ctx.kept[Executors] = Executors(registry, ctx.kept.get(GraphOptions, GraphOptions()))
    prompt, outputs = _judged(ctx, registry, settings)
    run_context = RunContext(
        prompt_id=ctx.job_id,
        workspace=ctx.workspace,
        models=ctx.models,
        prompt=settings.prompt,
        extra_data=settings.extra_data,
        draft=settings.draft,
        live=ctx.kept.setdefault(Live, Live()),
        secrets=ctx.secrets,
        interrupt_check=ctx.checkpoint,
        preview=lambda image, about: ctx.preview(_small(image), **about),
    )
    if settings.draft:
        prompt = drafted(prompt, registry)
    executors: Executors = ctx.kept[Executors]
    with executors.one(settings.draft) as executor:
        outcome = executor.run(prompt, run_context, outputs, _Listener(ctx, prompt, registry))
    result = outcome.to_json()
    if outcome.error is not None:
        if is_out_of_memory(outcome.error.__cause__):
            ctx.models.trim()
        outcome.error.result = result  # type: ignore[attr-defined]
        raise outcome.error
    return result


def custom_checks(registry: Registry, workspace: Workspace, checks: Sequence[CustomCheck]) -> list[dict[str, Any]]:
    """What nodes' own `validate` say: {input: True, or why not} for each check."""
    return [_custom_check(registry, workspace, check) for check in checks]


def answer_checks(registry: Registry, workspace: Workspace, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The worker's handler "validate_inputs": {"checks": [...]} -> {"answers": [...]}."""
    checks = [CustomCheck(**check) for check in payload["checks"]]
    return {"answers": custom_checks(registry, workspace, checks)}


class _Listener:
    """Passes messages on, and makes a progress bar of them."""

    def __init__(self, ctx: JobContext, prompt: Mapping[str, Any], registry: Registry) -> None:
        self._ctx = ctx
        self._prompt = prompt
        self._registry = registry
        self._done = 0
        self._node = ""

    def __call__(self, event: str, data: dict[str, Any]) -> None:
        self._ctx.emit(event, **data)
        if event == "executing":
            self._node = self._title(data["display_node"])
            self._ctx.progress(min(self._done, len(self._prompt)), len(self._prompt), self._node, phase="nodes")
            self._done += 1
        elif event == "progress":
            self._ctx.progress(data["value"], data["max"], self._node, phase=self._node)

    def _title(self, node_id: str) -> str:
        node = self._prompt.get(node_id, {})
        name = node.get("class_type", "")
        return self._registry[name].declaration.title if name in self._registry else name


def _judged(ctx: JobContext, registry: Registry, settings: GenerateSettings) -> tuple[dict[str, Any], list[str]]:
    if settings.outputs is not None:
        return settings.prompt, settings.outputs
    found = validate(
        settings.prompt,
        Catalogue.of(registry),
        ctx.workspace,
        ask=lambda checks: custom_checks(registry, ctx.workspace, checks),
    )
    if found.error:
        reasons = [error for node in found.node_errors.values() for error in node["errors"]] or [found.error]
        words = "; ".join(f"{error['message']}: {error['details']}".rstrip(": ") for error in reasons[:5])
        refused = PromptRefused(reason=words)
        refused.result = found.to_json()
        raise refused
    return found.prompt, found.outputs


def _custom_check(registry: Registry, workspace: Workspace, check: CustomCheck) -> dict[str, Any]:
    hook = registry[check.class_type].declaration.validate if check.class_type in registry else None
    if hook is None:
        return {}
    values = {**registry[check.class_type].nested({**dict.fromkeys(check.input_types), **check.inputs})}
    if isinstance(hook, WholeHook):
        values["input_types"] = check.input_types
    try:
        verdict = call_hook(hook, workspace, values, registry[check.class_type].inputs)
    except Exception as error:  # the node boundary: what it raises is its verdict
        verdict = f"{type(error).__name__}: {error}"
    if verdict is True:
        return {}
    named = Catalogue.of([registry[check.class_type]])[check.class_type].custom or tuple(check.inputs)
    return {name: verdict for name in named if name in check.inputs} or dict.fromkeys(named[:1], verdict)


def _small(image: Image) -> Image:
    if max(image.size) <= PREVIEW_SIDE:
        return image
    small = image.copy()
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return small
