"""Where a command's text goes: the standard output, or a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.errors import UserError


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
    """Why `file`, given as the option `name`, cannot be written; empty where nothing speaks against it."""
    from bench.files import did_you_mean_path

    if os.path.isdir(file):
        return [f"{name} is {str(file)!r}: it is a folder, expected a file"]
    if not os.path.isdir(file.parent):
        return [f"{name} is {str(file)!r}: there is no folder {str(file.parent)!r}{did_you_mean_path(file.parent)}"]
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
