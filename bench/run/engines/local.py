"""The engine of this machine: worker processes, one job each. A worker that dies is replaced; its job has failed."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import tempfile
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bench.data.decode_pool import Reading, reading
from bench.measure.machine import cores
from bench.measure.placement import Placement, bf16_notes
from bench.processes import context, interrupts_put_off, processes_starting
from bench.run.engines.base import ENGINES, NOT_BEGUN, Event, Job, WorkerFailed, joined
from bench.run.engines.decoding import SharedDecoding, shared_processes
from bench.run.result import Status
from bench.spec import Cell, EvaluationRequest, Request
from bench.text import counted

_PATIENCE = 5.0  # seconds that a worker is given to end


def threads_of(cell: Cell) -> int:
    """Threads that train a cell. They change the order of sums, so they follow from the cell and the machine alone.

    The tiny models gain nothing from a second thread; other models on a CPU get all the cores.
    """
    return 1 if cell.device != "cpu" or cell.backbone.endswith(":tiny") else cores()


def slots(request: Request | EvaluationRequest, placement: Placement, cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """The devices of each worker, one for each process of its cells: every GPU once; on a CPU as many workers as the
    cores have room for; no more than cells.
    """
    size = request.processes_per_cell
    workers = 1 if isinstance(request, EvaluationRequest) else request.workers
    if placement.type == "cuda":
        gpus = _gpus(placement)
        count = max(1, len(gpus) // size) if workers == "auto" else workers
        names = [f"cuda:{gpus[index % len(gpus)]}" for index in range(count * size)]
        found = [tuple(names[start : start + size]) for start in range(0, len(names), size)]
    else:
        # processes of a cell divide its threads among them
        room = cores() // max(size, *map(threads_of, cells)) if placement.type == "cpu" else 1
        found = [(placement.type,) * size] * (max(1, room) if workers == "auto" else workers)
    return found[: len(cells)]


def _gpus(placement: Placement) -> list[int]:
    import torch

    return [placement.index] if placement.index is not None else list(range(torch.cuda.device_count()))


def too_few_devices(processes: int, placement: Placement) -> list[str]:
    """The sentence on a cell's processes where they are more than the devices; nothing where they are not."""
    kinds = {"cuda": "GPU", "cpu": "core"}
    there = len(_gpus(placement)) if placement.type == "cuda" else cores() if placement.type == "cpu" else 1
    if processes == 1 or processes <= there:
        return []
    devices = counted(there, kinds.get(placement.type, "device"))
    where = "is chosen" if placement.index is not None else "is there" if there == 1 else "are there"
    return [f"processes_per_cell is {processes}: {devices} {where}, expected at most {there}"]


@dataclass(frozen=True)
class Setup:
    """Setup that a worker is started with.

    Attributes:
        device: "cpu", "cuda:1", "mps".
        ranks: the devices of the processes that execute a cell together; empty where the worker itself does.
        plugins: modules or files that register names.
        reading: how videos are read.
        command: the command line.
        output: file that takes what the process prints.
        notes: what a reader of all its numbers must know of the device.
        checkpoint_minutes: between two checkpoints of a training.
    """

    device: str
    plugins: tuple[str, ...]
    reading: Reading
    command: str
    output: Path
    notes: tuple[str, ...] = ()
    checkpoint_minutes: float = 10.0
    ranks: tuple[str, ...] = ()


@ENGINES.register("local")
def local(request: Request, placement: Placement, cells: Sequence[Cell], command: str) -> LocalEngine:
    """Start the workers of a run; they import their libraries while this process goes on."""
    return started(request, placement, cells, command)


def started(
    request: Request | EvaluationRequest, placement: Placement, cells: Sequence[Cell], command: str
) -> LocalEngine:
    """Start the workers of a run or of an evaluation."""
    devices = slots(request, placement, cells)
    readers = len(devices) * request.processes_per_cell
    how = reading(request.loader_workers, cores() // readers, request.decode_timeout, request.strict)
    notes = bf16_notes(placement)
    plugins = tuple(request.plugins)
    minutes = 0.0 if isinstance(request, EvaluationRequest) else request.checkpoint_minutes
    return LocalEngine(
        [Setup(own[0], plugins, how, command, Path(), notes, minutes, own if len(own) > 1 else ()) for own in devices],
        shared_processes(how, readers, {cell.dataset for cell in cells}) if len(devices) > 1 else 0,
    )


def settle(output: Path) -> None:
    """Keep this process off the terminal, and leave interrupts to its parent.

    Args:
        output: takes what it prints.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    faulthandler.enable()  # a crash in native code leaves its stack in `output`
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger().setLevel(logging.ERROR)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on CUDA


def ending(code: int) -> tuple[Status, str]:
    """The status of a cell whose process has ended with a code, and the words for it."""
    if code >= 0:
        return "failed", f"ended with exit code {code}"
    how = f"was killed by {signal.Signals(-code).name}"
    if code != -signal.SIGKILL:
        return "failed", how
    return "oom", f"{how} (the system does this where memory runs out; so may a person or a scheduler)"


@dataclass
class _Worker:
    """A process with at most one job.

    Attributes:
        left: parts of the job that have not ended, by their number.
    """

    index: int
    process: BaseProcess
    connection: Connection
    setup: Setup
    ready: bool = False
    job: Job | None = None
    left: dict[int, Job] = field(default_factory=dict)

    def give(self, job: Job) -> None:
        self.job, self.left = job, dict(enumerate(job.parts))
        with contextlib.suppress(OSError):  # it died: `events` tells
            self.connection.send(job)

    def told(self, job: Job, kind: Any, values: dict[str, Any]) -> Iterator[Event]:
        """The events that a message on its job means."""
        if kind == "part":  # one of several cells
            kind, number = values["kind"], values["number"]
            part = self.left[number] if kind == "progress" else self.left.pop(number)
            yield Event(part, kind, values["values"])
        elif kind == "progress":
            yield Event(job, kind, values)
        else:  # the end of all that are left
            left, self.job, self.left = self.left, None, {}
            if kind == "failed" and job.beside:
                values = {**values, "apart": True}
            for part in left.values():
                yield Event(part, kind, values)


def _main(connection: Connection, setup: Setup) -> None:
    from bench.run.engines.worker import main

    main(connection, setup)


class LocalEngine:
    """Engine with a worker process for each setup; see `Engine`.

    Args:
        setups: one a worker; `output` is filled in here.
        decoders: decoding processes that the workers share; 0 where each cell has its own.

    Attributes:
        ending: True once its jobs were told to stop: it takes no more.
        folder: of its files, removed with it, or by a worker that outlives it.
        trains_together: True unless several processes execute a cell.
    """

    def __init__(self, setups: list[Setup], decoders: int = 0) -> None:
        self.trains_together = not any(setup.ranks for setup in setups)
        self._context = context(preload="bench.run.engines.worker")
        self._folder = tempfile.TemporaryDirectory(prefix="aim-bench-")
        self.folder = Path(self._folder.name)
        self._made = 0
        self.ending = False
        self._waiting: deque[Job] = deque()
        self._unbegun: list[Event] = []
        self._decoding: SharedDecoding | None = None
        self._workers: list[_Worker] = []
        with contextlib.ExitStack() as undone:
            undone.callback(self.close)
            with interrupts_put_off():
                if decoders:
                    self._decoding = SharedDecoding(self._context, self.folder, decoders, setups[0].reading.limit)
                    setups = [replace(setup, reading=self._decoding.used_by(setup.reading)) for setup in setups]
                for index, setup in enumerate(setups):
                    self._workers.append(self._start(index, setup))
            undone.pop_all()

    def _start(self, index: int, setup: Setup) -> _Worker:
        self._made += 1
        setup = replace(setup, output=self.folder / f"worker-{self._made}.txt")
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_main, args=(theirs, setup), name=f"bench-worker-{index}", daemon=False)
        with processes_starting(self._context):
            process.start()
        theirs.close()
        return _Worker(index, process, ours, setup)

    @property
    def slots(self) -> int:
        return len(self._workers)

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        self._dispatch()

    def _dispatch(self) -> None:
        """Give the jobs that wait to workers that are ready and have none."""
        while self._waiting and (worker := self._free(self._waiting[0])) is not None:
            worker.give(self._waiting.popleft())

    def _free(self, job: Job) -> _Worker | None:
        """The worker that can take a job now."""
        workers = self._workers
        if any(worker.job is not None and worker.job.kind == "measure" for worker in workers):
            return None
        # a measurement must not share the machine with what another one computes, or with its imports
        if job.kind == "measure" and not all(worker.ready and worker.job is None for worker in workers):
            return None
        return next((worker for worker in workers if worker.ready and worker.job is None), None)

    def events(self, timeout: float) -> Iterator[Event]:
        told, self._unbegun = self._unbegun, []
        yield from told
        self._dispatch()
        for worker, kind, values in self._messages(timeout):
            if kind == "ready":
                worker.ready = True
            elif worker.job is not None:
                yield from worker.told(worker.job, kind, values)
        self._dispatch()

    def _messages(self, timeout: float) -> Iterator[tuple[_Worker, Any, dict[str, Any]]]:
        """Yield the workers' messages within `timeout` seconds, of each in order: kind and values.

        A worker that died has been replaced when it is told that its job failed; one that died before it was ready is
        not, since another one would not come up either.
        """
        by_source: dict[Any, _Worker] = {
            source: worker for worker in self._workers for source in (worker.connection, worker.process.sentinel)
        }
        for source in wait(list(by_source), timeout):
            worker = by_source[source]
            if worker not in self._workers:
                continue  # its death was noticed by its other source
            try:
                while worker.connection.poll():
                    yield worker, *worker.connection.recv()
            except (EOFError, OSError):
                pass
            if worker in self._workers and not worker.process.is_alive():
                yield worker, "failed", self._bury(worker)

    def _bury(self, worker: _Worker) -> dict[str, Any]:
        worker.process.join()
        status, how = ending(worker.process.exitcode or 0)
        with contextlib.suppress(OSError):
            worker.connection.close()
        try:
            printed = worker.setup.output.read_text(errors="replace")[-4000:]
        except OSError:
            printed = ""
        if self.ending:  # what leaves now left because it was asked to
            self._workers.remove(worker)
        elif worker.ready:
            self._workers[self._workers.index(worker)] = self._start(worker.index, worker.setup)
        else:
            self._workers.remove(worker)
            if not self._workers:
                raise WorkerFailed(f"a worker process {how} before it was ready", printed)
        return {
            "status": status,
            "error": f"the worker process {how}",
            "traceback": printed,
        }

    def cancel(self, cell: Cell) -> None:
        waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            if others := [part for part in job.parts if part.cell != cell]:
                self._waiting.append(joined(others))
        for index, worker in enumerate(self._workers):
            if any(part.cell == cell for part in worker.left.values()):
                self._workers[index] = self._start(worker.index, worker.setup)
                self._end([worker])
                if others := [part for part in worker.left.values() if part.cell != cell]:
                    self._waiting.appendleft(joined(others))  # they go on from their checkpoints

    def preempt(self) -> None:
        self.ending = True
        told = {"error": NOT_BEGUN}
        self._unbegun += [Event(part, "preempted", told) for job in self._waiting for part in job.parts]
        self._waiting.clear()
        for worker in self._workers:
            if worker.job is not None and worker.process.is_alive():
                worker.process.terminate()

    def close(self) -> None:
        self._waiting.clear()
        self._end(self._workers)
        if self._decoding is not None:
            self._decoding.close()
        self._folder.cleanup()

    def _end(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.connection.close()
            if worker.job is not None and worker.process.is_alive():
                worker.process.terminate()
        for worker in workers:
            worker.process.join(_PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
