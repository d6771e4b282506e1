"""The cells of a matrix, from what has no result to the last result, on whatever engine executes them."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence

from filelock import BaseFileLock

from bench.data.cache import FrameCache
from bench.measure.machine import cores, device_name
from bench.measure.placement import Placement
from bench.processes import PutOff, StopRequested, interrupts_ignored, interrupts_put_off
from bench.run.engines.base import CellEngine, Engine, Event, Job, WorkerFailed, joined
from bench.run.engines.jobs import JobFile, asked_to_stop
from bench.run.engines.local import threads_of
from bench.run.engines.measuring import ModelMeasurements
from bench.run.engines.waiting import Waiting
from bench.run.events import Listener
from bench.run.outcome import Outcome
from bench.run.provenance import Stopwatch, provenance
from bench.run.result import Result, Status
from bench.run.sharing import pass_key
from bench.run.store import Run, ThrottledCsvWriter
from bench.run.tuner import Tuner
from bench.spec import Cell
from bench.text import counted

# seconds between looks at a cell that another process runs
_PATIENCE = 1.0
_STOPPED = "stopped from outside before it ended"
# seconds that trainings are given for a last step and a checkpoint
_GRACE = 120.0


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
        share_pass: cells that can train from one forward pass do, where the engine trains several in a job.
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
        share_pass: bool = True,
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
        self._measured = ModelMeasurements(run, engine, self._device, cache, listener, self._look_for_a_stop)
        self._engine_name, self._job_id = engine_name, job_id
        self._jobs: dict[Cell, JobFile] = {}  # of what is in training
        self._since = run.changed()
        self._table = ThrottledCsvWriter(run)
        self._tuner: Tuner | None = None
        self._follow: deque[Cell] = deque()  # whose recipes were chosen since the last look
        self._shares = share_pass and getattr(engine, "trains_together", False)
        self._waiting = Waiting(self._pass_key, lambda cell: self._measured.of(cell).trained_params)
        self._alone: set[Cell] = set()  # which share no pass: with others, or before, something went wrong
        self._apart: dict[str, int] = {}  # of those of them that ended together, by what ended them
        self._job_of: dict[Cell, int] = {}  # number of the job that trains it
        self._submitted = 0
        self._signals = PutOff()

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
            found = self.run.result(cell)
            if found is not None and found.final:
                self._skip(found)
                continue
            todo.append(cell)
            if found is not None and found.status == "oom":
                self._alone.add(cell)
        todo += self._follow
        self._follow.clear()
        self.listener.begun([*todo, *(tuner.waiting if tuner else ())], self.outcome.skipped, self.engine.slots)
        if todo:
            with interrupts_put_off() as self._signals:
                self._execute(todo)
        self.outcome.cells = tuner.cells if tuner else tuple(cells)
        self.outcome.notes += [
            f"{counted(count, 'cell')} that shared a pass went on alone: {why}" for why, count in self._apart.items()
        ]
        left = self.outcome.interrupted or (isinstance(self.engine, CellEngine) and self.engine.detached)
        self.outcome.untuned += tuner.obstacles() if tuner and not left else []
        return self.outcome

    def _execute(self, cells: list[Cell]) -> None:
        """Run cells up to the last, or to an interrupt, which is recorded."""
        try:
            try:
                self._execute_all(cells)
            finally:
                self._signals.look()  # for one that may have ended what we depend on, too
        except KeyboardInterrupt as stop:
            self.outcome.interrupted = True
            self.outcome.requeue = isinstance(stop, StopRequested)
            with contextlib.suppress(KeyboardInterrupt, WorkerFailed):  # a second one ends all at once
                self._preempt()
            with interrupts_ignored():
                self._record_interrupted()
        finally:
            for lock in self._locks.values():
                lock.release()
            with interrupts_ignored():
                self.outcome.unwritten = self._table.finish()

    def _execute_all(self, cells: list[Cell]) -> None:
        if isinstance(self.engine, CellEngine):
            with self.outcome.timed("jobs"):
                self._hand_over(cells, self.engine)
            return
        with self.outcome.timed("measuring"):
            cells = self._measure(cells)
        with self.outcome.timed("training and evaluating"):
            self._train(cells)

    def _hand_over(self, cells: list[Cell], engine: CellEngine) -> None:
        """Let a scheduler's jobs do it all, and follow them until the last has ended."""
        self._start_jobs(cells, engine)
        self._look_for_a_stop()
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
            self._look_for_a_stop()

    def _start_jobs(self, cells: Sequence[Cell], engine: CellEngine) -> None:
        for cell in cells:
            engine.submit(Job("cell", cell, self.run.cell_folder(cell), 0, self._cache))
        engine.start()
        self._running |= {cell: Stopwatch() for cell in cells}

    # --- measuring ---

    def _measure(self, cells: list[Cell]) -> list[Cell]:
        """Measure each model once; the cells whose model could be measured, as they are best begun."""
        # a cell whose recipe is not chosen yet has the model of one of its trials, which may have ended before
        waiting = self._tuner.waiting if self._tuner else ()
        planned = Waiting(self._pass_key)
        planned.add([*cells, *waiting])
        models = dict.fromkeys([*cells, *waiting, *(self._tuner.trials if self._tuner else ())])
        companions = planned.companions(self.engine.slots)
        seconds = self._measured.make(models, companions)
        found = [cell for cell in cells if self._measurable(cell)]
        if self.engine.slots > 1:
            # the longest first: else workers may idle at the end, while one does a long cell that it has just begun
            found.sort(key=lambda cell: (cell.trial is None, -seconds.get(cell, 0.0) * companions[cell]))
        return found

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

    # --- training ---

    def _train(self, cells: list[Cell]) -> None:
        waiting, elsewhere = self._waiting, list[Cell]()
        waiting.add(cells)
        told = False
        while waiting or elsewhere or self._running or self._follow:
            waiting.add_first([cell for cell in self._follow if self._measurable(cell)])
            self._follow.clear()
            while (free := self._free) > 0 and (taken := self._next(free, elsewhere)):
                self._submit(taken)
            if not self._running and not waiting and elsewhere:
                if not told:
                    self.listener.waiting(f"{counted(len(elsewhere), 'cell')} that another process runs")
                    told = True
                self._table.keep_up()
                self._look_for_a_stop()
                time.sleep(_PATIENCE)
                waiting.add(elsewhere)
                elsewhere.clear()
                continue
            for event in self.engine.events(timeout=0.5):
                self._handle(event)
            self._table.keep_up()
            self._look_for_a_stop()

    @property
    def _free(self) -> int:
        return self.engine.slots - len(set(self._job_of.values()))

    def _pass_key(self, cell: Cell) -> str | None:
        return None if not self._shares or cell in self._alone else pass_key(cell)

    def _look_for_a_stop(self) -> None:
        """Raise KeyboardInterrupt where a signal asked for it, or `bench cancel` since the run was opened."""
        self._signals.look()
        if asked_to_stop(self.run.folder, self._since):
            raise KeyboardInterrupt

    def _next(self, free: int, elsewhere: list[Cell]) -> list[Cell]:
        """The next cells that are ours to run, all in one job; cells that others hold move to `elsewhere`."""
        ours: list[Cell] = []
        while self._waiting and not ours:
            for cell in self._waiting.take(free):
                if not self._claim(cell):
                    elsewhere.append(cell)
                elif (found := self.run.ended(cell)) is None:
                    ours.append(cell)
                else:
                    self._locks.pop(cell).release()  # done by another process since we looked
                    self._skip(found)
        return ours

    def _measurable(self, cell: Cell) -> bool:
        """Test whether a cell's model has measurements; one that has none fails."""
        if (event := self._measured.failure(cell)) is not None:
            self._fail(cell, event)
        return event is None

    def _skip(self, found: Result) -> None:
        """Take note of a cell that was done before, or by another process."""
        self.outcome.skipped += found.cell.trial is None
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

    def _submit(self, cells: Sequence[Cell]) -> None:
        """Give cells to the engine as one job."""
        self._submitted += 1
        jobs = []
        for cell in cells:
            self._running[cell] = Stopwatch()
            self._job_of[cell] = self._submitted
            self._jobs[cell] = JobFile(self.run.cell_folder(cell), self._engine_name, self._job_id)
            self._jobs[cell].write({"stage": "starting"})
            # beside a GPU the threads feed it, and change no number
            threads = threads_of(cell) if cell.device == "cpu" else max(1, cores() // self.engine.slots)
            folder, measured = self.run.cell_folder(cell), self._measured.of(cell)
            jobs.append(Job("train", cell, folder, threads, self._cache, measured))
        self.engine.submit(joined(jobs))
        for cell in cells:
            self.listener.progress(cell, {"stage": "starting", "done": 0.0})

    @property
    def _stopping(self) -> bool:
        """True from an interrupt on, which may have ended workers before this process came to look for it."""
        return self.outcome.interrupted or self._signals.came

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
            elif not self._stopping:
                self._fail(cell, event)
            return
        if event.kind == "preempted" or (self._stopping and event.kind == "failed"):
            error = event.values["error"] if event.kind == "preempted" else _STOPPED
            self._finish(cell, self._ended(cell, "interrupted", error))
        elif event.kind == "failed" and event.values.get("apart"):
            self._try_alone(cell, event.values["error"])
        else:
            self._finish(cell, event.values["value"] if event.kind == "trained" else self._failure(cell, event))

    def _finish(self, cell: Cell, result: Result) -> None:
        try:
            self.run.put(result)
        except OSError as error:  # a full disk: the others go on, and the exit code tells
            result = self._ended(cell, "failed", f"the result cannot be written: {error.strerror or error}")
        self._let_go(cell)
        self._told(result)

    def _let_go(self, cell: Cell) -> None:
        self._locks.pop(cell).release()
        self._running.pop(cell, None)
        self._job_of.pop(cell, None)
        if (job := self._jobs.pop(cell, None)) is not None:
            job.clear()

    def _try_alone(self, cell: Cell, why: str) -> None:
        """Have a cell go on by itself, as it may have been ended by those that it trained with."""
        self._apart[why] = self._apart.get(why, 0) + 1
        self._let_go(cell)
        self._alone.add(cell)
        self._waiting.add_first([cell])
        self.listener.progress(cell, {"stage": "queued", "done": 0.0})

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
            self._signals.look()

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
