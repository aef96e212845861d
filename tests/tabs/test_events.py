"""The stream of events that the page's live parts read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from studio.app import App
from studio.live.events import _messages


class Request:
    async def is_disconnected(self) -> bool:
        return False


def test_a_job_that_was_deleted_is_gone_and_the_stream_goes_on(app: App) -> None:
    (app.workspace.datasets / "set").mkdir(parents=True)

    async def heard() -> list[dict[str, Any]]:
        stream = _messages(app, Request())  # type: ignore[arg-type]
        found = []

        async def next_one() -> dict[str, Any]:
            line = await asyncio.wait_for(anext(stream), 20)
            return json.loads(line.removeprefix("data: "))

        found.append(await next_one())
        first = app.submit("measure", {"dataset": "set"})
        found.append(await next_one())
        app.jobs.cancel(first.id)
        app.jobs.delete(first.id)
        while found[-1]["type"] != "gone":
            found.append(await next_one())
        second = app.submit("measure", {"dataset": "set"})
        while found[-1].get("job", {}).get("id") != second.id:
            found.append(await next_one())
        await stream.aclose()
        return found

    assert "gone" in [one["type"] for one in asyncio.run(heard())]
