"""Backbones, strategies and data sets of a user's own: Python files or modules whose import registers them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from bench.errors import UserError
from bench.files import did_you_mean_path

# the name that a plugin file has as a module -> the file
FILES: dict[str, Path] = {}


def load(plugins: Iterable[str]) -> None:
    """Import each plugin: a path that ends in .py, or a module's name. One that is imported already stays as it is.

    Raises:
        UserError: every plugin that is missing or fails on import.
    """
    problems = []
    for plugin in plugins:
        try:
            if not plugin.endswith(".py"):
                importlib.import_module(plugin)
            elif os.path.isfile(file := os.path.expanduser(plugin)):
                _import_file(Path(os.path.realpath(file)))
            else:
                problems.append(f"plugin {plugin!r}: there is no such file{did_you_mean_path(Path(file))}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin's code can raise anything, SystemExit included
            problems.append(f"plugin {plugin!r} cannot be imported: {_told(error)}{_hint(plugin)}")
    if problems:
        raise UserError(problems)


def _told(error: BaseException) -> str:
    """Return an exception in one line, with the line of the plugin that raised it where there is one."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    frames = traceback.extract_tb(error.__traceback__)
    # the innermost frame that is neither ours nor the import system's
    inside = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    return f"{text} (line {inside[-1].lineno} of {inside[-1].filename})" if inside else text


def _hint(plugin: str) -> str:
    if plugin.endswith(".py"):
        return ""
    if os.path.isfile(f"{plugin}.py"):
        return f" (did you mean '{plugin}.py'?)"
    return "; expected a file that ends in .py, or a module that Python finds"


def _import_file(file: Path) -> None:
    # files of one name in two folders are two plugins
    name = f"aim_bench_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    FILES[name] = file
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
