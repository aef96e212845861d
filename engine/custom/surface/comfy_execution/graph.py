"""`comfy_execution.graph`: what blocks, and the prompt as it runs."""

from engine.graph.dynprompt import DynPrompt as DynamicPrompt
from engine.graph.links import is_link
from engine.graph.node import Blocker as ExecutionBlocker

__all__ = ["DynamicPrompt", "ExecutionBlocker", "is_link"]
