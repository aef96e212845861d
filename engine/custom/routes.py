"""HTTP handlers that packs register. They are collected and not served yet (docs/custom-nodes.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Handler = Callable[[Any], Any]


@dataclass(frozen=True)
class PackRoute:
    method: str
    path: str  # with {name} or {name:pattern} parts
    handler: Handler


class Routes:
    """Decorators like those of aiohttp's RouteTableDef."""

    def __init__(self) -> None:
        self.all: list[PackRoute] = []

    def route(self, method: str, path: str, **_: Any) -> Callable[[Handler], Handler]:
        def keep(handler: Handler) -> Handler:
            self.all.append(PackRoute(method.upper(), path, handler))
            return handler

        return keep

    def get(self, path: str, **more: Any) -> Callable[[Handler], Handler]:
        return self.route("GET", path, **more)

    def post(self, path: str, **more: Any) -> Callable[[Handler], Handler]:
        return self.route("POST", path, **more)

    def put(self, path: str, **more: Any) -> Callable[[Handler], Handler]:
        return self.route("PUT", path, **more)

    def patch(self, path: str, **more: Any) -> Callable[[Handler], Handler]:
        return self.route("PATCH", path, **more)

    def delete(self, path: str, **more: Any) -> Callable[[Handler], Handler]:
        return self.route("DELETE", path, **more)

    def head(self, path: str, **more: Any) -> Callable[[Handler], Handler]:
        return self.route("HEAD", path, **more)
