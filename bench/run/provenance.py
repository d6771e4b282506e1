"""Provenance of a number: the code, its commit and whether it was changed since, the machine, the weights."""

from __future__ import annotations

import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.measure.machine import processor, versions
from bench.run.result import Provenance
from bench.spec import Cell
from bench.version import commit


class Stopwatch:
    """Begin of something, and the time for which it has been going on."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begun


def provenance(
    cell: Cell,
    since: Stopwatch,
    *,
    command: str,
    device: str,
    threads: int,
    batch_size: int | None = None,
    **known: Any,
) -> Provenance:
    """Return the provenance of a cell's result.

    Args:
        since: runs from the cell's begin.
        device: as tables name it.
        known: what else was found out before the cell ended; see `Provenance`.
    """
    head, dirty = commit()
    return Provenance(
        versions=versions(),
        commit=head,
        dirty=dirty,
        command=command,
        machine=processor(),
        device=device,
        precision=cell.precision,
        threads=threads,
        batch_size=batch_size,
        pretrained=cell.weights,
        started=since.started,
        wall_seconds=since.seconds,
        **known,
    )


def command() -> str:
    """The command line that runs, with the program's name alone in place of its path."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
