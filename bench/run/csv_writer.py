"""results.csv of a run, kept up with the cells that end for a small share of the time."""

from __future__ import annotations

import contextlib
import math
import time

from bench.errors import UserError
from bench.files import reason
from bench.run.store import Run

_SHARE = 0.05  # of the wall time, which rewriting may take at most


class ThrottledCsvWriter:
    """Rewrites results.csv when cells have ended, but for the time that this takes.

    A rewrite looks at every cell of the run: one for each cell that ends would take, over a run, a time that grows with
    the square of their number. So one is put off until the last one's time is a small share of what went by since, and
    the last one of all is done at the end.

    Args:
        run: whose table is written.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._behind = False
        self._ended = -math.inf
        self._took = 0.0

    def changed(self) -> None:
        """A cell has ended."""
        self._behind = True
        self.keep_up()

    def keep_up(self) -> None:
        """Rewrite what is behind, unless it is too early; call it from time to time. A failure shows in `finish`."""
        if self._behind and time.monotonic() - self._ended >= self._took * (1 / _SHARE - 1):
            with contextlib.suppress(OSError, UserError):
                self._write()

    def finish(self) -> str:
        """Rewrite it at the end, in any case: other processes, killed ones too, may have left it behind.

        Returns:
            Why that failed, in words; empty where it did not.
        """
        try:
            self._write(anew=True)
        except OSError as error:
            return f"{self._run.csv} cannot be written: {reason(error)}"
        except UserError as error:  # the folder was removed or damaged
            return "; ".join(error.problems)
        return ""

    def _write(self, anew: bool = False) -> None:
        begun = time.monotonic()
        try:
            self._run.write_csv(anew)
            self._behind = False
        finally:
            self._ended = time.monotonic()
            self._took = self._ended - begun
