"""Calls in processes of their own, for what a strange video may make of a decoder: hang, or end the process."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

Item = TypeVar("Item")


def apart(
    call: Callable[[Item], Any], items: Iterable[Item], workers: int, limit: float
) -> Iterator[tuple[Item, Future[Any]]]:
    """Call with each item, so many at once; each item with its ended call, as they end. Leaving off ends the processes.

    Args:
        call: can be sent to a process, as its result can.
        limit: seconds that a call may take.
    """
    from pebble import ProcessPool

    pool = ProcessPool(workers, initializer=_start, context=multiprocessing.get_context("spawn"))
    todo = iter(items)
    nothing = object()
    running: dict[Future[Any], Item] = {}
    try:
        while True:
            # a few ahead of the workers, not all: there may be hundreds of thousands
            while len(running) < 4 * workers and (item := next(todo, nothing)) is not nothing:
                running[pool.schedule(call, args=(item,), timeout=limit)] = item  # type: ignore[assignment]
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future
    finally:
        pool.stop()
        pool.join()


def why_lost(error: BaseException, limit: float) -> str:
    """Return why a call ended that took too long or took its process with it; an empty text for other errors."""
    from pebble import ProcessExpired

    if isinstance(error, TimeoutError):
        return f"the decoder took more than {limit:g} s"
    if isinstance(error, ProcessExpired):
        return f"the decoder ended its process (exit code {error.exitcode})"
    return ""


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then ends this process
