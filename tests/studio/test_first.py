"""The script that stands before all others in the page."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.first import First

PAGE = "<html><head><title>Easel</title></head><body>中文 <head></body></html>"


@pytest.fixture
def client() -> TestClient:
    page = Starlette(
        routes=[
            Route("/", lambda _: StreamingResponse((PAGE[i : i + 7] for i in range(0, len(PAGE), 7)), 200)),
            Route("/other", lambda _: HTMLResponse(PAGE)),
        ]
    )
    return TestClient(First(page, "<script>1</script>"))


@pytest.mark.parametrize("encoding", ["identity", "gzip, br"])
def test_the_page_has_the_script_first_and_once(client: TestClient, encoding: str) -> None:
    answer = client.get("/", headers={"Accept-Encoding": encoding})
    assert answer.text == PAGE.replace("<head>", "<head><script>1</script>", 1)
    assert answer.headers.get("content-encoding") == ("gzip" if "gzip" in encoding else None)


def test_other_answers_are_as_they_were(client: TestClient) -> None:
    assert client.get("/other").text == PAGE
