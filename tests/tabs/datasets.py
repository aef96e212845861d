"""What tests of the Dataset tab's routes share: a picture as bytes, and the page's own questions and edits."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from starlette.testclient import TestClient


def png(colour: str, size: tuple[int, int] = (16, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def shown(client: TestClient, words: str = "", order: str = "") -> dict[str, Any]:
    return client.get("/studio/datasets/set", params={"filter": words, "order": order}).json()


def edit(client: TestClient, action: str, /, **body: Any) -> Any:
    answer = client.post(f"/studio/datasets/set/{action}", json=body)
    answer.raise_for_status()
    return answer.json()


def captions(client: TestClient, ids: list[int]) -> list[str]:
    found = client.get("/studio/datasets/set/cells", params={"ids": ",".join(map(str, ids))}).json()
    return [next(row[3] for row in found if row[0] == i) for i in ids]
