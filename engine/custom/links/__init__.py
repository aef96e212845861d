"""MODEL, CLIP and VAE links as packs see them: the studio's own objects with the methods that packs call.

Each is a subclass of what it stands for, so that nodes of the studio take it as it is, and a copy of its own, so that
what a pack sets on it is seen by nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from engine.custom.host import host
from engine.families.base import Clip, Model, Vae


def lent(value: Any) -> Any:
    """What a pack is given for the value of a link. What it hands on needs no way back."""
    make = _MAKERS.get(type(value))
    return make(value) if make else value


def lent_all(values: list[Any] | tuple[Any, ...]) -> Any:
    return type(values)(map(lent, values)) if type(values) in (list, tuple) else values


def missing(what: str, name: str, offered: str) -> AttributeError:
    return AttributeError(f"{what} has no {name!r} in Easel. It has {offered} (docs/custom-nodes.md).")


def public(cls: type) -> str:
    """The names that a class offers, for messages."""
    return ", ".join(name for name in vars(cls) if not name.startswith("_"))


def _copied(cls: type, value: Any) -> Any:
    return cls(**{item.name: getattr(value, item.name) for item in fields(value)})


def _clip(value: Clip) -> Any:
    from engine.custom.links.clip import PackClip

    return _copied(PackClip, value)


def _vae(value: Vae) -> Any:
    from engine.custom.links.vae import PackVae

    return _copied(PackVae, value)


def _model(value: Model) -> Any:
    from engine.custom.links.model import PackModel

    return _copied(PackModel, value)


_MAKERS: dict[type, Callable[[Any], Any]] = {Clip: _clip, Vae: _vae, Model: _model}


def node(name: str) -> Callable[..., Any]:
    """A node of the studio to be called as a function, within a call of a node."""
    from engine.custom.facade import called

    return called(host().registry[name])
