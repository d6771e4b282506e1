"""The contract of what chooses recipes in a run: trials come first, and cells of the table follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bench.run.result import Result
from bench.run.store import Run
from bench.spec import Cell


class Tuned(NamedTuple):
    """A cell as it was planned, and with the recipe that was chosen for it."""

    planned: Cell
    cell: Cell


class Tuner(Protocol):
    """Chooser of the recipes of a run. All of its choices follow from results in the run directory.

    Attributes:
        every_trial: all of them, whatever was chosen before.
        trials: those of the recipes that are not chosen yet, strategy by strategy.
        cells: of the table, whose recipes are chosen.
        waiting: cells of the table as planned, whose recipes are not chosen yet.
        told: sentences on space and budget, for whoever looks at the plan.
    """

    @property
    def every_trial(self) -> tuple[Cell, ...]: ...

    @property
    def trials(self) -> tuple[Cell, ...]: ...

    @property
    def cells(self) -> tuple[Cell, ...]: ...

    @property
    def waiting(self) -> tuple[Cell, ...]: ...

    @property
    def told(self) -> tuple[str, ...]: ...

    def resume(self, run: Run) -> None:
        """Take over what a run has chosen before, and what follows from its trials. Nothing is written."""
        ...

    def open(self, run: Run) -> None:
        """Write what is tuned into a run that is open. Raises OSError."""
        ...

    def ended(self, run: Run, trial: Result) -> Sequence[Tuned]:
        """Take the result of a trial; the cells whose recipe follows from it are added to the run. Raises OSError."""
        ...

    def obstacles(self) -> list[str]:
        """Return sentences on the recipes that could not be chosen; empty once all are."""
        ...
