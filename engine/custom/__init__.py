"""Node code of others: packs from `custom_nodes/`, run in the worker when the machine's owner has turned it on.

What packs import is a small surface of our own (engine/custom/surface) under the names that they know. It is written
from how packs use those names; docs/custom-nodes.md says what is there and what is not.
"""
