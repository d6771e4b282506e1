"""The machine to oneself: measurements of several commands come one after the other."""

from __future__ import annotations

import contextlib
import getpass
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def exclusive_machine_lock(on_wait: Callable[[], None]) -> Iterator[None]:
    """One measurement at a time on this machine, also between commands of the same user.

    Args:
        on_wait: called where another command is measuring.
    """
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()  # a container's user may have no name
    lock = FileLock(Path(tempfile.gettempdir()) / f"aim-bench-{user}-measures.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
