"""The websocket of ComfyUI's API: status to everybody, a prompt's messages and previews to the client that sent it.

The messages that end a prompt are held back until its job has ended in the store, so that a client that asks for the
history at once finds it. A client that does not read loses previews first and is then let go; nobody waits for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.errors import EaselError
from engine.graph.context import WARNING
from engine.jobs.types import Job, JobState
from studio.app import App
from studio.comfy.info import FEATURES
from studio.comfy.progress import FLAG, ProgressState

log = logging.getLogger(__name__)

PREVIEW_JPEG = 1
PROGRESS_TEXT = 3
PREVIEW_WITH_METADATA = 4
LONGEST_BACKLOG = 64 * 2**20
_ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
_KNOWN_JOBS = 2000


@dataclass(eq=False)
class Client:
    """One open websocket. `outbox` keeps order; a newer preview or progress_state takes an unsent one's place."""

    sid: str
    socket: WebSocket
    wants_metadata: bool = False
    wants_changes: bool = False
    outbox: OrderedDict[Any, str | bytes] = field(default_factory=OrderedDict)
    size: int = 0
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    serial: int = 0
    gone: bool = False

    def put(self, message: str | bytes, latest: str = "") -> None:
        self.serial += 1
        key = latest or self.serial
        old = self.outbox.get(key)
        self.outbox[key] = message
        self.size += len(message) - (len(old) if old is not None else 0)
        if self.size > LONGEST_BACKLOG:
            self.gone = True
        self.filled.set()

    async def pump(self) -> None:
        while not self.gone:
            await self.filled.wait()
            self.filled.clear()
            while self.outbox and not self.gone:
                _, message = self.outbox.popitem(last=False)
                self.size -= len(message)
                if isinstance(message, bytes):
                    await self.socket.send_bytes(message)
                else:
                    await self.socket.send_text(message)
        await self.socket.close(1013, "too slow")


@dataclass
class Prompt:
    """What is known of one running prompt, for the messages about it."""

    job_id: str
    client_id: str
    node: str | None = None
    progressed: bool = False  # the running node has said how far it is
    held: dict[str, Any] | None = None  # its preview that came before: some clients can't take one first
    ended: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    progress: ProgressState = field(init=False)
    progress_due: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.progress = ProgressState(self.job_id)


class Sockets:
    """All clients of one studio. `deliver` may be called from any thread."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._clients: set[Client] = set()
        self._prompts: OrderedDict[str, Prompt] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._status_due = False
        self._heard: deque[tuple[str, str, dict[str, Any]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Called on the server's event loop."""
        self._loop = asyncio.get_running_loop()
        self._unsubscribe = self._app.supervisor.subscribe(self.deliver)

    def stop(self) -> None:
        if self._unsubscribe:
            self._unsubscribe()
        for client in self._clients:
            client.gone = True
            client.filled.set()

    def expect(self, job_id: str, client_id: str) -> None:
        """A prompt of that client was queued: nobody needs to look it up when it runs. From any thread."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._know, job_id, client_id)

    def deliver(self, job_id: str, event: str, data: dict[str, Any]) -> None:
        """In the event loop, and many at once: waking it is what costs."""
        if self._loop and not self._loop.is_closed():
            self._heard.append((job_id, event, data))
            if len(self._heard) == 1:
                self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        for _ in range(len(self._heard)):
            heard = self._heard[0]
            try:
                self._on_event(*heard)
            except Exception:  # one message must not keep the others
                log.exception("a message could not be passed on: %s", heard[1])
            finally:
                self._heard.popleft()
        if self._heard and self._loop:
            self._loop.call_soon(self._hear)

    def is_open(self, client_id: str) -> bool:
        return any(client.sid == client_id for client in self._clients)

    def send(self, client_id: str, event: str, data: dict[str, Any]) -> None:
        """One message to every websocket of that id. Called on the server's event loop."""
        self._send(client_id, event, data)

    def queue_changed(self) -> None:
        """Tell everybody how long the queue is: soon, and once for many changes."""
        if self._loop and not self._status_due:
            self._status_due = True
            self._loop.call_soon_threadsafe(lambda: self._later(self._send_status()))

    async def serve(self, socket: WebSocket) -> None:
        """The client is known before its handshake is answered: what it asks for right then is already its own."""
        sid = socket.query_params.get("clientId", "")[:200] or uuid.uuid4().hex
        client = Client(sid, socket)
        client.put(_text("status", {"status": await asyncio.to_thread(queue_info, self._app), "sid": sid}))
        for prompt in self._prompts.values():
            if prompt.client_id == sid and prompt.node:  # it comes back in the middle of its own prompt
                client.put(
                    _text("executing", {"node": prompt.node, "display_node": prompt.node, "prompt_id": prompt.job_id})
                )
        self._clients.add(client)
        pump: asyncio.Task[None] | None = None
        try:
            await socket.accept()
            pump = asyncio.create_task(client.pump())
            await self._listen(client, pump)
        finally:
            self._clients.discard(client)
            if pump is not None:
                pump.cancel()

    async def _listen(self, client: Client, pump: asyncio.Task[None]) -> None:
        first = True
        while True:
            reading = asyncio.ensure_future(client.socket.receive())
            done, _ = await asyncio.wait((reading, pump), return_when=asyncio.FIRST_COMPLETED)
            if reading not in done:
                reading.cancel()
                return
            message = reading.result()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text") or ""
            if first and len(text) < 100_000:
                self._greet(client, text)
            first = False

    def _greet(self, client: Client, text: str) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict) or message.get("type") != "feature_flags":
            return
        flags = message.get("data")
        if isinstance(flags, dict):
            client.wants_metadata = bool(flags.get("supports_preview_metadata"))
            client.wants_changes = bool(flags.get(FLAG))
        limits = {"max_upload_size": self._app.settings.limits.upload_mb * 2**20}
        client.put(_text("feature_flags", {**FEATURES, **limits}))

    def _on_event(self, job_id: str, event: str, data: dict[str, Any]) -> None:
        if event == "state":
            self._on_state(job_id, data)
            return
        if event == "preview":
            self._on_preview(job_id, data)
            return
        if event == "pack_message" and not job_id:
            self._on_pack_message(data)
            return
        if not job_id or event.startswith("job_"):
            return
        prompt = self._prompt(job_id)
        if prompt is None:
            return
        data = {**data, "prompt_id": job_id}
        if event not in ("progress", "progress_state"):
            self._release(prompt)
        if event in _ENDINGS or (event == "executing" and data.get("node") is None):
            if event in _ENDINGS:
                prompt.ended.append((event, data))
            return
        if event == "executing":
            prompt.node, prompt.progressed = data.get("node"), False
        if event == "progress_state":
            self._on_progress_state(prompt, data["nodes"])
            return
        if event == WARNING:
            self._send_text(prompt.client_id, data["node_id"], data["en"])
        self._send(prompt.client_id, event, data)
        if event == "progress":
            prompt.progressed = True
            self._release(prompt)

    def _release(self, prompt: Prompt) -> None:
        """Send the preview that was held back until its node's first progress, or until something else happens."""
        if prompt.held is not None:
            data, prompt.held = prompt.held, None
            self._send_preview(prompt, data)

    def _on_state(self, job_id: str, data: dict[str, Any]) -> None:
        self.queue_changed()
        state = JobState(data["state"])
        prompt = self._prompt(job_id) if job_id in self._prompts or state.ended else None
        if prompt is None:
            return
        if not state.ended:
            prompt.ended.clear()
            return
        self._later(self._end(prompt, state))

    async def _end(self, prompt: Prompt, state: JobState) -> None:
        ended = prompt.ended
        self._send_progress_state(prompt)
        if not any(event in _ENDINGS for event, _ in ended) and state is not JobState.done:
            job = await asyncio.to_thread(self._app.jobs.get, prompt.job_id)
            ended = [*ended, _ending_of(job, prompt)] if job.started else ended
        for event, data in ended:
            self._send(prompt.client_id, event, data, broadcast=event == "execution_interrupted")
        self._send(prompt.client_id, "executing", {"node": None, "prompt_id": prompt.job_id})
        self._prompts.pop(prompt.job_id, None)

    def _on_pack_message(self, data: dict[str, Any]) -> None:
        """What a pack tells its own page, to one client or to all."""
        event, told, sid = data["name"], data["data"], data["sid"]
        if event == "progress_text":
            self._send_text(sid, told["node"], told["text"])
            return
        self._send(sid or "", event, told, broadcast=sid is None)

    def _send_text(self, sid: str | None, node: str, text: str) -> None:
        """Text that an editor shows on a node, to one client or to all."""
        name = node.encode()
        frame = struct.pack(">II", PROGRESS_TEXT, len(name)) + name + text.encode()
        for client in self._clients:
            if sid in (None, client.sid):
                client.put(frame)

    def _on_preview(self, job_id: str, data: dict[str, Any]) -> None:
        prompt = self._prompt(job_id)
        if prompt is None or not isinstance(data.get("image"), bytes):
            return
        if prompt.progressed:
            self._send_preview(prompt, data)
        else:
            prompt.held = data

    def _send_preview(self, prompt: Prompt, data: dict[str, Any]) -> None:
        image: bytes = data["image"]
        node = data.get("node_id") or prompt.node
        about = {
            "node_id": node,
            "prompt_id": prompt.job_id,
            "display_node_id": data.get("display_node_id", node),
            "parent_node_id": data.get("parent_node_id"),
            "real_node_id": data.get("real_node_id", node),
            "image_type": "image/jpeg",
        }
        plain = struct.pack(">II", PREVIEW_JPEG, 1) + image
        header = json.dumps(about).encode()
        rich = struct.pack(">II", PREVIEW_WITH_METADATA, len(header)) + header + image
        for client in self._clients:
            if client.sid == prompt.client_id:
                client.put(rich if client.wants_metadata else plain, latest=f"preview {node}")

    def _on_progress_state(self, prompt: Prompt, nodes: dict[str, Any]) -> None:
        prompt.progress.change(nodes)
        if prompt.progress_due is None and self._loop:
            prompt.progress_due = self._loop.call_later(prompt.progress.pace, self._send_progress_state, prompt)

    def _send_progress_state(self, prompt: Prompt) -> None:
        if prompt.progress_due is None:
            return
        prompt.progress_due.cancel()
        prompt.progress_due = None
        listeners = [client for client in self._clients if client.sid == prompt.client_id]
        full = [client for client in listeners if not client.wants_changes]
        if full:
            message = prompt.progress.full()
            for client in full:
                client.put(message, latest=f"progress_state {prompt.job_id}")
        if len(full) < len(listeners):
            message = prompt.progress.changes()
            for client in listeners:
                if client.wants_changes:
                    client.put(message)
        prompt.progress.fresh.clear()

    def _send(self, client_id: str, event: str, data: Any, broadcast: bool = False) -> None:
        if not broadcast and not client_id:
            return
        listeners = [client for client in self._clients if broadcast or client.sid == client_id]
        if listeners:
            message = _text(event, data)
            for client in listeners:
                client.put(message)

    async def _send_status(self) -> None:
        await asyncio.sleep(0.01)
        self._status_due = False
        info = await asyncio.to_thread(queue_info, self._app)
        self._send("", "status", {"status": info}, broadcast=True)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the event loop itself only keeps a weak reference
        task.add_done_callback(self._tasks.discard)

    def _prompt(self, job_id: str) -> Prompt | None:
        """The prompt of a generate job; None for other jobs."""
        known = self._prompts.get(job_id)
        if known is None:
            try:
                job = self._app.jobs.get(job_id)
            except EaselError:
                return None
            if job.kind != "generate":
                return None
            known = self._know(job_id, job.client_id)
        return known

    def _know(self, job_id: str, client_id: str) -> Prompt:
        known = self._prompts.setdefault(job_id, Prompt(job_id, client_id))
        while len(self._prompts) > _KNOWN_JOBS:
            self._prompts.popitem(last=False)
        return known


def routes(app: App, sockets: Sockets) -> list[BaseRoute]:
    async def websocket(socket: WebSocket) -> None:
        try:
            await sockets.serve(socket)
        except (WebSocketDisconnect, RuntimeError, OSError):
            log.debug("a websocket client left")

    return [WebSocketRoute("/ws", websocket)]


def queue_info(app: App) -> dict[str, Any]:
    """Prompts that are waiting or at work."""
    active = [JobState.queued, JobState.running, JobState.paused]
    return {"exec_info": {"queue_remaining": app.jobs.count(states=active, kinds=["generate"])}}


def _ending_of(job: Job, prompt: Prompt) -> tuple[str, dict[str, Any]]:
    """The last message of a prompt whose worker could not send one: it was cancelled, or the worker died."""
    now = int(time.time() * 1000)
    about = {"prompt_id": job.id, "node_id": prompt.node or "", "node_type": "", "executed": [], "timestamp": now}
    if job.state is JobState.cancelled:
        return "execution_interrupted", about
    error = job.error or {}
    return "execution_error", {
        **about,
        "exception_message": error.get("en", ""),
        "exception_type": error.get("code", ""),
        "traceback": str(error.get("traceback") or "").splitlines(keepends=True),
        "current_inputs": {},
        "current_outputs": [],
    }


def _text(event: str, data: Any) -> str:
    return json.dumps({"type": event, "data": data})
