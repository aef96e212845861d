"""studio.toml, the flags over it, model paths of ComfyUI, and the command line's small parts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from PIL import Image
from pydantic import BaseModel

from engine.errors import InvalidSetting, NotFound, UnknownSetting
from engine.graph.metadata import Metadata, save_picture
from engine.workspace import Workspace
from studio.bars import duration, line_of
from studio.cli import main, parser
from studio.commands import BadThreshold, BadTool, NotAWorkflow, _open, _read_workflow, _threshold, _tool
from studio.model_paths import ModelPaths, read_extra_model_paths
from studio.server import _listen, worker_environment
from studio.settings import MemorySettings, StudioSettings, load_settings

PROGRESS = {"step": 3, "total": 12, "phase": "train", "text": "", "eta": 65.0, "metrics": {"loss": 0.08123}}


def written(tmp_path: Path, text: str) -> Workspace:
    (tmp_path / "studio.toml").write_text(text, encoding="utf-8")
    return Workspace(tmp_path)


def test_without_a_file_there_are_the_defaults(tmp_path: Path) -> None:
    assert load_settings(Workspace(tmp_path)) == StudioSettings()


def test_flags_win_over_the_file_and_those_not_given_do_not(tmp_path: Path) -> None:
    space = written(tmp_path, 'device = "cpu"\n[server]\nport = 1234\nhost = "0.0.0.0"\n')
    found = load_settings(space, port=99, host=None, cache="lru:20", device=None)
    assert (found.server.port, found.server.host, found.cache, found.device) == (99, "0.0.0.0", "lru:20", "cpu")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("devise = 'cpu'", "no setting 'devise' in studio.toml. Did you mean 'device'?"),
        ("[server]\nprot = 1", "no setting 'server.prot' in studio.toml. Did you mean 'server.port'?"),
        ("[server]\nport = 99999", "'server.port' is 99999"),
        ("cache = 'lru:0'", "'cache' is 'lru:0'"),
        ("[access]\nlocal_without_password = 'maybe'", "'access.local_without_password' is 'maybe'"),
        ("= 3", "can't be read"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises((UnknownSetting, InvalidSetting)) as caught:
        load_settings(written(tmp_path, text))
    assert words in str(caught.value)


def test_packs_of_others_are_off_until_the_owner_turns_them_on(tmp_path: Path) -> None:
    assert worker_environment(load_settings(Workspace(tmp_path)))["EASEL_CUSTOM_NODES"] == ""
    assert load_settings(Workspace(tmp_path), custom_nodes=True).custom_nodes.enabled
    assert load_settings(written(tmp_path, "[custom_nodes]\nenabled = true\n"), custom_nodes=None).custom_nodes.enabled


def test_a_byte_order_mark_and_chinese_paths_are_fine(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, '\ufeffoutput = "图片"\n')).output == Path("图片")


def test_model_paths_of_comfyui_are_read_with_its_older_names(tmp_path: Path) -> None:
    file = tmp_path / "extra.yaml"
    file.write_text(
        "a:\n  base_path: models here\n  checkpoints: checkpoints/\n"
        "  clip: |\n    text\n    models/clip\n  unet: unet\n  custom_nodes: custom_nodes\n  gligen: x\n"
        "b:\n  checkpoints: /abs/ckpt\n  vae:\nc: 3\n"
    )
    here = tmp_path / "models here"
    assert read_extra_model_paths(file) == ModelPaths(
        {
            "checkpoints": (here / "checkpoints", Path("/abs/ckpt")),
            "text_encoders": (here / "text", here / "models" / "clip"),
            "diffusion_models": (here / "unet",),
            "custom_nodes": (here / "custom_nodes",),
        }
    )
    file.write_text("a: [")
    with pytest.raises(InvalidSetting):
        read_extra_model_paths(file)
    with pytest.raises(NotFound):
        read_extra_model_paths(tmp_path / "none.yaml")


def test_default_paths_of_comfyui_are_searched_before_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS_OF_MINE", str(tmp_path / "mine"))
    file = tmp_path / "extra.yaml"
    file.write_text(
        "a:\n  base_path: $MODELS_OF_MINE\n  is_default: true\n  loras: |\n    one\n\n    two\n"
        "  custom_nodes: packs\nb:\n  loras: three\n  is_default: false\n"
    )
    found = read_extra_model_paths(file)
    mine = tmp_path / "mine"
    assert found.first == {"loras": (mine / "two", mine / "one"), "custom_nodes": (mine / "packs",)}
    assert found.extra == {"loras": (tmp_path / "three",)}
    space = Workspace(tmp_path / "space", found.extra, first=found.first).create()
    own = space.models / "loras"
    for folder in (mine / "two", mine / "one", own, tmp_path / "three"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "same.safetensors").touch()
        assert space.model_path("loras", "same.safetensors").is_file()
    assert space.model_roots("loras") == [mine / "two", mine / "one", own, tmp_path / "three"]
    assert space.model_path("loras", "same.safetensors") == mine / "two" / "same.safetensors"
    assert space.pack_roots == [mine / "packs", space.root / "custom_nodes"]


def test_a_command_that_is_left_out_is_serve() -> None:
    options = parser().parse_args(["serve", "--port", "8000", "--device", "cpu", "--cache", "ram", "--no-browser"])
    assert options.port == 8000 and options.run.__name__ == "serve" and options.host is None


def test_progress_is_one_line() -> None:
    assert line_of(PROGRESS, cells=8) == "train  [##------] 3/12  loss 0.08123  1:05 left"
    assert line_of({**PROGRESS, "total": 0, "phase": "", "text": "loading", "eta": None, "metrics": {}}) == "loading"
    assert [duration(s) for s in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]


def test_thresholds_and_workflows_are_checked_before_anything_starts(tmp_path: Path) -> None:
    assert _threshold("general=0.35") == ("general", 0.35)
    with pytest.raises(BadThreshold):
        _threshold("general")
    file = tmp_path / "w.json"
    for text in ("{", "[]"):
        file.write_text(text)
        with pytest.raises(NotAWorkflow):
            _read_workflow(file)
    file.write_text('\ufeff{"prompt": {"1": {}}}', encoding="utf-8")
    assert _read_workflow(file) == {"1": {}}
    for kind, suffix in (("PNG", "png"), ("WEBP", "webp")):
        with (tmp_path / f"p.{suffix}").open("wb") as out:
            save_picture(Image.new("RGB", (8, 8)), out, kind, Metadata(workflow={"nodes": [], "links": []}))
        assert _read_workflow(tmp_path / f"p.{suffix}") == {"nodes": [], "links": []}
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(NotAWorkflow):
        _read_workflow(tmp_path / "plain.png")


def test_passwords_and_tokens_are_made_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from studio.access import Access

    space = ["--workspace", str(tmp_path)]
    assert main(["password", "--generate", *space]) == 0
    password = capsys.readouterr().out.split(": ")[1].strip()
    access = Access(tmp_path / "access.json")
    assert access.check_password(password)
    assert main(["token", "my script", *space]) == 0
    token = capsys.readouterr().out.split("\n")[0]
    assert access.token_name(token) == "my script"
    assert main(["token", *space]) == 0
    row = capsys.readouterr().out
    assert "my script" in row and token not in row
    assert main(["token", "--revoke", row.split()[0], *space]) == 0
    assert access.token_name(token) is None


def test_jobs_of_an_empty_workspace_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "--workspace", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "No jobs yet.\n"


def test_the_worker_hears_of_the_memory_settings(tmp_path: Path) -> None:
    (tmp_path / "studio.toml").write_text("[memory]\nvaes = 2\ncap_gb = 7.5\n", encoding="utf-8")
    settings = load_settings(Workspace(tmp_path))
    told = MemorySettings.model_validate_json(worker_environment(settings)["EASEL_MEMORY"])
    assert (told.vaes, told.loras, told.cap_gb) == (2, 5, 7.5)


def test_small_answers_leave_at_once() -> None:
    with _listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP  # what asyncio looks at before it sets TCP_NODELAY


def test_tools_of_the_command_line_are_json_objects() -> None:
    assert _tool('{"kind": "florence2", "model": "f"}') == {"kind": "florence2", "model": "f"}
    for wrong in ("florence2", "[1]", "{"):
        with pytest.raises(BadTool, match="florence2"):
            _tool(wrong)


def test_pickle_files_are_read_where_the_owner_says_so(tmp_path: Path) -> None:
    assert not _workspace(tmp_path, "").allow_pickle
    assert _workspace(tmp_path, "allow_pickle = true").allow_pickle


def _workspace(root: Path, text: str) -> Workspace:
    written(root, text)
    return _open(parser().parse_args(["serve", "--workspace", str(root)]))[0]


@pytest.mark.parametrize("page", ["settings.md", "settings.zh-CN.md"])
def test_the_documentation_has_every_setting_with_its_default(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    rows = {
        line.split("|")[1].strip(" `"): line.split("|")[2].strip() for line in text.splitlines() if line[:3] == "| `"
    }
    wanted: dict[str, str] = {}
    for name, field in StudioSettings.model_fields.items():
        inner = type(field.default).model_fields if isinstance(field.default, BaseModel) else {name: field}
        assert not isinstance(field.default, BaseModel) or f"## [{name}]" in text
        wanted |= {key: "" if one.default is None else str(one.default) for key, one in inner.items()}
    assert rows == {key: value.lower() if value in ("True", "False") else value for key, value in wanted.items()}
