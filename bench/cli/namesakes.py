"""Packages of others that have the names of ours and take their places: told before any of them is imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from bench.text import one_line

# AdapterHub's `adapters` on PyPI is one, a folder of a user's own may be another
_OURS = ("adapters", "backbones")
_MARK = b"aim-bench"  # stands in the docstring of each of ours


def namesakes() -> list[str]:
    """A sentence on each of our packages of which Python finds another one, or none."""
    return [one_line(sentence) for name in _OURS if (sentence := _told(name))]


def _told(name: str) -> str:
    spec = importlib.util.find_spec(name)
    if spec is None:
        return f"its package {name!r} is missing: expected all of aim-bench, which is to be installed again"
    where = Path(spec.origin or next(iter(spec.submodule_search_locations or ()), name))
    try:
        if _MARK in where.read_bytes():
            return ""
    except OSError:  # a folder without an __init__.py
        pass
    if {"site-packages", "dist-packages"} & set(where.parts):
        way = (
            "install aim-bench into a fresh virtual environment, or uninstall the other package "
            f"(pip uninstall {name}) and install aim-bench again"
        )
    else:
        way = "rename it, or take its folder off Python's path (PYTHONPATH or the working folder)"
    return f"another package called {name!r} takes the place of aim-bench's own: {where}; {way}"
