"""Writing files so that a reader never sees half of one, and finding out beforehand whether they can be written."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from backbones.registry import did_you_mean

# the beginning of the name of what is made, for an instant, to see whether a folder can be written to
PROBE = ".aim-bench-probe-"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in its place; a failure leaves nothing behind.

    A link stays a link: the file that it leads to is replaced.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    # opened here and not by `write`, so that the file has the mode of any other new file and surely did not exist
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        write(temporary)
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text in UTF-8, its line ends as they are."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))


def reason(error: OSError) -> str:
    """Return the system's words for an error, without the number and the path."""
    return error.strerror or str(error)


def did_you_mean_path(path: Path) -> str:
    """` (did you mean 'x'?)` for the nearest name beside a path, or an empty string where the path exists."""
    if os.path.lexists(path):
        return ""
    try:
        beside = sorted(os.listdir(path.parent))
    except (OSError, ValueError):
        return ""
    near = did_you_mean(path.name, beside)
    for name in beside:
        near = near.replace(repr(name), repr(str(path.parent / name)))
    return near


def why_not_writable(folder: Path) -> str | None:
    """Return why a folder, made yet or not, cannot be made or written to; None where it can. Leaves nothing behind."""
    nearest = Path(os.path.abspath(folder))
    while True:
        try:
            nearest.lstat()
            break
        except (FileNotFoundError, NotADirectoryError):
            nearest = nearest.parent
        except OSError as error:  # a name that is too long, a folder that must not be looked into
            return reason(error)
    if not os.path.isdir(nearest):
        return f"{nearest} is not a folder"
    # a try tells more than the mode's bits: they say nothing of read-only disks, and root may do all that they forbid
    probe = nearest / f"{PROBE}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        probe.mkdir()
    except OSError as error:
        return f"nothing can be made in {nearest}: {reason(error)}"
    probe.rmdir()
    return None
