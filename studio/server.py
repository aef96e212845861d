"""The server process: gate, routes, page, supervisor. It never imports torch, so no job can take the page down."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp

from engine import collecting
from engine.errors import EaselError, InputError
from engine.jobs.store import JobStore
from engine.jobs.supervisor import Supervisor
from engine.jobs.types import JobKind
from engine.workspace import Workspace
from studio import api, page
from studio.access import Access
from studio.app import App
from studio.comfy import (
    editor,
    editor_settings,
    events,
    files,
    history,
    info,
    internal,
    models,
    packs,
    prompt,
    templates,
    userdata,
)
from studio.comfy.pack_http import PackRoutes
from studio.comfy.requests import error_response, failure_response, system_response
from studio.gate import Gate
from studio.nodes import NodeList
from studio.presence import Presence, announced
from studio.settings import StudioSettings
from tabs.drafts import Drafts

log = logging.getLogger(__name__)

SETUP = "studio.worker_setup:setup"
SHUTDOWN_SECONDS = 3
TIDY_SECONDS = 600
LARGEST_MESSAGE = 2**20  # clients of the websocket only say hello


class PortInUse(InputError):
    en = "Port {port} on {host} is in use. Stop what uses it, or take another: studio serve --port {other}"
    zh = "{host} 的端口 {port} 已被占用。请关闭占用它的程序，或换一个端口：studio serve --port {other}"


class CannotListen(InputError):
    en = "Can't listen on {host}:{port}: {reason}. Use an address of this machine, e.g. --host 127.0.0.1 or 0.0.0.0."
    zh = "无法监听 {host}:{port}：{reason}。请使用本机地址，例如 --host 127.0.0.1 或 0.0.0.0。"


def open_app(
    workspace: Workspace,
    settings: StudioSettings,
    kinds: Mapping[str, JobKind],
    announce: Callable[[str], None] = print,
    setup: str = SETUP,
) -> App:
    """The parts of a studio, nothing started yet. `announce` gets a generated password, once."""
    workspace.create()
    store = JobStore(workspace.database)
    supervisor = Supervisor(store, kinds, workspace, settings.device, setup, environment=worker_environment(settings))
    access = Access(workspace.root / "access.json", settings.access.session_days, announce)
    nodes, drafts = NodeList(workspace, supervisor, settings.custom_nodes.enabled), Drafts(workspace.root / "drafts")
    return App(workspace, settings, store, supervisor, kinds, nodes, access, drafts)


def worker_environment(settings: StudioSettings) -> dict[str, str]:
    """How the worker hears of the owner's settings; see worker_setup.

    Threads of OpenMP that wait by spinning take the cores from the page, the browser and each other: on two busy cores
    a small convolution network was seven to fourteen times faster with threads that sleep.
    """
    return {
        "EASEL_CACHE": settings.cache,
        "EASEL_MEMORY": settings.memory.model_dump_json(),
        "EASEL_CUSTOM_NODES": "1" if settings.custom_nodes.enabled else "",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def asgi_app(app: App, with_page: bool = True) -> ASGIApp:
    """Everything that answers on the port, behind the gate."""
    sockets = events.Sockets(app)
    of_packs = PackRoutes(app, editor.CONTENT_POLICY)
    comfy = [
        *prompt.routes(app, sockets, of_packs.on_prompt),
        *history.routes(app),
        *files.routes(app),
        *info.routes(app),
        *packs.routes(app),
        *models.routes(app),
        *internal.routes(app, sockets),
        *userdata.routes(app),
        *editor_settings.routes(app),
        *templates.routes(app),
        *events.routes(app, sockets),
        of_packs,
    ]

    @asynccontextmanager
    async def lifespan(server: Starlette) -> AsyncIterator[None]:
        sockets.start()
        threading.Thread(target=_tidy, args=(app,), name="tidy", daemon=True).start()
        if app.nodes.custom:  # whoever asks a pack something first need not have asked for the nodes
            threading.Thread(target=app.nodes.packs, name="packs", daemon=True).start()
        yield
        sockets.stop()

    pages: list[BaseRoute] = []
    if with_page:
        page.prepare_environment(app)
        from studio import live  # the page's own routes; this imports Gradio

        pages = live.routes(app)
    server = Starlette(
        routes=[
            *api.routes(app),
            *pages,
            *editor.routes(app, _again(comfy), _again(comfy)),
            *comfy,
            Mount("/api", routes=_again(comfy)),
        ],
        lifespan=lifespan,
        exception_handlers={EaselError: error_response, OSError: system_response, Exception: failure_response},
    )
    if with_page:
        page.mount(app, server)
    return Gate(server, app.access, local_without_password=app.settings.access.local_without_password)


def serve(
    workspace: Workspace, settings: StudioSettings, kinds: Mapping[str, JobKind], say: Callable[[str], None] = print
) -> int:
    """Run until Ctrl-C or SIGTERM. Raises PortInUse, CannotListen, StudioRunning before anything is started."""
    signal.signal(signal.SIGTERM, _stop)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listen(settings.server.host, settings.server.port))
        port = listening.getsockname()[1]
        settings = settings.model_copy(update={"server": settings.server.model_copy(update={"port": port})})

        def announce(password: str) -> None:
            say(f"Password for other machines (shown only this once): {password}")

        app = open_app(workspace, settings, kinds, announce)
        stack.callback(app.jobs.close)
        app.supervisor.start()  # it imports torch while this process imports Gradio
        stack.callback(app.supervisor.stop)
        if not _is_loopback(settings.server.host):
            app.access.ensure_password()
        served = asgi_app(app)
        host = "127.0.0.1" if settings.server.host in ("0.0.0.0", "::", "localhost") else settings.server.host
        presence = Presence(os.getpid(), host, port, app.access.passing_token("command line"))
        stack.enter_context(announced(workspace, presence))
        address = replace(presence, host="localhost").url if _is_loopback(host) else presence.url
        say(f"Easel is at {address}  (workspace {workspace.root})")
        if settings.server.browser and has_browser():
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server = uvicorn.Server(
            uvicorn.Config(
                served,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,  # the gate has to see the request as it came
                ws_max_size=LARGEST_MESSAGE,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        collecting.settle()
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
        say("Stopping: running jobs are saved and go on at the next start.")
    return 0


def has_browser() -> bool:
    """Whether opening a page here would be seen by anybody."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and "SSH_CONNECTION" not in os.environ


def _listen(host: str, port: int) -> socket.socket:
    """Before anything is started: a port in use must not cost a worker."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it each second message waits 40 ms
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there it would let two servers share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        if error.errno in (48, 98, 10013, 10048):
            raise PortInUse(host=host, port=port, other=port + 1) from error
        raise CannotListen(host=host, port=port, reason=error.strerror or error) from error
    return listening


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM while nothing is served yet; uvicorn has a handler of its own, and calls this one when it is done."""
    raise KeyboardInterrupt


def _again(routes: list[BaseRoute]) -> list[BaseRoute]:
    """The same routes once more, for the mount under /api."""
    made: list[BaseRoute] = []
    for route in routes:
        if isinstance(route, PackRoutes):
            made.append(route)
        elif isinstance(route, Route):
            made.append(Route(route.path, route.endpoint, methods=list(route.methods or ()), name=f"api {route.name}"))
        elif isinstance(route, WebSocketRoute):
            made.append(WebSocketRoute(route.path, route.endpoint, name=f"api {route.name}"))
    return made


def _tidy(app: App) -> None:
    """Until the studio is closed: then the store raises."""
    with contextlib.suppress(EaselError):
        while True:
            forgotten = history.prune(app)
            if forgotten:
                log.info("forgot the %d oldest prompts of the history", forgotten)
            time.sleep(TIDY_SECONDS)
