"""What the worker does once at its start: torch, the device, the nodes; and what it answers while jobs run."""

from __future__ import annotations

from typing import Any

from engine.jobs.worker import WorkerHandle


def setup(worker: WorkerHandle) -> None:
    worker.phase("importing torch")
    import torch

    worker.phase("opening the device")
    from engine.models.device import open_device
    from engine.models.manager import ModelManager

    worker.models = manager = ModelManager(open_device(worker.device))
    worker.phase("loading nodes")
    from engine.graph.catalogue import Catalogue
    from engine.graph.registry import Registry
    from engine.nodes import load_all

    registry = worker.kept[Registry] = Registry()
    load_all(registry)
    catalogue = Catalogue.of(registry)
    catalogue.save(worker.workspace.cache)

    def free(payload: dict[str, Any]) -> dict[str, Any]:
        manager.trim(manager.ledger()["resident"] if payload.get("unload_models") else 0)
        return {}

    worker.handlers["snapshot"] = lambda payload: {**manager.snapshot(), "torch": torch.__version__}
    worker.handlers["free"] = free
