"""One owner of one device: which models are loaded, who holds them, and who must go when room is needed.

Work asks for models by lease and gets ordinary modules; nobody else calls `.to()`. A leased model never moves. What is
not leased goes in the order of last use when room is needed. It knows no family and no graph.

The ledger of device bytes: resident weights, working memory reserved by leases, training state reserved by leases.
Their sum stays within the budget = min(cap, free + ours) - safety, read anew at every lease.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from engine.errors import DeviceError
from engine.models.device import Device
from engine.models.loaded import Loaded

Role = Literal["denoiser", "text_encoder", "vae", "lora", "controlnet", "tagger", "captioner", "upscaler", "other"]


class NoRoom(DeviceError):
    en = (
        "{need} is needed on {device} for {titles}, but only {room} of {budget} can be made free: {ledger}. "
        "Make the picture or batch smaller, stop the other work, or raise the memory cap in the settings."
    )
    zh = (
        "{titles} 需要在 {device} 上占用 {need}，但 {budget} 中最多只能腾出 {room}：{ledger}。"
        "请减小图片尺寸或批量，停止其他任务，或在设置中提高显存上限。"
    )


@dataclass(frozen=True)
class ModelRef:
    """A model by what it is. `key` says it all: file identity, part, storage type. Equal keys are one model."""

    key: str
    role: Role
    title: str


@dataclass(frozen=True)
class ModelSpec:
    """How to get a model. `load(device)` reads files and returns it on the host; `nbytes` is its size on the device.

    `loads_there`: it is made on the device at once (a session, quantised layers), so that room is made beforehand.
    `unpacking`: bytes that its largest layer takes while it unpacks its weight for a call, where layers do that.
    `stored`: {tensor of the module: safetensors' name of the type its file has it in}, where there is a file.
    """

    key: str
    role: Role
    title: str
    nbytes: int
    load: Callable[[Device], Loaded]
    loads_there: bool = False
    unpacking: int = 0
    stored: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.key, self.role, self.title)


@dataclass
class _Entry:
    spec: ModelSpec
    loaded: Loaded | None = None
    resident: bool = False
    leases: int = 0
    last_used: float = 0.0

    @property
    def nbytes(self) -> int:
        return self.loaded.nbytes if self.loaded is not None else self.spec.nbytes


@dataclass(frozen=True)
class Lease(Mapping[ModelRef, Any]):
    """The models of one lease, by their refs, ready to run on `device`."""

    device: torch.device
    _loaded: dict[ModelRef, Loaded] = field(repr=False)

    def __getitem__(self, ref: ModelRef) -> Any:
        return self._loaded[ref].value

    def __iter__(self) -> Iterator[ModelRef]:
        return iter(self._loaded)

    def __len__(self) -> int:
        return len(self._loaded)

    def twin(self, ref: ModelRef) -> Any:
        """A module of one's own over the same weights; valid while the lease lasts (see TorchModel.twin)."""
        return self._loaded[ref].twin()


class ModelManager:
    """The device layer of one device. Thread-safe; `snapshot` never waits for a load."""

    def __init__(
        self,
        device: Device,
        *,
        cap: int | None = None,
        host_cap: int | None = None,
        caps_by_role: Mapping[Role, int] | None = None,
    ) -> None:
        self.device = device
        self.cap = cap
        self.host_cap = host_cap
        self.caps_by_role: dict[Role, int] = dict(caps_by_role or {})
        self._entries: dict[str, _Entry] = {}
        self._working = 0
        self._training = 0
        self._lock = threading.RLock()

    def add(self, spec: ModelSpec) -> ModelRef:
        """Make a model known. Nothing is read. A key that is known already keeps its first spec."""
        with self._lock:
            self._entries.setdefault(spec.key, _Entry(spec))
            return self._entries[spec.key].spec.ref

    @contextmanager
    def lease(self, *refs: ModelRef, working: int = 0, training: int = 0) -> Iterator[Lease]:
        """All of `refs` on the device, or none. `working` and `training` are bytes to keep free beside them.

        Raises NoRoom when they can't fit even with everything idle gone.
        """
        refs = tuple(dict.fromkeys(refs))
        entries = self._acquire(refs, working, training)
        try:
            yield Lease(self.device.torch, {r: e.loaded for r, e in zip(refs, entries, strict=True) if e.loaded})
        finally:
            with self._lock:
                self._working -= working
                self._training -= training
                for entry in entries:
                    entry.leases -= 1
                    entry.last_used = time.monotonic()
                self._keep_role_caps()

    def nbytes(self, ref: ModelRef) -> int:
        """Bytes of a model on the device."""
        return self._entries[ref.key].nbytes

    def unpacking(self, ref: ModelRef) -> int:
        """Bytes that a model's layers need beside it to unpack their weights, one after another."""
        return self._entries[ref.key].spec.unpacking

    def stored(self, ref: ModelRef) -> Mapping[str, str]:
        """In which types the file of a model has its tensors."""
        return self._entries[ref.key].spec.stored

    def fresh(self, ref: ModelRef) -> Loaded:
        """A copy of a model on the host that nobody shares, read from its file: for making another model of it."""
        with self._lock:
            entry = self._entries[ref.key]
            if self.device.is_host:
                self._make_room(entry.spec.nbytes, [entry])
            return self._load(entry.spec)

    def budget(self) -> int:
        """Bytes we may use in all on the device now."""
        room = self.device.free() + self.device.allocated(self._resident())
        return max(0, min(self.cap or room, room) - self.device.safety)

    def trim(self, nbytes: int | None = None) -> int:
        """Take idle models off until `nbytes` are gone (all of them when None). Returns the bytes freed."""
        with self._lock:
            freed = 0
            for entry in self._idle():
                if nbytes is not None and freed >= nbytes:
                    break
                freed += entry.nbytes
                self._take_off(entry, drop=nbytes is None)
            self.device.trim()
            return freed

    def snapshot(self) -> dict[str, Any]:
        """What the System tab shows. Bytes; models in order of last use, newest first."""
        entries = sorted(list(self._entries.values()), key=lambda e: -e.last_used)
        return {
            "device": self.device.name,
            "kind": self.device.kind,
            "total": self.device.total(),
            "free": self.device.free(),
            "budget": self.budget(),
            "ledger": self.ledger(),
            "models": [
                {
                    "key": e.spec.key,
                    "role": e.spec.role,
                    "title": e.spec.title,
                    "nbytes": e.nbytes,
                    "state": "resident" if e.resident else "host" if e.loaded is not None else "file",
                    "leases": e.leases,
                }
                for e in entries
            ],
        }

    def ledger(self) -> dict[str, int]:
        return {"resident": self._resident(), "working": self._working, "training": self._training}

    def _acquire(self, refs: tuple[ModelRef, ...], working: int, training: int) -> list[_Entry]:
        with self._lock:
            entries = [self._entries[ref.key] for ref in refs]
            for entry in entries:
                entry.leases += 1
            try:
                for entry in entries:
                    if entry.loaded is None:
                        there = self.device.is_host or entry.spec.loads_there
                        self._make_room(entry.spec.nbytes if there else 0, entries)
                        entry.loaded = self._load(entry.spec)
                        entry.resident = there
                self._make_room(sum(e.nbytes for e in entries if not e.resident) + working + training, entries)
                for entry in entries:
                    if not entry.resident and entry.loaded is not None:
                        entry.loaded.place(self.device)
                        entry.resident = True
            except BaseException:
                for entry in entries:
                    entry.leases -= 1
                raise
            self._working += working
            self._training += training
            return entries

    def _load(self, spec: ModelSpec) -> Loaded:
        # weights made in inference mode could never take part in training
        with torch.inference_mode(False), torch.no_grad():
            return spec.load(self.device)

    def _make_room(self, need: int, wanted: list[_Entry]) -> None:
        """Take idle models off until `need` more bytes fit."""
        for entry in self._idle():
            if self._room() >= need:
                return
            self._take_off(entry, drop=self.device.is_host)
        if self._room() < need:
            self.device.trim()
        if self._room() < need:
            raise NoRoom(
                need=_size(need),
                device=self.device.name,
                titles=", ".join(e.spec.title for e in wanted) or "working memory",
                room=_size(max(0, self._room())),
                budget=_size(self.budget()),
                ledger=", ".join(f"{name} {_size(n)}" for name, n in self.ledger().items()),
            )

    def _room(self) -> int:
        return self.budget() - self._resident() - self._working - self._training

    def _resident(self) -> int:
        return sum(e.nbytes for e in list(self._entries.values()) if e.resident)

    def _idle(self) -> list[_Entry]:
        """Models on the device that nobody holds, longest unused first."""
        return sorted((e for e in self._entries.values() if e.resident and not e.leases), key=lambda e: e.last_used)

    def _take_off(self, entry: _Entry, *, drop: bool) -> None:
        if entry.loaded is not None:
            entry.loaded.take_off(self.device)
            drop = drop or not entry.loaded.movable  # kept, it would stay on the device
        entry.resident = False
        if drop or self._host_bytes() > (self.host_cap or self._host_bytes()):
            entry.loaded = None

    def _host_bytes(self) -> int:
        return sum(e.nbytes for e in self._entries.values() if e.loaded is not None)

    def _keep_role_caps(self) -> None:
        """At most N models of a role stay loaded; the longest unused idle ones go."""
        for role, most in self.caps_by_role.items():
            loaded = [e for e in self._entries.values() if e.spec.role == role and e.loaded is not None]
            idle = sorted((e for e in loaded if not e.leases), key=lambda e: e.last_used)
            for entry in idle[: max(0, len(loaded) - most)]:
                self._take_off(entry, drop=True)


def _size(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.2f} GiB" if nbytes >= 1 << 28 else f"{nbytes / (1 << 20):.1f} MiB"
