"""Runs the cells of a matrix in worker processes of this machine."""

from __future__ import annotations

import contextlib
import getpass
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from filelock import BaseFileLock, FileLock

from bench.device import Placement
from bench.measure.machine import cores, device_name
from bench.result import Measured, Result
from bench.runner.events import Listener
from bench.runner.messages import Job, Setup
from bench.runner.pool import Pool, Worker
from bench.spec import Cell, Request
from bench.store import Run

# decoded frames kept from cell to cell, all workers together: at most this share of the machine's free memory
_CACHE_SHARE = 0.25
# seconds between looks at a cell that another process runs
_PATIENCE = 1.0


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        results: of the cells that ran now.
        skipped: cells that were done before, or by another process meanwhile.
        seconds: wall time by phase.
        interrupted: whether the user (or the system) stopped it.
    """

    results: list[Result] = field(default_factory=list)
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False


def worker_devices(request: Request, placement: Placement, cells: int) -> list[str]:
    """One device name a worker: every GPU once, or a CPU worker for each core; never more than there are cells."""
    if placement.type == "cuda":
        import torch

        gpus = [placement.index] if placement.index is not None else list(range(torch.cuda.device_count()))
        count = len(gpus) if request.workers == "auto" else request.workers
        devices = [f"cuda:{gpus[index % len(gpus)]}" for index in range(count)]
    else:
        count = (cores() if placement.type == "cpu" else 1) if request.workers == "auto" else request.workers
        devices = [placement.type] * count
    return devices[: max(1, cells)]


def start_workers(request: Request, placement: Placement, cells: int, command: str) -> Pool:
    """Start the workers of a run; they import their libraries while the parent goes on."""
    devices = worker_devices(request, placement, cells)
    cache = int(psutil.virtual_memory().available * _CACHE_SHARE / len(devices))
    return Pool(
        [Setup(device, tuple(request.plugins), request.loader_workers, command, cache, Path()) for device in devices]
    )


class LocalRunner:
    """Measures the models one after the other with the machine to itself, then trains the cells side by side.

    Args:
        run: where the results go.
        pool: its workers.
        placement: the device.
        listener: is told what happens.
    """

    def __init__(self, run: Run, pool: Pool, placement: Placement, listener: Listener) -> None:
        self.run = run
        self.pool = pool
        self.listener = listener
        self.outcome = Outcome()
        self._device = placement.type
        # on a CPU the cores are shared out; beside a GPU the threads only feed it
        self._threads = max(1, cores() // len(pool.workers))
        self._locks: dict[Cell, BaseFileLock] = {}
        self._measured: dict[str, Measured] = {}

    def execute(self, cells: Sequence[Cell]) -> Outcome:
        """Run every cell that is not done. An interrupt is recorded in the cells that it hit, then returned."""
        todo = []
        for cell in cells:
            found = self.run.result(cell)
            if found is not None and found.status == "done":
                self.outcome.skipped += 1
            else:
                todo.append(cell)
        self.listener.begun(todo, self.outcome.skipped, len(self.pool.workers))
        if todo:
            try:
                self._until_ready()
                with self._phase("measuring"):
                    todo = self._measure(todo)
                with self._phase("training and evaluating"):
                    self._train(todo)
            except KeyboardInterrupt:
                self.outcome.interrupted = True
                self._record_interrupted()
            finally:
                for lock in self._locks.values():
                    lock.release()
        return self.outcome

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.outcome.seconds[name] = time.perf_counter() - begun

    def _until_ready(self) -> None:
        """Wait for every worker: a measurement must not share the machine with their imports."""
        while not all(worker.ready for worker in self.pool.workers):
            for _ in self.pool.events(timeout=1.0):
                pass

    # --- measuring ---

    def _measure(self, cells: list[Cell]) -> list[Cell]:
        """Measure each model once; the cells whose model could be measured."""
        name = device_name(self._device)
        models: dict[str, Cell] = {}
        for cell in cells:
            models.setdefault(cell.model_key(), cell)
        failures: dict[str, dict[str, Any]] = {}
        for index, (key, cell) in enumerate(models.items(), start=1):
            if (known := self.run.measured(cell, name)) is None:
                self.listener.measuring(cell, index, len(models))
                with _machine_to_itself():
                    known = self.run.measured(cell, name)  # another run may have measured it while we waited
                    if known is None:
                        event = self._measure_one(cell)
                        if event["kind"] != "measured":
                            failures[key] = event
                            continue
                        known = event["value"]
                        self.run.write_measured(cell, known)
            self._measured[key] = known
        for cell in cells:
            if cell.model_key() in failures and self._claim(cell):
                self._finish(cell, _failure(cell, failures[cell.model_key()]))
        return [cell for cell in cells if cell.model_key() in self._measured]

    def _measure_one(self, cell: Cell) -> dict[str, Any]:
        worker = self.pool.workers[0]
        # all the cores: nothing else runs
        self.pool.submit(worker, Job("measure", cell, self.run.cell_folder(cell), threads=cores()))
        while True:
            for source, event in self.pool.events(timeout=1.0):
                if source is worker and event["kind"] in ("measured", "failed", "died"):
                    worker.job = None
                    if event["kind"] == "died":
                        self._until_ready()
                    return event

    # --- training ---

    def _train(self, cells: list[Cell]) -> None:
        todo = deque(cells)
        elsewhere: list[Cell] = []
        told = False
        while todo or elsewhere or any(worker.job for worker in self.pool.workers):
            for worker in self.pool.workers:
                if worker.job is None and worker.ready and (cell := self._next(todo, elsewhere)) is not None:
                    self._give(worker, cell)
            idle = not any(worker.job for worker in self.pool.workers)
            if idle and not todo and elsewhere:
                if not told:
                    self.listener.waiting(elsewhere)
                    told = True
                time.sleep(_PATIENCE)
                todo, elsewhere = deque(elsewhere), []
                continue
            for worker, event in self.pool.events(timeout=0.5):
                self._handle(worker, event)

    def _next(self, todo: deque[Cell], elsewhere: list[Cell]) -> Cell | None:
        """The next cell that is ours to run; cells that others hold move to `elsewhere`."""
        while todo:
            cell = todo.popleft()
            if not self._claim(cell):
                elsewhere.append(cell)
                continue
            found = self.run.result(cell)
            if found is None or found.status != "done":
                return cell
            self._locks.pop(cell).release()  # done by another process since we looked
            self.outcome.skipped += 1
        return None

    def _claim(self, cell: Cell) -> bool:
        lock = self.run.claim(cell)
        if lock is not None:
            self._locks[cell] = lock
        return lock is not None

    def _give(self, worker: Worker, cell: Cell) -> None:
        measured = self._measured[cell.model_key()]
        self.pool.submit(worker, Job("train", cell, self.run.cell_folder(cell), self._threads, measured))
        self.listener.progress(cell, {"stage": "starting", "done": 0.0})

    def _handle(self, worker: Worker, event: dict[str, Any]) -> None:
        if event["kind"] == "ready" or worker.job is None:
            return
        cell = worker.job.cell
        if event["kind"] == "progress":
            self.listener.progress(cell, event)
            return
        worker.job = None
        self._finish(cell, event["value"] if event["kind"] == "trained" else _failure(cell, event))

    def _finish(self, cell: Cell, result: Result) -> None:
        try:
            self.run.write(result)
        except OSError as error:  # a full disk: the others go on, and the exit code tells
            result = Result(
                cell=cell, status="failed", error=f"the result cannot be written: {error.strerror or error}"
            )
        self._locks.pop(cell).release()
        self.outcome.results.append(result)
        self.listener.ended(result)

    def _record_interrupted(self) -> None:
        for worker in self.pool.workers:
            if worker.job is not None and worker.job.kind == "train" and worker.job.cell in self._locks:
                self._finish(
                    worker.job.cell,
                    Result(cell=worker.job.cell, status="interrupted", error="stopped from outside before it ended"),
                )


def _failure(cell: Cell, event: dict[str, Any]) -> Result:
    return Result(cell=cell, status=event["status"], error=event["error"], traceback=event["traceback"])


@contextlib.contextmanager
def _machine_to_itself() -> Iterator[None]:
    """One measurement at a time on this machine, also between runs of the same user."""
    with FileLock(Path(tempfile.gettempdir()) / f"aim-bench-{getpass.getuser()}-measures.lock"):
        yield
