"""Tokens that came with a job for its run alone: taken out of whatever is kept or told."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

MASK = "***"
SHORTEST = 6  # letters; less is no token, and masking it would hide half of a message


def masked(value: Any, secrets: Collection[str]) -> Any:
    """JSON without these words, wherever they stand in it: an error may quote the token that was refused."""
    if not secrets:
        return value
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK) if len(secret) >= SHORTEST else value
        return value
    if isinstance(value, dict):
        return {key: masked(one, secrets) for key, one in value.items()}
    return [masked(one, secrets) for one in value] if isinstance(value, list | tuple) else value
