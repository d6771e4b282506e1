"""Threads that tell trackers what trainings write into their logs.

They read files and touch nothing of a training: a tracker that fails or hangs costs its own record alone. A log is what
every engine writes or brings back, so one way serves all of them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.files import write_text
from bench.run.events import Listener
from bench.run.result import Result
from bench.run.store import LOG, Run
from bench.run.tracking.log_reader import LogReader
from bench.run.tracking.trackers import CellTracker, final_numbers
from bench.spec import Cell
from bench.text import counted, one_line

# in a cell's folder: the trackers' runs of it
TRACKING = "tracking.json"
_EVERY = 1.0  # seconds between two looks at a log
# seconds that trackers are waited for when the last cell has ended; where a cluster or the user ends it, the shorter
_PATIENCE, _PATIENCE_STOPPED = 60.0, 10.0


class TrackedSteps:
    """The runs that trackers have of a cell and the last step that each was told, kept in the cell's folder.

    Args:
        folder: of the cell.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / TRACKING
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged: runs begin anew
            found = json.loads(self._file.read_text(encoding="utf-8"))
            self._known = {name: {"run": str(of["run"]), "step": int(of["step"])} for name, of in found.items()}

    def of(self, tracker: str) -> tuple[str, int]:
        """Return the identity of a tracker's run and the step; an empty text and -1 where there is none."""
        known = self._known.get(tracker, {"run": "", "step": -1})
        return known["run"], known["step"]

    def put(self, tracker: str, run: str, step: int) -> None:
        """Keep them. A disk that is full costs a later attempt its place, and nothing else."""
        with self._lock, contextlib.suppress(OSError):
            self._known[tracker] = {"run": run, "step": step}
            write_text(self._file, json.dumps(self._known, indent=1) + "\n")


class Follower(threading.Thread):
    """Tells one tracker of one cell, until the cell has ended and all of its log is told.

    Args:
        tracker: its name.
        folder: of the run.
        cell: that trains.
        steps: of the cell.

    Attributes:
        problem: why it gave up; empty where it did not.
    """

    def __init__(self, tracker: str, folder: Path, cell: Cell, log: Path, steps: TrackedSteps) -> None:
        super().__init__(name=f"bench-track-{tracker}-{cell.key}", daemon=True)
        self.tracker, self.problem = tracker, ""
        self._folder, self._cell, self._log, self._steps = folder, cell, LogReader(log), steps
        self._ended = threading.Event()
        self._result: Result | None = None

    def end(self, result: Result) -> None:
        """The cell has ended: the rest of its log is told, and its numbers where it is done."""
        self._result = result
        self._ended.set()

    def run(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # a library may end the thread as if it were the program
            self.problem = one_line(f"{type(error).__name__}: {error}")[:300]

    def _follow(self) -> None:
        run, before = self._steps.of(self.tracker)
        tracker = CellTracker(self.tracker, self._folder, self._cell, run)
        if tracker.tells_anew:
            before = -1
        step = max(before, 0)
        self._steps.put(self.tracker, tracker.identity, before)
        try:
            while True:
                ended = self._ended.wait(_EVERY)
                cut, lines = self._log.read()
                if cut and tracker.tells_anew:
                    tracker.finish()
                    tracker, before = CellTracker(self.tracker, self._folder, self._cell, run), -1
                elif cut:
                    before = step
                for step, values in lines:
                    if step > before:
                        tracker.log(values, step)
                if lines:
                    step = max(step, before)
                    self._steps.put(self.tracker, tracker.identity, step)
                if ended:
                    if self._result is not None and self._result.status == "done":
                        tracker.log(final_numbers(self._result), step)
                    return
        finally:
            tracker.finish()


class TrackedListener:
    """Listener that has trackers follow the cells of a run, and passes everything on to another one.

    A cell is followed from its first step on, by the process that claimed it: of several that work on one run, and of a
    cluster's jobs, one.

    Args:
        listener: the other one.
        run: whose cells they are.
        trackers: by name; none leaves it to pass on.
    """

    def __init__(self, listener: Listener, run: Run, trackers: Sequence[str]) -> None:
        self._listener, self._run, self._trackers = listener, run, tuple(trackers)
        self._following: dict[Cell, list[Follower]] = {}
        self._ending: list[Follower] = []
        self._problems: dict[str, list[str]] = {}

    def _follow(self, cell: Cell) -> list[Follower]:
        """The threads that follow a cell, started where they are not."""
        if cell not in self._following:
            folder = self._run.cell_folder(cell)
            steps = TrackedSteps(folder)
            found = [Follower(name, self._run.folder, cell, folder / LOG, steps) for name in self._trackers]
            self._following[cell] = []
            for follower in found:
                try:
                    follower.start()
                except RuntimeError as error:  # the system allows no more threads
                    self._problems.setdefault(follower.tracker, []).append(str(error))
                else:
                    self._following[cell].append(follower)
        return self._following[cell]

    def close(self, stopped: bool = False) -> list[str]:
        """Wait for what is still to be told, as long as is reasonable.

        Args:
            stopped: the run was interrupted, and little time is left.

        Returns:
            A sentence on each tracker that did not follow all cells.
        """
        until = time.monotonic() + (_PATIENCE_STOPPED if stopped else _PATIENCE)
        if any(follower.is_alive() for follower in self._ending):
            self._listener.waiting("what trackers are still to be told")
        with contextlib.suppress(KeyboardInterrupt):  # who interrupts this has waited long enough
            for follower in self._ending:
                follower.join(max(0.0, until - time.monotonic()))
        self._sort_out()
        for follower in self._ending:
            self._problems.setdefault(follower.tracker, []).append("it did not take in everything in time")
        return [
            f"tracker {name}: {counted(len(problems), 'cell')} not followed to the end; {problems[0]}"
            for name, problems in self._problems.items()
        ]

    def _sort_out(self) -> None:
        """Drop the followers that came to their end, and note the problems."""
        for follower in self._ending:
            if not follower.is_alive() and follower.problem:
                self._problems.setdefault(follower.tracker, []).append(follower.problem)
        self._ending = [follower for follower in self._ending if follower.is_alive()]

    # --- of a listener ---

    def chosen(self, planned: Cell, cell: Cell) -> None:
        self._listener.chosen(planned, cell)

    def preparing(self, what: str, done: int, total: int) -> None:
        self._listener.preparing(what, done, total)

    def noted(self, note: str) -> None:
        self._listener.noted(note)

    def begun(self, cells: Sequence[Cell], skipped: int, workers: int) -> None:
        self._listener.begun(cells, skipped, workers)

    def measuring(self, cell: Cell, index: int, total: int) -> None:
        self._listener.measuring(cell, index, total)

    def expected(self, cell: Cell, seconds: float) -> None:
        self._listener.expected(cell, seconds)

    def progress(self, cell: Cell, event: dict[str, Any]) -> None:
        self._listener.progress(cell, event)
        if event.get("stage") == "training":  # a log of before is cut off where this attempt begins
            self._follow(cell)

    def ended(self, result: Result) -> None:
        self._listener.ended(result)
        if result.status == "done":  # of a training so short that no progress came
            self._follow(result.cell)
        self._sort_out()
        for follower in self._following.pop(result.cell, []):
            follower.end(result)
            self._ending.append(follower)

    def waiting(self, what: str) -> None:
        self._listener.waiting(what)
