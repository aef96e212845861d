"""What can go wrong with jobs, in both languages. Branches: engine/errors.py."""

from __future__ import annotations

from typing import Any

from engine.errors import InputError, JobError, StorageError


class UnknownKind(InputError):
    en = "There is no job kind '{kind}'. Known: {known}."
    zh = "没有“{kind}”这种任务。已知的种类：{known}。"


class UnknownJob(JobError):
    en = "There is no job '{id}'. It may have been deleted."
    zh = "没有任务“{id}”。它可能已被删除。"


class DuplicateJob(JobError):
    en = "A job with the id '{id}' exists already."
    zh = "已存在编号为“{id}”的任务。"


class WrongState(JobError):
    en = "Job '{id}' is {state}; it can't be {action} now."
    zh = "任务“{id}”的状态是 {state}，现在不能执行“{action}”。"


class CannotPause(JobError):
    en = "Job '{id}' is running and a job of kind '{kind}' can't be paused in the middle. Cancel it, or let it finish."
    zh = "任务“{id}”正在运行，“{kind}”类任务无法中途暂停。请取消它，或等它完成。"


class CannotMove(JobError):
    en = "Job '{id}' can't be moved before '{before}': both must be queued and of one priority."
    zh = "无法把任务“{id}”移到“{before}”之前：两者都必须在排队，且优先级相同。"


class TooManyAttempts(JobError):
    en = "The worker died {attempts} times while this job ran, so it is not started again by itself. Last: {reason}"
    zh = "运行该任务时工作进程已崩溃 {attempts} 次，因此不再自动重试。最后一次：{reason}"


class WorkerDied(JobError):
    en = "The worker process ended while this job ran ({reason}). The worker has been started again; retry the job."
    zh = "运行该任务时工作进程意外结束（{reason}）。工作进程已重新启动，请重试该任务。"


class StudioStopped(JobError):
    en = "The studio was stopped or killed while this job ran. Retry it."
    zh = "运行该任务时程序被停止或终止。请重试。"


class WorkerNotReady(JobError):
    en = "The worker process is {state} ({phase}); no answer to '{name}' within {timeout:g} s."
    zh = "工作进程状态：{state}（{phase}）；{timeout:g} 秒内没有回应“{name}”。"


class WorkerGone(JobError):
    en = "The worker process ended before it answered '{name}'."
    zh = "工作进程在回应“{name}”之前就结束了。"


class UnknownRequest(JobError):
    en = "The worker answers no request called '{name}'. Known: {known}."
    zh = "工作进程不支持名为“{name}”的请求。已知：{known}。"


class StudioRunning(JobError):
    en = "Another studio (process {pid}) already works in {folder}. Stop it, or choose another workspace."
    zh = "另一个 Easel 进程（{pid}）正在使用 {folder}。请先停止它，或换一个工作区。"


class StoreBroken(StorageError):
    en = "The job store {path} can't be used: {reason}. Move the file away to start with an empty queue."
    zh = "任务数据库 {path} 无法使用：{reason}。请将该文件移走，以空队列重新开始。"


class StoreTooNew(StorageError):
    en = "{path} was written by a newer version (jobs schema {found}, known here: {known}). Update this installation."
    zh = "{path} 由更新的版本写入（任务表结构 {found}，本版本只认识 {known}）。请更新本程序。"


class RemoteError(JobError):
    """An error that happened in the other process: keeps its code and its words in both languages."""

    en = "{en}"
    zh = "{zh}"

    def to_json(self) -> dict[str, Any]:
        return {"code": self.values["code"], "en": self.values["en"], "zh": self.values["zh"]}


def from_json(error: dict[str, Any]) -> RemoteError:
    return RemoteError(code=error["code"], en=error["en"], zh=error["zh"])
