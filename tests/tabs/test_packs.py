"""The list of node packs on the System tab."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from studio.app import App
from studio.gate import Gate


@pytest.fixture
def here(app: App, client: TestClient) -> TestClient:
    """This machine's own browser, behind the gate."""
    return TestClient(Gate(client.app, app.access), base_url="http://localhost", client=("127.0.0.1", 5))


def test_the_owner_sees_the_switch_and_how_to_turn_it(app: App, here: TestClient) -> None:
    assert here.get("/studio/packs").json() == {
        "enabled": False,
        "packs": None,
        "folder": str(app.workspace.root / "custom_nodes"),
        "file": str(app.workspace.root / "studio.toml"),
    }


def test_a_program_with_a_token_does_not_see_paths_of_the_machine(app: App, here: TestClient) -> None:
    token = app.access.new_token("krita")
    assert here.get("/studio/packs", headers={"Authorization": f"Bearer {token}"}).status_code == 403
