"""Reading pictures on several machines by way of Ray: each has Easel and the model in a workspace of its own; pictures
travel as their files' bytes, readings come back. Optional: pip install 'easel-studio[ray]'.

A cluster runs what it is sent, and sends what is run here; so its address is the machine owner's to give, in the
environment (EASEL_RAY) or by `studio tag --ray`, not that of whoever may send jobs. It runs in the worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.dataset.decoding import decode_rgb
from engine.errors import DeviceError, EaselError, PictureError
from engine.workspace import Workspace
from taggers.halving import read_within
from taggers.reader import Found, Origin
from taggers.settings import Captioner, OnnxTool
from taggers.tool import About

ALLOWED = "EASEL_RAY"
TRIES = 3
Sent = tuple[str, bytes, About]  # name, the file's bytes, its words


class NoRay(DeviceError):
    en = "Tagging on several machines needs Ray, which is not installed ({reason}). pip install 'easel-studio[ray]'."
    zh = "在多台机器上打标需要 Ray，但尚未安装（{reason}）。请执行 pip install 'easel-studio[ray]'。"


class RayNotAllowed(DeviceError):
    en = "The Ray cluster {address} is not the owner's choice. Start the studio with {variable}={address} to allow it."
    zh = "Ray 集群 {address} 未经本机所有者允许。请以 {variable}={address} 启动程序以允许使用。"


class ClusterUnreachable(DeviceError):
    en = "The Ray cluster {address} can't be used: {reason}"
    zh = "无法使用 Ray 集群 {address}：{reason}"


class ClustersDiffer(DeviceError):
    en = "The machines of the cluster have different versions of {name}. Copy one folder to all of them."
    zh = "集群中各机器上的 {name} 版本不一致。请将同一文件夹复制到所有机器。"


class Remote:
    """What runs on a machine of the cluster: one tool, opened once."""

    def __init__(self, workspace: str, tool: OnnxTool | Captioner) -> None:
        from engine.models.device import open_device
        from engine.models.manager import ModelManager
        from taggers.opening import open_reader

        place = Workspace(Path(os.environ.get("EASEL_WORKSPACE") or workspace)).create()
        self._models = ModelManager(open_device("auto"))
        self._reader = open_reader(place, self._models, tool)

    def origin(self) -> Origin:
        return self._reader.origin()

    def wants_words(self) -> bool:
        return self._reader.wants_words

    def read(self, pictures: Sequence[Sent]) -> tuple[list[Found], str]:
        """What it found or what is wrong with a picture, in order, and where it ran."""
        found: list[Found | None] = []
        good: list[tuple[int, Any, About]] = []
        for name, data, about in pictures:
            try:
                image = decode_rgb(data, name, at_least=self._reader.at_least)
                good.append((len(found), self._reader.prepare(image), about))
                found.append(None)
            except PictureError as error:
                found.append(error)
        read = read_within(self._reader, self._models, [p for _, p, _ in good], [a for _, _, a in good]) if good else []
        for (place, _, _), one in zip(good, read, strict=True):
            found[place] = one
        return [one for one in found if one is not None], f"{os.uname().nodename} {self._reader.provider}"


class Cluster:
    """One tool on every machine of a cluster that has room for it."""

    def __init__(self, address: str, workspace: Workspace, tool: OnnxTool | Captioner) -> None:
        if os.environ.get(ALLOWED) != address:
            raise RayNotAllowed(address=address, variable=ALLOWED)
        self._ray = _ray()
        self._address, self._name = address, tool.tagger if isinstance(tool, OnnxTool) else tool.model
        try:
            if not self._ray.is_initialized():
                self._ray.init(address=address, log_to_driver=False, configure_logging=False)
            gpus = self._ray.cluster_resources().get("GPU", 0)
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterUnreachable(address=address, reason=str(error).splitlines()[0]) from error
        wanted: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        make = self._ray.remote(Remote).options(scheduling_strategy="SPREAD", **wanted)
        self._actors = [make.remote(str(workspace.root), tool) for _ in range(int(gpus) or len(nodes))]

    def origin(self) -> Origin:
        """Raises ClustersDiffer, and what opening the tool raised on a machine."""
        found = self._get([actor.origin.remote() for actor in self._actors])
        if any((one.version, dict(one.settings)) != (found[0].version, dict(found[0].settings)) for one in found):
            raise ClustersDiffer(name=self._name)
        return found[0]

    def wants_words(self) -> bool:
        return self._get([self._actors[0].wants_words.remote()])[0]

    def read(self, batches: Iterator[list[Sent]]) -> Iterator[tuple[int, list[Found], str]]:
        """(number of the batch, what was found, where), as they are ready. A machine that is lost is done without."""
        free = self._actors * 2  # while one batch is read, the next is on its way
        under_way: dict[Any, tuple[int, list[Sent], Any, int]] = {}
        waiting = ((number, batch, 1) for number, batch in enumerate(batches))
        again: list[tuple[int, list[Sent], int]] = []
        while True:
            while free:
                job = again.pop() if again else next(waiting, None)
                if job is None:
                    break
                number, batch, tries = job
                actor = free.pop(0)
                under_way[actor.read.remote(batch)] = (number, batch, actor, tries)
            if not under_way:
                return
            ready, _ = self._ray.wait(list(under_way), num_returns=1)
            number, batch, actor, tries = under_way.pop(ready[0])
            try:
                found, where = self._ray.get(ready[0])
            except self._ray.exceptions.RayActorError as error:
                free = [one for one in free if one is not actor]
                left = {*map(id, free), *(id(one) for _, _, one, _ in under_way.values())} - {id(actor)}
                if tries >= TRIES or not left:
                    raise ClusterUnreachable(address=self._address, reason=str(error).splitlines()[0]) from error
                again.append((number, batch, tries + 1))
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from error
            free.append(actor)
            yield number, found, where

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)

    def _get(self, futures: list[Any]) -> list[Any]:
        try:
            return self._ray.get(futures)
        except self._ray.exceptions.RayActorError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Exception):
                raise _cause(cause) from error
            raise ClusterUnreachable(address=self._address, reason=str(error).splitlines()[0]) from error
        except self._ray.exceptions.RayTaskError as error:
            raise _cause(error) from error


def _cause(error: Any) -> Exception:
    """The error of ours that happened on another machine."""
    inner = getattr(error, "cause", None)
    return inner if isinstance(inner, EaselError) else error


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NoRay(reason=error) from error
    return ray
