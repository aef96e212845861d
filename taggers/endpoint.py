"""Any model behind an OpenAI-compatible address: Ollama, vLLM, llama.cpp, LM Studio, or a service.

Pictures go as JPEG inside the request, several requests at a time. The key comes from the environment and is never
stored; it is not sent on to where an address redirects. Every way in which an address can fail has its own error.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, Literal

from PIL import Image
from pydantic import Field, field_validator

from engine.errors import Cancelled, DeviceError, EaselError
from taggers.chat import PROMPT
from taggers.reader import Origin
from taggers.tool import About, Answer, CaptionerKind, CaptionTool, filled, longest_answer, setting
from taggers.writing import captioner_origin, tags_in

LOOK_UP = 0.25  # seconds between two looks at whether the run was cancelled
_MOST = 16 << 20  # bytes of an answer that are read
_AGAIN = (408, 429, 500, 502, 503, 504)  # what may be over in a moment


class EndpointError(DeviceError):
    """`url` is without anything secret."""


class EndpointUnreachable(EndpointError):
    en = "{url} can't be reached ({reason}). Is the server running, and the address right?"
    zh = "无法连接 {url}（{reason}）。请确认服务已启动且地址正确。"


class EndpointTimeout(EndpointError):
    en = "{url} did not answer within {seconds:g} s, {tries} times. Raise the timeout, or ask for shorter answers."
    zh = "{url} 在 {seconds:g} 秒内没有响应，已尝试 {tries} 次。请增大超时时间，或要求更短的回答。"


class EndpointNotJson(EndpointError):
    en = "{url} answered with {what} instead of JSON. Is the base URL right? It usually ends with /v1."
    zh = "{url} 返回的是{what}，而不是 JSON。请检查基础地址，通常以 /v1 结尾。"


class EndpointRefused(EndpointError):
    en = "{url} refused: HTTP {status}, {reason}"
    zh = "{url} 拒绝了请求：HTTP {status}，{reason}"


class EndpointNoKey(EndpointError):
    en = "{url} wants a key (HTTP {status}). Put it into the environment variable {variable} and restart."
    zh = "{url} 需要密钥（HTTP {status}）。请设置环境变量 {variable} 后重新启动程序。"


class EndpointWrongKey(EndpointError):
    en = "The key in the environment variable {variable} has characters that no key has. Set it again, and restart."
    zh = "环境变量 {variable} 中的密钥包含无效字符。请重新设置后重启程序。"


class EndpointEmpty(EndpointError):
    en = "{url} answered without a text ({reason}). Does the model {model} see pictures?"
    zh = "{url} 的回答没有文本（{reason}）。模型 {model} 支持图片吗？"


class EndpointTool(CaptionTool):
    """A model behind an address."""

    kind: Literal["endpoint"] = "endpoint"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: str = setting("", "Model", "模型", "Its name there.", "该服务中的模型名称。", True, max_length=300)
    base_url: str = setting(
        "http://localhost:11434/v1",
        "Base URL",
        "基础地址",
        "Up to and with /v1. Ollama: http://localhost:11434/v1, llama.cpp: http://localhost:8080/v1.",
        "包含 /v1。Ollama：http://localhost:11434/v1；llama.cpp：http://localhost:8080/v1。",
        True,
        max_length=500,
    )
    key_variable: str = Field(
        "OPENAI_API_KEY",
        title="Key variable",
        description="Environment variable with the key; its name ends with _API_KEY. Local servers need none.",
        pattern=r"^[A-Z][A-Z0-9_]{0,60}_API_KEY$",
        json_schema_extra={
            "title_zh": "密钥变量",
            "help_zh": "保存密钥的环境变量，名称以 _API_KEY 结尾。本地服务无需密钥。",
            "group": "advanced",
        },
    )
    system: str = setting(
        "", "System prompt", "系统提示词", "Said before the question.", "置于问题之前。", max_length=4000
    )
    side: int = setting(
        1024,
        "Longest side",
        "最长边",
        "Pictures are sent with at most this many pixels.",
        "发送图片的最大边长（像素）。",
        ge=64,
        le=4096,
    )
    max_new_tokens: int = longest_answer(512)
    temperature: float = setting(
        0.2, "Temperature", "温度", "0 always takes the likeliest word.", "0 表示总是选择最可能的词。", ge=0.0, le=2.0
    )
    batch_size: int = setting(
        4, "At once", "并发数", "Requests under way at a time.", "同时进行的请求数。", ge=1, le=64
    )
    timeout: float = setting(
        120.0, "Timeout", "超时", "Seconds to wait for an answer.", "等待回答的秒数。", gt=0.0, le=3600.0
    )
    retries: int = setting(
        2,
        "Retries",
        "重试次数",
        "How often to ask again after what may pass.",
        "遇到暂时错误时的重试次数。",
        ge=0,
        le=10,
    )

    BESIDE = CaptionTool.BESIDE - {"model"} | {"timeout", "retries", "key_variable"}

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        parts = urllib.parse.urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("it must be an http or https address without a name, password or question mark in it")
        return value.strip().rstrip("/")

    def instruction(self) -> str:
        return PROMPT


def open_endpoint(manager: Any, folder: Any, tool: EndpointTool) -> EndpointReader:
    return EndpointReader(tool)


class EndpointReader:
    """Asks an address. `pause` is the time before the first retry; it doubles."""

    wants_words = True

    def __init__(self, tool: EndpointTool, pause: float = 1.0) -> None:
        self._tool, self._pause = tool, pause
        self.title, self.batch_size = tool.model, tool.batch_size
        self.at_least = tool.side
        self.provider = str(urllib.parse.urlsplit(tool.base_url).netloc)
        self._url = f"{tool.base_url}/chat/completions"
        self._cancelled: Callable[[], bool] = lambda: False
        self._pool = ThreadPoolExecutor(tool.batch_size, thread_name_prefix="endpoint")

    def origin(self) -> Origin:
        return captioner_origin(self._tool.model, self.provider, self._tool)

    def prepare(self, image: Image.Image) -> str:
        """JPEG as base64."""
        small = image.copy()
        small.thumbnail((self._tool.side, self._tool.side), Image.Resampling.BICUBIC)
        encoded = io.BytesIO()
        small.save(encoded, "JPEG", quality=90)
        return base64.b64encode(encoded.getvalue()).decode()

    def read(self, prepared: Sequence[str], about: Sequence[About]) -> list[Answer | EaselError]:
        asked = [filled(self._tool.asked(), one, self._tool.most_tags) for one in about]
        answers = [self._pool.submit(self._ask_or_refuse, *one) for one in zip(prepared, asked, strict=True)]
        while True:
            done, waiting = wait(answers, LOOK_UP, return_when=FIRST_EXCEPTION)
            if not waiting or any(answer.exception() for answer in done):
                return [answer.result() for answer in answers if answer in done]
            if self._cancelled():
                raise Cancelled

    def stop_when(self, cancelled: Callable[[], bool]) -> None:
        """A server that does not answer holds up no cancel; what was asked already is left to itself."""
        self._cancelled = cancelled

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask_or_refuse(self, picture: str, question: str) -> Answer | EaselError:
        """What is wrong with this picture or its answer is no reason to leave the others."""
        try:
            return self._ask(picture, question)
        except (EndpointEmpty, EndpointRefused) as error:
            return error

    def _ask(self, picture: str, question: str) -> Answer:
        place = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture}"}}
        messages: list[dict[str, Any]] = [{"role": "user", "content": [place, {"type": "text", "text": question}]}]
        if self._tool.system.strip():
            messages.insert(0, {"role": "system", "content": self._tool.system})
        wanted = {"max_tokens": self._tool.max_new_tokens, "temperature": self._tool.temperature}
        found = self._post({"model": self._tool.model, "messages": messages, "stream": False, **wanted})
        return self._answer(found)

    def _answer(self, found: Any) -> Answer:
        try:
            choice = found["choices"][0]
            text = _text(choice["message"]["content"])
        except (KeyError, IndexError, TypeError) as error:
            said = str(found.get("error", found) if isinstance(found, dict) else found)[:200]
            raise EndpointEmpty(url=self._url, reason=said, model=self._tool.model) from error
        if not isinstance(text, str):
            raise EndpointEmpty(url=self._url, reason=f"content is {text!r}"[:200], model=self._tool.model)
        # JSON may hold halves of characters, which no file can
        text = text.encode("utf-8", "replace").decode().replace("\0", "")
        text = text.rpartition("</think>")[2].strip()
        tags = tags_in(text) if self._tool.write == "tags" else None
        return Answer(text, tags=tags, cut=choice.get("finish_reason") == "length")

    def _post(self, body: dict[str, Any]) -> Any:
        """Asked again after what may pass; raises the last error."""
        pause = self._pause
        for left in range(self._tool.retries, -1, -1):
            try:
                return self._once(body)
            except (EndpointUnreachable, EndpointTimeout, EndpointRefused) as error:
                passing = not isinstance(error, EndpointRefused) or error.values["status"] in _AGAIN
                if not left or not passing:
                    raise
            time.sleep(pause)
            pause *= 2
        raise AssertionError  # the loop returns or raises

    def _once(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "Easel"}
        if key := os.environ.get(self._tool.key_variable, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise EndpointWrongKey(variable=self._tool.key_variable)  # without it: errors are shown and kept
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers, method="POST")
        tries, ends = self._tool.retries + 1, time.monotonic() + self._tool.timeout
        try:
            with _OPENER.open(request, timeout=self._tool.timeout) as answer:
                return self._json(_read(answer, ends), answer.headers.get("Content-Type", ""))
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from error
        except TimeoutError as error:
            raise EndpointTimeout(url=self._url, seconds=self._tool.timeout, tries=tries) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise EndpointTimeout(url=self._url, seconds=self._tool.timeout, tries=tries) from error
            raise EndpointUnreachable(url=self._url, reason=error.reason) from error
        except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last for names that no host can have
            raise EndpointUnreachable(url=self._url, reason=f"{type(error).__name__} {error}".strip()) from error

    def _json(self, data: bytes, kind: str) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            html = "html" in kind or data[:200].lstrip().lower().startswith((b"<!doctype", b"<html"))
            what = "a web page (HTML)" if html else f"{len(data)} bytes of {kind or 'something'}"
            raise EndpointNotJson(url=self._url, what=what) from error

    def _refusal(self, error: urllib.error.HTTPError) -> EndpointError:
        try:
            data = error.read(4096)
        except (OSError, http.client.HTTPException):  # it refused, and then hung up
            data = b""
        if error.code in (401, 403):
            return EndpointNoKey(url=self._url, status=error.code, variable=self._tool.key_variable)
        try:
            found = json.loads(data)
            reason = found["error"]["message"] if isinstance(found["error"], dict) else found["error"]
        except (ValueError, KeyError, TypeError):
            page = data[:200].lstrip().lower().startswith((b"<!doctype", b"<html"))
            reason = "a web page (HTML)" if page else data.decode("utf-8", "replace")[:200].strip() or error.reason
        return EndpointRefused(url=self._url, status=error.code, reason=str(reason)[:300])


def _read(answer: Any, ends: float) -> bytes:
    """An answer up to its end, or to more than is taken. The socket's own timeout is for each piece: all of them are to
    be there by `ends`."""
    data = bytearray()
    while len(data) <= _MOST and (piece := answer.read1(1 << 16)):
        data += piece
        if time.monotonic() > ends:
            raise TimeoutError
    return bytes(data)


def _text(content: Any) -> Any:
    """The text of a message, which some servers give in parts."""
    if isinstance(content, list) and content and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key must not follow a redirect to somebody else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)

ENDPOINT = CaptionerKind(
    name="endpoint",
    title="OpenAI-compatible endpoint",
    settings=EndpointTool,
    reader="taggers.endpoint:open_endpoint",
    recognise=None,
    licence="that of the model behind it",
    note="Ollama, vLLM, llama.cpp, LM Studio or a service. The key comes from the environment.",
    note_zh="Ollama、vLLM、llama.cpp、LM Studio 或在线服务。密钥来自环境变量。",
)
