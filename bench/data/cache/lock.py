"""A lock between processes and threads, which the system takes away from a process that dies."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def locked(file: str | Path) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is missing and stays. Raises OSError.

    The system's own call wakes the next one at once. filelock asks again and again, and takes longer than a small
    video's frames to write; it is for systems without that call.
    """
    if sys.platform == "win32":
        from filelock import FileLock

        with FileLock(file):
            yield
        return
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing does not where a process was forked meanwhile
        os.close(descriptor)
