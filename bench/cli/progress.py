"""Progress of one long piece of work on the standard error: a bar in a terminal, a line a minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from bench.cli.time_left import TimeLeft, about
from bench.text import one_line

_FIRST = 10.0  # seconds after which a log gets its first line: what is shorter needs none
_QUIET = 60.0  # seconds between two lines


class Progress(Protocol):
    """Shows how far a stage of the work is."""

    def __call__(self, stage: str, done: int = 0, total: int | None = None, more: str = "") -> None:
        """Show it.

        Args:
            stage: what is done; time left is of one stage.
            done: pieces of it.
            total: pieces in all; None where that is not known.
            more: what else is told, such as the speed.
        """
        ...


class StageTime:
    """Time left of a stage of which `done` of `total` alike pieces are done; another stage begins anew."""

    def __init__(self) -> None:
        self._stage: str | None = None

    def __call__(self, stage: str, done: int, total: int | None) -> str:
        """In words, see `about`."""
        if stage != self._stage:
            self._stage, self._first, self._left = stage, done, TimeLeft({"": 1.0})
            self._left.begin()
        if total is None or total <= self._first:
            return ""
        self._left.at("", (done - self._first) / (total - self._first))
        return about(self._left.seconds())


class Lines:
    """Progress as lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._left = StageTime()
        self._due = time.monotonic() + _FIRST

    def __call__(self, stage: str, done: int = 0, total: int | None = None, more: str = "") -> None:
        left = self._left(stage, done, total)
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _QUIET
        parts = [stage if total is None else f"{stage}: {done:,} of {total:,}", more, left]
        self._stream.write(f"{time.strftime('%H:%M:%S')} {one_line(', '.join(filter(None, parts)))}\n")
        self._stream.flush()


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress for where the standard error goes; in a terminal it leaves nothing behind."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(sys.stderr)
        return

    from rich import progress as bars

    left = StageTime()
    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[more]}", markup=False),
        bars.TextColumn("{task.fields[left]}"),
    )
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False, more="", left="")

        def show(stage: str, done: int = 0, total: int | None = None, more: str = "") -> None:
            bar.update(
                task,
                description=one_line(stage),
                completed=done,
                total=total,
                more=one_line(more),
                left=left(stage, done, total),
                visible=True,
            )

        yield show
