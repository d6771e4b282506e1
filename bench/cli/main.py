"""Entry point of `bench`. It imports no verb before it knows that Python finds this package's own parts."""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
import warnings
from pathlib import Path

from bench.errors import UserError
from bench.text import counted, indented, one_line

# AdapterHub's `adapters` on PyPI is one, a folder of a user's own may be another
_OURS = ("adapters", "backbones")
_MARK = b"aim-bench"  # stands in the docstring of each of ours


def main() -> None:
    """Run the command line; a user's mistakes are told in sentences and end with exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ± shows a ?, not a traceback
    if found := namesakes():
        sys.stderr.writelines(f"bench: {sentence}\n" for sentence in found)
        sys.exit(2)
    # the libraries' own words, which a user can do nothing about; what matters we tell ourselves
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.CRITICAL)

    from bench.cli.app import app
    from bench.cli.output import tell

    try:
        app(prog_name="bench")
    except UserError as error:
        tell(f"bench: {counted(len(error.problems), 'problem')}; nothing was run or changed.", err=True, style="red")
        for problem in error.problems:
            tell(f"  - {indented(problem, 4)}", err=True)
        sys.exit(2)


def namesakes() -> list[str]:
    """Return a sentence on each of our packages of which Python finds another one, or none."""
    return [one_line(sentence) for name in _OURS if (sentence := _namesake(name))]


def _namesake(name: str) -> str:
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


if __name__ == "__main__":
    main()
