"""Whether a module of an image model is still what its class says, so that its arithmetic can be done another way."""

from __future__ import annotations

from typing import Any


def is_plain_module(module: Any, *kinds: type) -> bool:
    """Whether a module is of one of the classes and of no subclass, and has no hooks on its results.

    A strategy of somebody's own may have put a module of another arithmetic in its place, or a hook on it.
    """
    return type(module) in kinds and not module._forward_hooks and not module._forward_pre_hooks
