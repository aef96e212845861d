"""Every error Easel raises on purpose, with its words in English and Chinese.

An error says what happened, with the value, and what to do. It is one class: its fields are the values, `en` and
`zh` are templates over them. A module with errors of its own adds subclasses of a branch below beside its code;
`EaselError.to_json` / `error_from_json` carry an error across the pipe and into the job store, so that it is shown in
the language of whoever looks.

    EaselError
    ├── InputError            what a person or client sent is not usable (HTTP 400)
    │   ├── SettingsError     a setting is unknown, of the wrong type or out of range
    │   ├── PathError         a path leaves the folder it must stay in, or is not there
    │   └── PictureError      a picture can't be read
    ├── FileError             a model file can't be used: broken, wrong kind, wrong family
    ├── GraphError            a workflow is wrong, or a node failed
    ├── DeviceError           the device layer can't do it: no room, device gone
    ├── StorageError          the disk is full or not writable
    └── JobError              a job's state does not allow it, or its worker is gone
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypedDict

Language = Literal["en", "zh"]


class EaselError(Exception):
    """Root of the tree. `values` fill the templates; unknown or missing names are a programming error (KeyError)."""

    en: ClassVar[str] = "{message}"
    zh: ClassVar[str] = "{message}"

    def __init__(self, **values: Any) -> None:
        self.values = values
        super().__init__(self.en.format(**values))

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross to other processes; their fields are named, so they can't be made again from `args`."""
        return _made_again, (type(self), self.values)

    def text(self, language: Language = "en") -> str:
        return (self.zh if language == "zh" else self.en).format(**self.values)

    def to_json(self) -> dict[str, Any]:
        return {"code": type(self).__name__, "en": self.text("en"), "zh": self.text("zh")}


def _made_again(kind: type[EaselError], values: dict[str, Any]) -> EaselError:
    error = kind.__new__(kind)
    EaselError.__init__(error, **values)
    return error


class InputError(EaselError):
    pass


class SettingsError(InputError):
    pass


class PathError(InputError):
    pass


class PictureError(InputError):
    pass


class FileError(EaselError):
    pass


class GraphError(EaselError):
    pass


class DeviceError(EaselError):
    pass


class StorageError(EaselError):
    pass


class JobError(EaselError):
    pass


class UnknownSetting(SettingsError):
    en = "There is no setting '{name}' in {where}. Did you mean '{nearest}'?"
    zh = "{where} 中没有设置项“{name}”。您是否想写“{nearest}”？"


class InvalidSetting(SettingsError):
    """`reason_zh` where the reason has Chinese words."""

    en = "{where}: '{name}' is {value!r}, but {reason}."
    zh = "{where}：“{name}”的值为 {value!r}，但{reason_zh}。"

    def __init__(self, **values: Any) -> None:
        super().__init__(**{"reason_zh": f" {values['reason']}", **values})


class OutsideWorkspace(PathError):
    en = "'{path}' lies outside {root}. Only files inside that folder can be used here."
    zh = "“{path}”位于 {root} 之外。这里只能使用该文件夹内的文件。"


class NotFound(PathError):
    """`what` and `remedy` in both languages; `CHECK_PATH` and `GONE` are the usual remedies."""

    en = "{what} '{name}' was not found. {remedy}"
    zh = "找不到{what_zh}“{name}”。{remedy_zh}"

    def __init__(self, *, what: str, what_zh: str, name: object, remedy: str, remedy_zh: str) -> None:
        super().__init__(what=what, what_zh=what_zh, name=name, remedy=remedy, remedy_zh=remedy_zh)


class _Remedy(TypedDict):
    remedy: str
    remedy_zh: str


CHECK_PATH: _Remedy = {"remedy": "Check the path.", "remedy_zh": "请检查路径。"}
GONE: _Remedy = {"remedy": "It may have been moved or deleted.", "remedy_zh": "它可能已被移动或删除。"}


class DiskFull(StorageError):
    en = "The disk is full: {path} could not be written ({need}). Nothing half-written was left. Free space and retry."
    zh = "磁盘已满：无法写入 {path}（{need}）。没有留下不完整的文件。请释放空间后重试。"


class Cancelled(BaseException):
    """Raised by `progress()` and `checkpoint()` of a cancelled job. Not an Exception, so that no node swallows it."""


def describe(error: BaseException) -> dict[str, Any]:
    """Any exception as {"code", "en", "zh"}: what the job store keeps and the tabs show."""
    if isinstance(error, EaselError):
        return error.to_json()
    words = f"{type(error).__name__}: {error}"
    return {"code": type(error).__name__, "en": words, "zh": words}
