"""What the server and the worker both know of HTTP routes of packs. It knows no packs and no HTTP library."""

from __future__ import annotations

KEY = "X-Easel-Key"  # the header in which the server shows that it is the server
ON_PROMPT = "/easel/on_prompt"  # shows a prompt to the handlers of packs and returns what they made of it

# First parts of paths that are the studio's: its page, its gate, its editor. Routes of packs never stand there.
TAKEN = frozenset(
    (
        "api", "assets", "comfy", "config", "easel", "extensions", "favicon.ico", "gradio_api", "healthz", "login",
        "logout", "manifest.json", "monitoring", "openapi.json", "pwa_icon", "robots.txt", "static", "studio", "svelte",
        "theme.css", "ws",
    )
)  # fmt: skip
