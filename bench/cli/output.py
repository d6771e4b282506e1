"""Destination of a command's text: the standard output or error, or a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from bench.errors import UserError
from bench.text import visible

_WIDE = 1000  # columns; no table has so many


def tell(text: str, *, err: bool = False, style: str = "") -> None:
    """Print a message: the same lines in a terminal, a pipe and a log, styled in a terminal alone.

    Args:
        text: whatever names a file has put into it, the terminal takes nothing in it for a command.
        err: to the standard error.
    """
    Console(stderr=err, highlight=False).print(Text(visible(text), style), soft_wrap=True)


def print_table(*parts: RenderableType) -> None:
    """Print tables and texts as wide as the terminal is; elsewhere in one piece, however wide they are.

    Raises UserError where the standard output fails, as on a full disk.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    terminal = console.is_terminal
    wide = console if terminal else Console(width=_WIDE, highlight=False, markup=False, emoji=False, color_system=None)
    with wide.capture() as capture:
        for part in parts:
            wide.print(part)
    text = capture.get()
    if not terminal:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    say(text)


def say(text: str) -> None:
    """Write to the standard output. Raises UserError where that fails, as on a full disk."""
    from bench.files import reason

    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError([f"the table cannot be written to the standard output ({reason(error)})"]) from error


def obstacles(name: str, file: Path) -> list[str]:
    """Return why `file`, given as the option `name`, cannot be written; empty where nothing speaks against it."""
    from bench.files import did_you_mean_path

    if os.path.isdir(file):
        return [f"{name} is {str(file)!r}: it is a folder, expected a file"]
    if not os.path.isdir(file.parent):
        return [f"{name} is {str(file)!r}: there is not a folder {str(file.parent)!r}{did_you_mean_path(file.parent)}"]
    return []


def write(name: str, file: Path, text: str) -> None:
    """Write a file whole or not at all. Raises UserError."""
    from bench.files import reason, write_text

    try:
        if os.path.exists(file) and not os.path.isfile(file):
            # a pipe or a device, such as /dev/stdout: it cannot be replaced by a file
            with file.open("w", encoding="utf-8", newline="") as stream:
                stream.write(text)
        else:
            write_text(file, text)
    except OSError as error:
        raise UserError([f"{name} is {str(file)!r}: cannot be written ({reason(error)})"]) from error
