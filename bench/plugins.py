"""A user's own backbones and strategies: Python files or modules whose import registers them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.errors import UserError


def load(plugins: Iterable[str]) -> None:
    """Import each plugin: a path that ends in .py, or a module's name.

    Raises:
        UserError: every plugin that is missing or fails on import.
    """
    problems = []
    for plugin in plugins:
        try:
            if plugin.endswith(".py"):
                _import_file(Path(plugin).expanduser().resolve())
            else:
                importlib.import_module(plugin)
        except Exception as error:  # a plugin's code can raise anything
            problems.append(f"plugin {plugin!r} cannot be imported: {type(error).__name__}: {error}")
    if problems:
        raise UserError(problems)


def _import_file(file: Path) -> None:
    name = f"aim_bench_plugin_{file.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(file):
        return
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
