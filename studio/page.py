"""The page: the tabs of `tabs/` put together in one Gradio app, and a line that says what the worker does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from studio.app import App
from studio.first import First

if TYPE_CHECKING:
    import gradio


def prepare_environment(app: App) -> None:
    """What Gradio reads from the environment when it is imported. Nothing of ours calls out by itself."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(app.workspace.cache / "gradio")
    os.environ["GRADIO_SHARE"] = "False"
    os.environ["GRADIO_MCP_SERVER"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def mount(app: App, server: Starlette) -> None:
    """Mount the page at / behind every other route of `server`."""
    import gradio

    def user(request: Request) -> str | None:
        return getattr(request.state, "user", None)

    from tabs.shell import FIRST

    blocks, options = build(app)
    gradio.mount_gradio_app(
        server,  # type: ignore[arg-type]  # only the router of a FastAPI is used, which Starlette has
        blocks,
        path="/",
        server_port=app.settings.server.port,
        auth_dependency=user,
        allowed_paths=[str(app.workspace.output)],
        blocked_paths=[str(app.workspace.root / "access.json"), str(app.workspace.settings_file)],
        max_file_size=app.settings.limits.upload_mb * 2**20,
        ssr_mode=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        **options,
    )
    mounted = server.routes[-1]
    assert isinstance(mounted, Mount)
    own = {"zh": "zh-CN", "en": "en", "auto": ""}[app.settings.language]
    mounted.app = First(mounted.app, FIRST.replace("{own}", own))


def build(app: App) -> tuple[gradio.Blocks, dict[str, Any]]:
    """The Blocks, and what mount_gradio_app takes for their looks (theme, css, head, i18n)."""
    from tabs import shell
    from tabs.words import i18n

    return shell.build(app), {"theme": shell.theme(), "head": shell.HEAD, "i18n": i18n()}
