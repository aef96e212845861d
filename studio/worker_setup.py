"""What the worker does once at its start: torch, the device, the nodes; and what it answers while jobs run."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.jobs.worker import WorkerHandle
from engine.workspace import replacing
from studio.settings import MemorySettings

if TYPE_CHECKING:
    from engine.graph.registry import Registry

PACKS_FILE = "packs.json"  # in the cache folder: what became of node packs when they were loaded last


def setup(worker: WorkerHandle) -> None:
    """Every phase says its name first, so that the page can tell what it waits for."""
    worker.phase("importing torch")
    import torch

    worker.phase("opening the device")
    from engine.models.device import open_device
    from engine.models.manager import ModelManager

    memory = MemorySettings.model_validate_json(os.environ.get("EASEL_MEMORY") or "{}")
    worker.models = manager = ModelManager(
        open_device(worker.device),
        cap=int(memory.cap_gb * 2**30) or None,
        caps_by_role={"vae": memory.vaes, "lora": memory.loras},
    )
    worker.phase("loading nodes")
    from engine.graph.catalogue import Catalogue
    from engine.graph.job import Executors, GraphOptions, answer_checks
    from engine.graph.registry import Registry
    from engine.nodes import load_all

    registry = worker.kept[Registry] = Registry()
    load_all(registry)
    Catalogue.of(registry).save(worker.workspace.cache)
    packs = _packs(worker, registry) if os.environ.get("EASEL_CUSTOM_NODES") else None
    worker.kept[GraphOptions] = GraphOptions(cache=os.environ.get("EASEL_CACHE") or "classic")
    worker.around_nested = undisturbed_randomness

    def free(payload: dict[str, Any]) -> dict[str, Any]:
        """POST /free: what is leased stays, so this is safe beside a running job."""
        if payload.get("free_memory") and Executors in worker.kept:
            worker.kept[Executors].forget()
        return {"freed": manager.trim()} if payload.get("unload_models") or payload.get("free_memory") else {}

    def caches(payload: dict[str, Any]) -> dict[str, Any]:
        return worker.kept[Executors].dump() if Executors in worker.kept else {}

    worker.handlers["snapshot"] = lambda _: {**manager.snapshot(), "torch": torch.__version__}
    worker.handlers["validate_inputs"] = lambda payload: answer_checks(registry, worker.workspace, payload)
    worker.handlers["free"] = free
    worker.handlers["caches"] = caches
    if packs is not None:
        worker.handlers["custom_nodes"] = packs


def _packs(worker: WorkerHandle, registry: Registry) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Node code of others, where the owner of the machine has turned it on. Returns what tells the server of it."""
    worker.phase("loading node packs")
    from engine.custom.host import Host
    from engine.custom.packs import load_packs, prompt_server, told
    from engine.custom.serving import serve

    def emit(event: str, data: Any, sid: str | None) -> None:
        worker.emit("pack_message", name=event, data=data, sid=sid)

    host = Host(worker.workspace, worker.models, registry, emit)
    packs = load_packs(worker.workspace.pack_roots, host, lambda name: worker.phase(f"loading node packs: {name}"))
    served = serve(prompt_server())
    with replacing(worker.workspace.cache / PACKS_FILE, "w") as file:
        json.dump([pack.to_json() for pack in packs], file)
    return lambda payload: told(host, packs, str(payload.get("known", "")), served)


@contextmanager
def undisturbed_randomness() -> Iterator[None]:
    """A job runs inside another: the outer one goes on with the random numbers and the grad mode that it had."""
    import numpy
    import torch

    python, legacy, cpu = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(legacy)
            torch.set_rng_state(cpu)
            if devices:
                torch.cuda.set_rng_state_all(devices)
