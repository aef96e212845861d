"""A script that stands in the page before all others. Gradio adds the `head` it is given when its own scripts have run:
too late for what they ask once, such as the browser's language."""

from __future__ import annotations

import gzip

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD = b"<head>"
ASKED = (b"accept-encoding", b"if-none-match", b"if-modified-since")  # the page has to come whole and as it is


class First:
    """ASGI app: `page`, with `script` (HTML) at the start of the head of what it answers at /."""

    def __init__(self, page: ASGIApp, script: str) -> None:
        self._page = page
        self._script = script.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self._page(scope, receive, send)
            return
        packed = any(name == b"accept-encoding" and b"gzip" in value for name, value in scope["headers"])
        headers = [(name, value) for name, value in scope["headers"] if name not in ASKED]
        start: Message = {}
        body = b""

        async def take(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            if message["type"] != "http.response.body":  # such as what a test client wants to know of a template
                await send(message)
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            body = body.replace(HEAD, HEAD + self._script, 1)
            told = MutableHeaders(scope=start)
            if packed:
                body = gzip.compress(body, 5)
                told["content-encoding"] = "gzip"
            told["content-length"] = str(len(body))
            told["vary"] = "accept-encoding"
            await send(start)
            await send({"type": "http.response.body", "body": body})

        await self._page({**scope, "headers": headers}, receive, take)
