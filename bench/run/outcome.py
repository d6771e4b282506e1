"""Outcome of a run, of whatever engine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.run.result import Result
from bench.spec import Cell


@dataclass
class Outcome:
    """Outcome of a run.

    Attributes:
        failures: results of the cells that ran now and are not done. Of those that are, nothing is kept here: a run
            may have thousands.
        skipped: cells that were done before, or by another process meanwhile.
        seconds: wall time by phase.
        interrupted: whether the user stopped it, or a cluster.
        requeue: whether a cluster did, which may give the machine back: the same command then goes on.
        notes: sentences on how it went.
        unwritten: why results.csv is not up to date; empty where it is.
        cells: of the table, with the recipes that were chosen for them.
        untuned: sentences on the recipes that could not be chosen.
    """

    failures: list[Result] = field(default_factory=list)
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False
    requeue: bool = False
    notes: list[str] = field(default_factory=list)
    unwritten: str = ""
    cells: tuple[Cell, ...] = ()
    untuned: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Note the wall time of a phase."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = time.perf_counter() - begun
