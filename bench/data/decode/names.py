"""Decoders by name, and which of them can be used here. No library is imported before one is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from backbones.registry import did_you_mean
from bench.spec.fields import DECODERS

_MODULES = {"decord": "decord", "pyav": "av", "torchcodec": "torchcodec"}


def available_decoders() -> tuple[str, ...]:
    """The decoders that are installed, whether they load or not."""
    return tuple(name for name, module in _MODULES.items() if find_spec(module))


@cache
def why_unusable(decoder: str) -> str:
    """Return why a decoder cannot be used here; an empty text where it can. One that is named is loaded."""
    if decoder not in DECODERS:
        return f"decoder is {decoder!r}: expected one of {', '.join(DECODERS)}{did_you_mean(decoder, DECODERS)}"
    if decoder == "auto":
        return ""
    installed = ", ".join(available_decoders())
    if decoder not in available_decoders():
        return f"decoder is {decoder!r}: it is not installed here (installed: {installed})"
    try:
        import_module(_MODULES[decoder])
        if decoder == "torchcodec":
            from bench.data.decode.torchcodec import check_libraries

            check_libraries()
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"decoder is {decoder!r}: it is installed and cannot be loaded: {reason} (installed: {installed})"
    return ""


def footnotes(used: Iterable[str], asked: str) -> list[str]:
    """Return a table's notes on who decoded: none where it is decord and nothing else was asked for."""
    told = sorted(set(used) - ({"decord"} if asked == "auto" else set()))
    return [f"decoded by {', '.join(told)}"] if told else []
