"""The switch between what is written by hand for speed and its plain forms, and the conditions under which it applies.

Plain forms are PyTorch's own operations, one after the other, as a reader of the papers' equations would write them.
Both compute the same function; results differ by rounding. The switch holds for the whole process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

Kernels = Literal["fast", "plain"]

_kernels: Kernels = "fast"


def kernels() -> Kernels:
    """Return the forms that are in use in this process."""
    return _kernels


def is_fast() -> bool:
    """Return whether hand-written forms are in use."""
    return _kernels == "fast"


@contextlib.contextmanager
def using(chosen: Kernels) -> Iterator[None]:
    """Use the chosen forms in this process, in all its threads, until the context ends.

    A model is built, put on its device and run within one context: frozen weights are cast when it is put there.
    """
    global _kernels
    before, _kernels = _kernels, chosen
    try:
        yield
    finally:
        _kernels = before


def is_plain_module(module: Any, *kinds: type) -> bool:
    """Return whether a module is of one of the classes and of no subclass, and has no hooks on its results.

    A strategy of somebody's own may have put a module of another arithmetic in its place, or a hook on it.
    """
    return type(module) in kinds and not module._forward_hooks and not module._forward_pre_hooks
