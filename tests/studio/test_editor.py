"""The official editor's package as it is served: where, with which headers, with whose language and theme."""

from __future__ import annotations

import gzip
import tomllib
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from engine.workspace import Workspace
from studio.comfy import editor
from studio.server import asgi_app, open_app
from studio.settings import ServerSettings, StudioSettings
from tests.studio import small
from tests.studio.conftest import Served, running

ROOT = Path(__file__).parents[2]


def test_the_package_is_an_optional_extra_of_one_version_and_no_file_of_it_is_here() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"]["editor"] == [f"{editor.DISTRIBUTION}=={version(editor.DISTRIBUTION)}"]
    assert not any(editor.DISTRIBUTION in line for line in project["dependencies"])
    folder = editor.frontend_folder()
    assert folder and not folder.is_relative_to(ROOT / "studio") and not folder.is_relative_to(ROOT / "tabs")


def test_the_page_is_served_byte_for_byte_and_may_speak_to_nobody_else(client: httpx.Client) -> None:
    folder = editor.frontend_folder()
    assert folder
    page = client.get("/comfy/", headers={"Accept-Encoding": "identity"})
    assert page.content == (folder / "index.html").read_bytes() and page.headers["cache-control"] == "no-cache"
    policy = page.headers["content-security-policy"]
    assert "connect-src 'self' data: blob:" in policy and "unsafe-eval" not in policy.replace("wasm-unsafe-eval", "")
    assert "http" not in policy and "*" not in policy and "frame-ancestors 'self'" in policy
    assert page.headers["x-frame-options"] == "SAMEORIGIN"


def test_scripts_come_packed_and_are_kept_for_ever(client: httpx.Client) -> None:
    folder = editor.frontend_folder()
    assert folder
    largest = max((folder / "assets").glob("*.js"), key=lambda path: path.stat().st_size)
    with client.stream("GET", f"/comfy/assets/{largest.name}") as answer:
        raw = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip" and "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-type"].startswith("text/javascript")
        assert "content-security-policy" in answer.headers
    assert gzip.decompress(raw) == largest.read_bytes() and len(raw) < largest.stat().st_size / 2
    plain = client.get(f"/comfy/assets/{largest.name}", headers={"Accept-Encoding": "identity"})
    assert plain.content == largest.read_bytes()


def test_the_address_without_its_slash_leads_to_the_one_with_it_wherever_we_are_mounted(client: httpx.Client) -> None:
    answer = client.get("/comfy")
    assert answer.status_code == 307 and answer.headers["location"] == "comfy/"


@pytest.mark.parametrize("path", ["prompt", "object_info", "system_stats", "queue", "jobs", "extensions", "i18n"])
def test_the_api_is_there_relative_to_the_editor(client: httpx.Client, path: str) -> None:
    assert client.get(f"/comfy/api/{path}").status_code == 200 == client.get(f"/comfy/{path}").status_code


def test_our_own_script_is_listed_and_there(client: httpx.Client) -> None:
    (listed,) = client.get("/comfy/api/extensions").json()
    script = client.get(f"/comfy{listed}")
    assert script.headers["content-type"].startswith("text/javascript") and "registerExtension" in script.text
    assert client.get("/extensions").json() == []  # other clients of the API get no scripts


@pytest.mark.parametrize(
    ("cookies", "accept", "stored", "locale", "palette"),
    [
        ({}, "zh-CN", None, "zh", None),
        ({}, "de,en;q=0.5", None, "en", None),
        ({"easel_lang": "zh-CN", "easel_theme": "light"}, "en", None, "zh", "light"),
        ({"easel_lang": "en", "easel_theme": "dark"}, "zh", "light", "en", "dark"),
        ({"easel_theme": "light"}, "en", "nord", "en", "nord"),
        ({"easel_theme": "evil"}, "en", None, "en", None),
    ],
)
def test_language_and_theme_are_the_studios(
    client: httpx.Client, cookies: dict[str, str], accept: str, stored: str | None, locale: str, palette: str | None
) -> None:
    client.post("/settings", json={"Comfy.Locale": "fr", "Comfy.ColorPalette": stored or "dark"})
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    found = client.get("/comfy/api/settings", headers={"Cookie": cookie, "Accept-Language": accept}).json()
    assert found["Comfy.Locale"] == locale and found["Comfy.ColorPalette"] == (palette or stored or "dark")
    assert found["Comfy.Notification.ShowVersionUpdates"] is False
    assert client.get("/settings").json()["Comfy.Locale"] == "fr"  # other clients see what was stored
    client.post("/comfy/api/settings/Comfy.Notification.ShowVersionUpdates", json=True)
    assert client.get("/comfy/api/settings").json()["Comfy.Notification.ShowVersionUpdates"] is True
    client.post("/settings/Comfy.Notification.ShowVersionUpdates", json=False)


def test_templates_are_listed_in_both_languages_with_a_picture_each(client: httpx.Client) -> None:
    english, chinese = (client.get(f"/comfy/templates/{name}").json() for name in ("index.json", "index.zh.json"))
    assert client.get("/templates/index.json").json() == english
    rows = [row for group in english for row in group["templates"]]
    assert len(rows) >= 18 and chinese[0]["templates"][0]["title"] == "试一试：内置模型"
    for row in rows:
        workflow = client.get(f"/templates/{row['name']}.json").json()
        assert workflow["nodes"] and workflow["version"] == 0.4
        thumbnail = client.get(f"/templates/{row['name']}-1.{row['mediaSubtype']}")
        assert thumbnail.headers["content-type"] == "image/png" and len(thumbnail.content) > 500
    for name in ("none.json", "../../pyproject.toml", "..%2f..%2fpyproject.toml", "none-1.png", "x"):
        assert client.get(f"/templates/{name}").status_code == 404


@pytest.mark.parametrize(
    "name",
    ["../secret", "%2e%2e/%2e%2e/etc/passwd", "..%2f__init__.py", "assets/../../__init__.py", "/etc/passwd", "none"],
)
def test_nothing_beside_the_package_is_given_out(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/comfy/{name}")
    assert answer.status_code in (400, 404) and b"root:" not in answer.content


def test_the_owner_may_leave_it_out(tmp_path: Path, served: Served) -> None:
    settings = StudioSettings(server=ServerSettings(editor=False))
    app = open_app(Workspace(tmp_path), settings, small.KINDS, lambda password: None)
    try:
        with running(asgi_app(app, with_page=False)) as port:
            assert httpx.get(f"http://127.0.0.1:{port}/comfy/", trust_env=False).status_code == 404
    finally:
        app.jobs.close()
