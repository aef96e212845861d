"""Checking a job's settings before it is queued. It knows the kinds by what it is handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.jobs.errors import UnknownKind
from engine.jobs.store import JobStore
from engine.jobs.types import Job, JobKind, JobSpec, Priority
from engine.settings import checked

Kinds = Mapping[str, JobKind]


def submit(
    store: JobStore,
    kinds: Kinds,
    kind: str,
    settings: dict[str, Any],
    *,
    priority: Priority | None = None,
    title: str = "",
    user: str = "",
    client_id: str = "",
    id: str = "",
    front: bool = False,
) -> Job:
    """Queue a job of a kind. `priority` is the kind's own when None.

    Raises UnknownKind, UnknownSetting, InvalidSetting, DuplicateJob.
    """
    if kind not in kinds:
        raise UnknownKind(kind=kind, known=", ".join(sorted(kinds)))
    priority = kinds[kind].priority if priority is None else priority
    spec = JobSpec(kind, settings, priority, title, user, client_id, id)
    return submit_spec(store, kinds, spec, front)


def submit_spec(store: JobStore, kinds: Kinds, spec: JobSpec, front: bool = False) -> Job:
    """The same for a JobSpec with settings that are not checked yet."""
    if spec.kind not in kinds:
        raise UnknownKind(kind=spec.kind, known=", ".join(sorted(kinds)))
    kind = kinds[spec.kind]
    settings = checked(kind.settings, spec.settings, spec.kind).model_dump(mode="json")
    return store.submit(replace(spec, settings=settings, resumable=kind.resumable), front)
