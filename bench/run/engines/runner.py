"""The cells of a matrix, from what has no result to the last result, on whatever engine executes them."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from filelock import BaseFileLock

from bench.data.cache import FrameCache
from bench.measure.machine import cores, device_name, exclusive_machine_lock
from bench.measure.placement import Placement
from bench.measure.result import Measured
from bench.processes import StopRequested, interrupts_ignored
from bench.run.engines.base import CellEngine, Engine, Event, Job
from bench.run.engines.jobs import JobFile, asked_to_stop
from bench.run.engines.local import threads_of
from bench.run.events import ExpectedTime, Listener
from bench.run.provenance import Stopwatch, provenance
from bench.run.result import Result, Status
from bench.run.store import Run, ThrottledCsvWriter
from bench.run.tuner import Tuner
from bench.spec import Cell
from bench.text import counted

# seconds between looks at a cell that another process runs
_PATIENCE = 1.0
_STOPPED = "stopped from outside before it ended"
# seconds that trainings are given for a last step and a checkpoint
_GRACE = 120.0


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


class Runner:
    """Course of a run: models are measured one after the other, then cells are executed side by side.

    It claims cells, so that no two processes run the same one, and writes what becomes of them.

    Args:
        run: where the results go.
        engine: executes the jobs.
        placement: the device.
        command: the command line, for the provenance.
        cache: of decoded frames.
        listener: is told what happens.
        engine_name: of the engine, for whoever looks into the run.
        job_id: a scheduler's name of the job that this process is in, likewise.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        placement: Placement,
        command: str,
        cache: FrameCache,
        listener: Listener,
        engine_name: str = "local",
        job_id: str | None = None,
    ) -> None:
        self.run = run
        self.engine = engine
        self.listener = listener
        self.outcome = Outcome()
        self._command = command
        self._cache = cache
        # a scheduler's machines cannot be asked from here
        elsewhere = isinstance(engine, CellEngine)
        self._device = f"{placement.type} (not known)" if elsewhere else device_name(placement.torch_name)
        self._running: dict[Cell, Stopwatch] = {}  # in training
        self._locks: dict[Cell, BaseFileLock] = {}
        self._measured: dict[str, Measured] = {}
        self._engine_name, self._job_id = engine_name, job_id
        self._jobs: dict[Cell, JobFile] = {}  # of what is in training
        self._since = run.changed()
        self._table = ThrottledCsvWriter(run)
        self._tuner: Tuner | None = None
        self._follow: deque[Cell] = deque()  # whose recipes were chosen since the last look
        self._unmeasurable: dict[str, Event] = {}  # by the model

    def execute(self, cells: Sequence[Cell], tuner: Tuner | None = None) -> Outcome:
        """Run every cell that is not done. An interrupt is recorded in the cells that it hit, then returned.

        Args:
            cells: of the table.
            tuner: its trials run first, and each of its cells as soon as its own recipe is chosen.

        Raises:
            WorkerFailed: no worker process came up, or none is left that does.
        """
        self._tuner = tuner
        todo = []
        for cell in (*(tuner.trials if tuner else ()), *cells):
            if (found := self.run.ended(cell)) is not None:
                self._skip(found)
            else:
                todo.append(cell)
        todo += self._follow
        self._follow.clear()
        self.listener.begun([*todo, *(tuner.waiting if tuner else ())], self.outcome.skipped, self.engine.slots)
        if todo:
            try:
                if isinstance(self.engine, CellEngine):
                    with self._phase("jobs"):
                        self._hand_over(todo, self.engine)
                else:
                    with self._phase("measuring"):
                        todo = self._measure(todo)
                    with self._phase("training and evaluating"):
                        self._train(todo)
            except KeyboardInterrupt as stop:
                self.outcome.interrupted = True
                self.outcome.requeue = isinstance(stop, StopRequested)
                with contextlib.suppress(KeyboardInterrupt):  # a second one ends all at once
                    self._preempt()
                with interrupts_ignored():
                    self._record_interrupted()
            finally:
                for lock in self._locks.values():
                    lock.release()
                with interrupts_ignored():
                    self.outcome.unwritten = self._table.finish()
        self.outcome.cells = tuner.cells if tuner else tuple(cells)
        left = self.outcome.interrupted or (isinstance(self.engine, CellEngine) and self.engine.detached)
        self.outcome.untuned += tuner.obstacles() if tuner and not left else []
        return self.outcome

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.outcome.seconds[name] = time.perf_counter() - begun

    def _hand_over(self, cells: list[Cell], engine: CellEngine) -> None:
        """Let a scheduler's jobs do it all, and follow them until the last has ended."""
        self._start_jobs(cells, engine)
        if engine.detached:
            self._running.clear()
            self.outcome.notes.append(f"{engine.state}; `bench status {self.run.folder}` shows how far they are")
            if self._tuner is not None and self._tuner.waiting:
                waiting = counted(len(self._tuner.waiting), "cell")
                self.outcome.notes.append(f"{waiting} wait for their trials: the same command submits them then")
            return
        told = ""
        while self._running:
            if engine.state != told:
                told = engine.state
                self.listener.waiting(told)
            for event in engine.events(timeout=0.5):
                self._handle(event)
            if self._follow:
                self._start_jobs(self._follow, engine)
                self._follow.clear()
            self._table.keep_up()
            self._look_for_a_cancel()

    def _start_jobs(self, cells: Iterable[Cell], engine: CellEngine) -> None:
        for cell in cells:
            self._running[cell] = Stopwatch()
            engine.submit(Job("cell", cell, self.run.cell_folder(cell), 0, self._cache))
        engine.start()

    # --- measuring ---

    def _measure(self, cells: list[Cell]) -> list[Cell]:
        """Measure each model once; the cells whose model could be measured, as they are best begun."""
        models: dict[str, list[Cell]] = {}
        # a cell whose recipe is not chosen yet has the model of one of its trials, which may have ended before
        waiting = self._tuner.waiting if self._tuner else ()
        for cell in dict.fromkeys([*cells, *waiting, *(self._tuner.trials if self._tuner else ())]):
            models.setdefault(cell.model_key(), []).append(cell)
        ahead = {*cells, *waiting}
        failures = self._unmeasurable
        expected = ExpectedTime()
        durations: dict[Cell, float] = {}
        for index, (key, alike) in enumerate(models.items(), start=1):
            cell = alike[0]
            if (known := self.run.measured(cell, self._device)) is None:
                self.listener.measuring(cell, index, len(models))
                with self._alone():
                    known = self.run.measured(cell, self._device)  # another run may have measured it while we waited
                    if known is None:
                        event = self._measure_one(cell)
                        if event.kind != "measured":
                            failures[key] = event
                            continue
                        known = event.values["value"]
                        with contextlib.suppress(OSError):  # a full disk: whether the result fits shows later
                            self.run.write_measured(cell, known)
            self._measured[key] = known
            for cell in alike:
                if cell in ahead and (seconds := expected(cell, known)) is not None:
                    durations[cell] = seconds
                    self.listener.expected(cell, seconds)
        for cell in cells:
            if cell.model_key() in failures:
                self._fail(cell, failures[cell.model_key()])
        found = [cell for cell in cells if cell.model_key() in self._measured]
        if self.engine.slots > 1:
            # the longest first: else workers may idle at the end, while one does a long cell that it has just begun
            found.sort(key=lambda cell: (cell.trial is None, -durations.get(cell, 0.0)))
        return found

    def _alone(self) -> AbstractContextManager[None]:
        """The lock of the machine that measures, where that is this one."""
        if not getattr(self.engine, "measures_here", True):
            return contextlib.nullcontext()
        return exclusive_machine_lock(lambda: self.listener.waiting("another run's measurements"))

    def _fail(self, cell: Cell, event: Event) -> None:
        """Record that a cell's model could not be measured, unless another process runs it or has run it."""
        if not self._claim(cell):
            self.outcome.failures.append(self._failure(cell, event))
            self.listener.ended(self.outcome.failures[-1])
        elif (found := self.run.ended(cell)) is not None:
            self._locks.pop(cell).release()
            self._skip(found)
        else:
            self._finish(cell, self._failure(cell, event))

    def _measure_one(self, cell: Cell) -> Event:
        # all the cores: nothing else runs
        self.engine.submit(Job("measure", cell, self.run.cell_folder(cell), cores(), self._cache))
        while True:
            for event in self.engine.events(timeout=1.0):
                if event.job.cell == cell and event.kind != "progress":
                    return event
            self._look_for_a_cancel()

    # --- training ---

    def _train(self, cells: list[Cell]) -> None:
        todo = deque(cells)
        elsewhere: list[Cell] = []
        told = False
        while todo or elsewhere or self._running or self._follow:
            todo.extendleft(reversed([cell for cell in self._follow if self._measurable(cell)]))
            self._follow.clear()
            while len(self._running) < self.engine.slots and (cell := self._next(todo, elsewhere)) is not None:
                self._submit(cell)
            if not self._running and not todo and elsewhere:
                if not told:
                    self.listener.waiting(f"{counted(len(elsewhere), 'cell')} that another process runs")
                    told = True
                self._table.keep_up()
                self._look_for_a_cancel()
                time.sleep(_PATIENCE)
                todo, elsewhere = deque(elsewhere), []
                continue
            for event in self.engine.events(timeout=0.5):
                self._handle(event)
            self._table.keep_up()
            self._look_for_a_cancel()

    def _look_for_a_cancel(self) -> None:
        """Raise KeyboardInterrupt where `bench cancel` was given since the run was opened."""
        if asked_to_stop(self.run.folder, self._since):
            raise KeyboardInterrupt

    def _next(self, todo: deque[Cell], elsewhere: list[Cell]) -> Cell | None:
        """The next cell that is ours to run; cells that others hold move to `elsewhere`."""
        while todo:
            cell = todo.popleft()
            if not self._claim(cell):
                elsewhere.append(cell)
                continue
            if (found := self.run.ended(cell)) is None:
                return cell
            self._locks.pop(cell).release()  # done by another process since we looked
            self._skip(found)
        return None

    def _measurable(self, cell: Cell) -> bool:
        """Test whether a cell's model has measurements; one that has none fails."""
        if (event := self._unmeasurable.get(cell.model_key())) is not None:
            self._fail(cell, event)
        return event is None

    def _skip(self, found: Result) -> None:
        """Take note of a cell that was done before, or by another process."""
        self.outcome.skipped += 1
        self._tune(found)

    def _tune(self, found: Result) -> None:
        """Let the cells run whose recipe follows from a trial that has ended."""
        if self._tuner is None or found.cell.trial is None:
            return
        try:
            released = self._tuner.ended(self.run, found)
        except OSError as error:  # a full disk: the cells wait for the next command
            self.outcome.untuned.append(f"{found.cell.label}: the choice cannot be written: {error.strerror or error}")
            return
        for planned, cell in released:
            self.listener.chosen(planned, cell)
            self._follow.append(cell)

    def _claim(self, cell: Cell) -> bool:
        lock = self.run.claim(cell)
        if lock is not None:
            self._locks[cell] = lock
        return lock is not None

    def _submit(self, cell: Cell) -> None:
        measured = self._measured[cell.model_key()]
        self._running[cell] = Stopwatch()
        self._jobs[cell] = JobFile(self.run.cell_folder(cell), self._engine_name, self._job_id)
        self._jobs[cell].write({"stage": "starting"})
        # beside a GPU the threads feed it, and change no number
        threads = threads_of(cell) if cell.device == "cpu" else max(1, cores() // self.engine.slots)
        self.engine.submit(Job("train", cell, self.run.cell_folder(cell), threads, self._cache, measured))
        self.listener.progress(cell, {"stage": "starting", "done": 0.0})

    def _handle(self, event: Event) -> None:
        cell = event.job.cell
        if cell not in self._running:
            return
        if event.kind == "progress":
            if (job := self._jobs.get(cell)) is not None:
                job.write(dict(event.values))
            self.listener.progress(cell, dict(event.values))
            return
        if event.job.kind == "cell":
            del self._running[cell]
            if event.kind == "written":
                self._told(event.values["value"])
            elif not self.outcome.interrupted:
                self._fail(cell, event)
            return
        if event.kind == "preempted" or (self.outcome.interrupted and event.kind == "failed"):
            error = event.values["error"] if event.kind == "preempted" else _STOPPED
            self._finish(cell, self._ended(cell, "interrupted", error))
        else:
            self._finish(cell, event.values["value"] if event.kind == "trained" else self._failure(cell, event))

    def _finish(self, cell: Cell, result: Result) -> None:
        try:
            self.run.put(result)
        except OSError as error:  # a full disk: the others go on, and the exit code tells
            result = self._ended(cell, "failed", f"the result cannot be written: {error.strerror or error}")
        self._locks.pop(cell).release()
        self._running.pop(cell, None)
        if (job := self._jobs.pop(cell, None)) is not None:
            job.clear()
        self._told(result)

    def _told(self, result: Result) -> None:
        """Take note of a result that is in its place."""
        self._table.changed()
        if not result.final:
            self.outcome.failures.append(result)
        self.listener.ended(result)
        self._tune(result)

    def _preempt(self) -> None:
        """Let every training write a checkpoint and end."""
        if not self._running:
            return
        self.listener.waiting("the checkpoints of what is training")
        self.engine.preempt()
        until = time.monotonic() + _GRACE
        while self._running and time.monotonic() < until:
            for event in self.engine.events(timeout=0.5):
                self._handle(event)

    def _record_interrupted(self) -> None:
        for cell in [cell for cell in self._running if cell in self._locks]:
            self._finish(cell, self._ended(cell, "interrupted", _STOPPED))

    def _failure(self, cell: Cell, event: Event) -> Result:
        return self._ended(cell, event.values["status"], event.values["error"], event.values["traceback"])

    def _ended(self, cell: Cell, status: Status, error: str, traceback: str | None = None) -> Result:
        """A cell that ended without numbers."""
        known = provenance(
            cell,
            self._running.get(cell, Stopwatch()),
            command=self._command,
            device=self._device,
            threads=threads_of(cell),
        )
        return Result(cell=cell, status=status, error=error, traceback=traceback, provenance=known)
