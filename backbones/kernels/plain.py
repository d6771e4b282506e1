"""Test for modules of an image model that are still what their class says, so that other arithmetic may stand in."""

from __future__ import annotations

from typing import Any


def is_plain_module(module: Any, *kinds: type) -> bool:
    """Return whether a module is of one of the classes and of no subclass, and has no hooks on its results.

    A strategy of somebody's own may have put a module of another arithmetic in its place, or a hook on it.
    """
    return type(module) in kinds and not module._forward_hooks and not module._forward_pre_hooks
