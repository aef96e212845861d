"""What the parts of the studio share: handed to the routes and to every tab's `build(app)`. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request

from engine.errors import Language
from engine.graph.replacement import replaced
from engine.graph.validation import Validation, validate
from engine.jobs.submit import submit
from engine.jobs.types import Job, JobKind
from studio.decoding import AT_ONCE
from studio.gate import language_of
from studio.named import check_named
from studio.refusal import PromptRefused
from tabs.drafts import Drafts

if TYPE_CHECKING:
    from engine.graph.catalogue import Catalogue
    from engine.jobs.store import JobStore
    from engine.jobs.supervisor import Supervisor
    from engine.workspace import Workspace
    from studio.access import Access
    from studio.nodes import NodeList
    from studio.settings import StudioSettings
    from tabs.drafts import Drafts

Made = TypeVar("Made")
Sent = TypeVarTuple("Sent")


@dataclass(frozen=True)
class App:
    """One running studio. Tabs and routes keep no state of their own beside it."""

    workspace: Workspace
    settings: StudioSettings
    jobs: JobStore
    supervisor: Supervisor
    kinds: Mapping[str, JobKind]
    nodes: NodeList
    access: Access
    drafts: Drafts
    decoding: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(AT_ONCE))

    async def decode(self, make: Callable[[*Sent], Made], *sent: *Sent) -> Made:
        """Run what decodes pictures in a thread of its own, few at a time: they may be large."""
        return await to_thread.run_sync(make, *sent, limiter=self.decoding)

    @property
    def catalogue(self) -> Catalogue:
        """Which nodes there are. Raises CatalogueNotReady when even a long wait for the worker does not tell."""
        return self.nodes.catalogue()

    def submit(self, kind: str, settings: Mapping[str, Any], **spec: Any) -> Job:
        """Check the settings against the kind's model and queue the job (engine.jobs.submit says what `spec` takes).

        Raises NotFound as well when the dataset, tagger or model that is named is not there.
        """
        check_named(self.workspace, kind, settings)
        return submit(self.jobs, self.kinds, kind, dict(settings), **spec)

    def submit_prompt(
        self,
        prompt: Any,
        *,
        draft: bool = False,
        targets: Collection[str] | None = None,
        extra_data: Mapping[str, Any] | None = None,
        client_id: str = "",
        **spec: Any,
    ) -> tuple[Job, Validation]:
        """Judge an API prompt and queue it: the one way in, for the page and for POST /prompt. Raises PromptRefused."""
        catalogue = self.catalogue
        prompt = replaced(prompt, self.nodes.replacements, catalogue)
        found = validate(prompt, catalogue, self.workspace, targets, self.nodes.ask)
        if self.nodes.custom and found.misses_choice():
            fresh = self.nodes.refresh()  # what packs offer to choose from may have changed
            found = (
                validate(prompt, fresh, self.workspace, targets, self.nodes.ask) if fresh is not catalogue else found
            )
        if found.error:
            raise PromptRefused(found)
        settings = {
            "prompt": found.prompt,
            "extra_data": dict(extra_data or {}),
            "client_id": client_id,
            "outputs": found.outputs,
            "draft": draft,
        }
        titled = {**spec, "title": spec.get("title") or title_of(found.prompt)}
        return self.submit("generate", settings, client_id=client_id, **titled), found

    def language(self, request: Request | None) -> Language:
        """The language of whoever asks: the studio's setting, or else the browser's wish."""
        if self.settings.language != "auto":
            return self.settings.language
        return language_of(request.headers.get("accept-language", "") if request else "")


def title_of(prompt: Mapping[str, Any]) -> str:
    """What a person would know a prompt by: the first text that it encodes."""
    encoders = (node for node in prompt.values() if str(node.get("class_type", "")).startswith("CLIPTextEncode"))
    texts = (text for node in encoders for text in (node.get("inputs") or {}).values() if isinstance(text, str))
    return next((text.strip()[:80] for text in texts if text.strip()), "")
