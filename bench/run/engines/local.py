"""Worker processes and the jobs they hold. A worker that dies is replaced; its job comes back as failed."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bench.processes import context, interrupts_ignored
from bench.run.engines.base import Job, Setup


@dataclass
class Worker:
    """A process with at most one job."""

    index: int
    process: BaseProcess
    connection: Connection
    setup: Setup
    ready: bool = False
    job: Job | None = None


def _main(connection: Connection, setup: Setup) -> None:
    from bench.run.engines.worker import main

    main(connection, setup)


class Pool:
    """As many workers as there are setups; use as a context manager.

    Args:
        setups: one a worker; `output` is filled in here.
    """

    def __init__(self, setups: list[Setup]) -> None:
        self._context = context(preload="bench.run.engines.worker")
        self._folder = tempfile.TemporaryDirectory(prefix="aim-bench-")
        self._made = 0
        self.workers = [self._start(index, setup) for index, setup in enumerate(setups)]

    def _start(self, index: int, setup: Setup) -> Worker:
        self._made += 1
        setup = replace(setup, output=Path(self._folder.name) / f"worker-{self._made}.txt")
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_main, args=(theirs, setup), name=f"bench-worker-{index}", daemon=False)
        with interrupts_ignored():
            process.start()
        theirs.close()
        return Worker(index, process, ours, setup)

    def submit(self, worker: Worker, job: Job) -> None:
        """Give a job to a worker that has none."""
        if worker.job is not None:
            raise RuntimeError(f"worker {worker.index} already has a job")
        worker.job = job
        with contextlib.suppress(OSError):  # it died: `events` tells
            worker.connection.send(job)

    def events(self, timeout: float) -> Iterator[tuple[Worker, dict[str, Any]]]:
        """Yield the workers' messages within `timeout` seconds, in order; the death of one is {"kind": "died", ...}.

        A dead worker has been replaced when its event is given; its job is still at the worker given. One that dies
        before it is ready is {"kind": "lost", ...} and not replaced. Raises WorkerFailed where none is left.
        """
        by_source: dict[Any, Worker] = {
            source: worker for worker in self.workers for source in (worker.connection, worker.process.sentinel)
        }
        for source in wait(list(by_source), timeout):
            worker = by_source[source]
            if worker not in self.workers:
                continue  # its death was noticed by its other source
            try:
                while worker.connection.poll():
                    event = worker.connection.recv()
                    if event["kind"] == "ready":
                        worker.ready = True
                    yield worker, event
            except (EOFError, OSError):
                pass
            if not worker.process.is_alive() and not worker.connection.closed:
                yield worker, self._bury(worker)

    def _bury(self, worker: Worker) -> dict[str, Any]:
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += " (the system does this where memory runs out; so may a person or a scheduler)"
        with contextlib.suppress(OSError):
            worker.connection.close()
        try:
            printed = worker.setup.output.read_text(errors="replace")[-4000:]
        except OSError:
            printed = ""
        if not worker.ready:
            # it never came up: another one would not either
            self.workers.remove(worker)
            if not self.workers:
                raise WorkerFailed(f"a worker process {how} before it was ready", printed)
            return {"kind": "lost", "error": f"a worker process {how} before it was ready"}
        self.workers[self.workers.index(worker)] = self._start(worker.index, worker.setup)
        return {
            "kind": "died",
            "status": "oom" if code == -signal.SIGKILL else "failed",
            "error": f"the worker process {how}",
            "traceback": printed,
        }

    def close(self) -> None:
        """End every worker, whatever it is doing."""
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.connection.close()
            if worker.job is not None and worker.process.is_alive():
                worker.process.terminate()
        for worker in self.workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._folder.cleanup()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WorkerFailed(RuntimeError):
    """No worker process is left, as none came up; `printed` is what the last one said."""

    def __init__(self, message: str, printed: str) -> None:
        super().__init__(message)
        self.printed = printed
