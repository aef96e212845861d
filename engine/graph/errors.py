"""What can go wrong while a prompt runs."""

from __future__ import annotations

from typing import Any

from engine.errors import GraphError


class NodeFailed(GraphError):
    """A node raised. `result` is what the run had until then, for the history; the cause is `__cause__`."""

    en = "Node {node_id} ({class_type}) failed: {reason}"
    zh = "节点 {node_id}（{class_type}）出错：{reason_zh}"

    def __init__(self, **values: Any) -> None:
        self.result: dict[str, Any] = {}
        super().__init__(**values)


class MissingNode(GraphError):
    en = "Node {user} links to node {node_id}, which does not exist."
    zh = "节点 {user} 链接到不存在的节点 {node_id}。"


class UnknownNodeType(GraphError):
    en = "Node {node_id} is of the type '{class_type}', which does not exist."
    zh = "节点 {node_id} 的类型“{class_type}”不存在。"


class MissingSlot(GraphError):
    en = "Node {user} asks for output {slot} of node {node_id} ({class_type}), which gave {count}."
    zh = "节点 {user} 需要节点 {node_id}（{class_type}）的第 {slot} 个输出，但它只给出了 {count} 个。"


class DependencyCycle(GraphError):
    en = "These nodes wait for each other: {path}."
    zh = "这些节点互相等待：{path}。"


class DuplicateNode(GraphError):
    en = "Node {parent} expands into a node {node_id}, which exists already. Build expansions with ctx.graph."
    zh = "节点 {parent} 展开出的节点 {node_id} 已经存在。请用 ctx.graph 构建展开。"


class BadResult(GraphError):
    en = "Node type {class_type} returned {got}, not a tuple of its outputs, a dict or nothing."
    zh = "节点类型 {class_type} 返回了 {got}，而不是输出元组、字典或空值。"


class NotLazy(GraphError):
    en = "check_lazy of {class_type} asks for '{name}', which is not an input linked in this prompt."
    zh = "{class_type} 的 check_lazy 请求了“{name}”，但它不是此工作流中已连接的输入。"


class OutOfMemory(GraphError):
    """What a device's own error lacks: what to do."""

    en = (
        "{reason} Make the picture or the batch smaller, stop what else uses the device, or leave it less to hold: "
        "memory.cap_gb in studio.toml. Models that were idle have been taken off it."
    )
    zh = (
        "{reason} 请减小图片尺寸或批量，停止占用该设备的其他任务，"
        "或在 studio.toml 中调低 memory.cap_gb。空闲的模型已从设备中移出。"
    )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Torch's error, by name: no torch here."""
    return type(error).__name__ in ("OutOfMemoryError", "MemoryError")
