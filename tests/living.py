"""Processes that live, as tests see them who wait for the end of others' processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import psutil


def lives(pid: int) -> bool:
    """Test that a process is there and has not ended; it may end while it is looked at."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def gone(pids: Iterable[int], seconds: float = 60.0) -> bool:
    """Wait until none of some processes lives. Returns whether that came within so many seconds."""
    return comes(lambda: not any(map(lives, pids)), seconds)


def comes(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until something is true. Returns whether that came within so many seconds."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
