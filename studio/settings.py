"""The studio's own settings: studio.toml in the workspace. Flags of the command line win over it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.settings import checked, read_toml
from engine.workspace import Workspace

DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:\d+)?)$"
CACHE_PATTERN = r"^(none|classic|lru:[1-9]\d*|ram(:\d+(\.\d+)?)?)$"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    """Where the page is served."""

    host: Annotated[str, Field(description="Address to listen on. 0.0.0.0: other machines can reach it.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port of the page and the API; 0 takes a free one.")] = 7860
    editor: Annotated[bool, Field(description="Serve the node editor at /comfy/, where its package is installed.")] = (
        True
    )
    browser: Annotated[bool, Field(description="Open the page in a browser at start, where there is one.")] = True


class AccessSettings(Section):
    """Who may come in."""

    local_without_password: Annotated[
        bool, Field(description="Let this machine's own browser in without the password. Off on a shared machine.")
    ] = True
    session_days: Annotated[int, Field(ge=1, le=365, description="Days until a browser has to sign in again.")] = 30


class LimitSettings(Section):
    """What one request may bring. Pictures have a limit of their own: 16,384 pixels a side."""

    upload_mb: Annotated[int, Field(ge=1, le=10_000, description="Largest file that can be uploaded, in MiB.")] = 100
    archive_mb: Annotated[
        int, Field(ge=1, le=10_000_000, description="Largest zip of pictures that can be uploaded, in MiB.")
    ] = 4096
    unpacked_gb: Annotated[int, Field(ge=1, le=100_000, description="Most that may come out of one zip, in GiB.")] = 64
    prompt_mb: Annotated[int, Field(ge=1, le=1000, description="Largest workflow that is accepted, in MiB.")] = 64
    history: Annotated[int, Field(ge=1, le=1_000_000, description="Finished workflows that are remembered.")] = 10_000


class MemorySettings(Section):
    """How much of the device and how many models of a kind stay loaded. What is in use never goes."""

    cap_gb: Annotated[
        float, Field(ge=0, le=4096, description="Most device memory used, in GiB; 0 takes what is free.")
    ] = 0
    vaes: Annotated[int, Field(ge=1, le=1000, description="VAEs that stay loaded at most.")] = 3
    loras: Annotated[int, Field(ge=1, le=1000, description="LoRAs that stay loaded at most.")] = 5


class CustomNodeSettings(Section):
    """Node code of others. It runs as you do, may read and change all that you may, and is nobody's here."""

    enabled: Annotated[bool, Field(description="Load the node packs in the workspace's custom_nodes folder.")] = False


class StudioSettings(Section):
    """Everything in studio.toml."""

    language: Annotated[
        Literal["auto", "en", "zh"], Field(description="Language of the page; auto follows the browser.")
    ] = "auto"
    device: Annotated[str, Field(pattern=DEVICE_PATTERN, description="auto, cpu, mps or cuda:N.")] = "auto"
    cache: Annotated[
        str,
        Field(
            pattern=CACHE_PATTERN,
            description="Results of nodes that are kept: none, classic (of the last workflow), lru:N (the last N), "
            "or ram (all, while the machine has memory to spare; ram:N keeps N GiB free).",
        ),
    ] = "classic"
    extra_model_paths: Annotated[Path | None, Field(description="A ComfyUI extra_model_paths.yaml.")] = None
    output: Annotated[Path | None, Field(description="Folder for pictures instead of the workspace's output/.")] = None
    allow_pickle: Annotated[
        bool,
        Field(description="Read models in pickle files (.ckpt, .pt, .bin) as well: tensors, no code."),
    ] = False
    server: ServerSettings = ServerSettings()
    access: AccessSettings = AccessSettings()
    limits: LimitSettings = LimitSettings()
    custom_nodes: CustomNodeSettings = CustomNodeSettings()
    memory: MemorySettings = MemorySettings()


def load_settings(workspace: Workspace, **flags: object) -> StudioSettings:
    """studio.toml, where there is one, under the flags that were given (None = not given).

    A flag is named like its setting; `host`, `port` and `browser` belong to the server section, and `custom_nodes` says
    whether those are enabled.
    """
    path = workspace.settings_file
    stored = read_toml(StudioSettings, path) if path.is_file() else StudioSettings()
    data = stored.model_dump()
    for name, value in flags.items():
        if value is not None:
            section = data["server"] if name in ServerSettings.model_fields else data
            section[name] = {"enabled": value} if name == "custom_nodes" else value
    return checked(StudioSettings, data, "the command line")
