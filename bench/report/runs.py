"""Results of one run, or of several together as the rows of one table."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bench.errors import UserError
from bench.run.find import find
from bench.run.result import Result
from bench.run.store import RESULTS, Run
from bench.spec import Cell
from bench.text import counted


class Runs:
    """Results of runs.

    Args:
        runs: in the order of the rows. A cell that several of them have counts once: done where it is done in one of
            them, and of the first of these.

    Attributes:
        results: those that there are, by run and in each in its matrix's order.
        missing: cells that no run has a result of.
        notes: sentences that a reader of their table must know.

    Raises:
        UserError: a run is damaged, or none has a result.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.folders = [run.folder for run in runs]
        chosen: dict[str, tuple[Result, Run]] = {}
        lost: set[str] = set()
        again = 0
        problems: list[str] = []
        for run in runs:
            try:
                results, missing = run.read()
            except UserError as error:
                problems += error.problems
                continue
            lost.update(missing)
            for result in results:
                name = result.cell.folder  # holds the key
                again += name in chosen
                if name not in chosen or (result.status == "done" and chosen[name][0].status != "done"):
                    chosen[name] = (result, run)
        if problems:
            raise UserError(problems)
        self.results = [result for result, _ in chosen.values()]
        if not self.results:
            told = ", ".join(repr(str(folder)) for folder in self.folders)
            one = len(self.folders) == 1
            raise UserError(
                [f"the run{'s' * (not one)} {told} ha{'s' if one else 've'} no results yet: expected at least one cell "
                 f"that ended"]
            )  # fmt: skip
        self.missing = len(lost - chosen.keys())
        self.notes = [f"{counted(again, 'cell')} of several runs: counted once, of the first that has it done"] * bool(
            again
        )
        self._runs = {name: run for name, (_, run) in chosen.items()}

    def only(self, results: Sequence[Result]) -> Self:
        """Return these runs with some of their results alone."""
        chosen = copy.copy(self)
        chosen.results = list(results)
        return chosen

    def cell_folder(self, cell: Cell) -> Path:
        """Return the folder of a cell that has a result."""
        name = cell.folder
        return self._runs[name].folder / "cells" / name

    def run_of(self, cell: Cell) -> Run:
        """Return the run whose result of a cell counts."""
        return self._runs[cell.folder]


def find_runs(names: Sequence[str], root: Path = RESULTS) -> Runs:
    """Return the runs of these folders or names; the latest one without any. Raises UserError on all mistakes."""
    runs: list[Run] = []
    problems: list[str] = []
    wanted: list[str | None] = [*dict.fromkeys(names)]
    for name in wanted or [None]:
        try:
            runs.append(find(name, root))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return Runs(runs)
