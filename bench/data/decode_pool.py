"""Processes that decode, each try within a limit of seconds. One that hangs or dies is replaced, and nothing else ends.

Kept by hand: torch's DataLoader can neither time out nor replace one worker, and ends the epoch with it; the pools of
the standard library give up all their work with one process that dies.

Each process has a socket of its own. Clips come through it straight into the batch's memory: as fast as through shared
memory, but with nothing to run out of (containers have 64 MB of it) and nothing to be left behind by a killed process.

Imports no torch: `run_isolated` starts processes that may have no need of it, and so has who asks for `Reading` alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bench.data.decode_worker import ONE_THREAD, Begun, Clip, Reader, Ready, fill, main, portable, receive, send
from bench.errors import UserError
from bench.processes import context, processes_starting

if TYPE_CHECKING:
    import torch
    from torch import Tensor


HELD = 2  # tasks of a process at most: the next one lies there when one is done
MOST = 16  # decoding processes of a cell where nobody says how many


@dataclass(frozen=True)
class Reading:
    """Settings for reading videos.

    Attributes:
        workers: decoding processes of a cell; 0 decodes in the cell's own process, without a limit in seconds.
        small_workers: the same for data sets whose videos are small, see `VideoDataset.small`.
        limit: seconds that decoding a clip, or a test video's views, may take in such a process.
        strict: a video that cannot be read is an error.
        server: socket of the decoding processes that the machine's cells share; None where each cell has its own.
    """

    workers: int = 0
    small_workers: int = 0
    limit: float = 60.0
    strict: bool = False
    server: Path | None = None

    def processes(self, small: bool) -> int:
        """Decoding processes of a cell whose videos are small or not."""
        return self.small_workers if small else self.workers


def reading(workers: int | str, cores: int, limit: float, strict: bool) -> Reading:
    """Return a cell's settings for reading.

    Args:
        workers: decoding processes, or "auto".
        cores: there for the cell.
    """
    if isinstance(workers, int):
        return Reading(workers, workers, limit, strict)
    return Reading(min(MOST, max(1, cores)), 0, limit, strict)


@dataclass(eq=False)
class Task:
    """A try that a process is to read.

    Attributes:
        reader: reads it.
        value: what `Reader.read` gets.
        path: of the video, for the pool's account of those that are broken.
        slot: where a clip of a given shape goes.
    """

    reader: Reader
    value: Any
    path: Path | None = None
    slot: Callable[[torch.Size], Tensor] | None = None


@dataclass(eq=False)
class _Worker:
    """A process with its tasks. `since`: when it was last heard of or given one. `busy`: it reads the first."""

    process: BaseProcess
    socket: socket.socket
    since: float
    ready: bool = False
    busy: bool = False
    tasks: deque[Task] = field(default_factory=deque)


class DecodePool:
    """Decoding processes. Everything but `wake` is for one thread at a time.

    Args:
        readers: the data sets whose tries they read.
        count: processes.
        limit: seconds that reading a try may take.
        broken: path -> reason of the videos that hung or killed a process, here or before; added to.
        bare: start each process by itself, without torch and without the user's script; else they are forked from a
            server that has imported what clips need, which takes less time a process.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        count: int,
        limit: float,
        broken: MutableMapping[Path, str] | None = None,
        *,
        bare: bool = False,
    ) -> None:
        if count < 1:
            raise ValueError(f"{count} decoding processes: expected 1 or more")
        self.count = count
        self.limit = limit
        self.broken: MutableMapping[Path, str] = {} if broken is None else broken
        self._readers = list(readers)
        self._queue: deque[Task] = deque()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_sender.setblocking(False)
        self._detach: Callable[[], None] = lambda: None
        self._bare = bare
        self._context = multiprocessing.get_context("spawn") if bare else context(preload="bench.data.loader")
        self._workers = [self._start() for _ in range(count)]

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        readers = [without_videos(reader) for reader in self._readers]
        process: Any = self._context.Process(target=main, args=(theirs, readers), name="bench-decoder", daemon=True)
        with processes_starting(self._context), _script_left_out() if self._bare else contextlib.nullcontext():
            process.start()
        theirs.close()
        return _Worker(process, ours, time.monotonic())

    @property
    def pids(self) -> list[int]:
        """Of the processes as they are now."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def attach(self, detach: Callable[[], None]) -> None:
        """Serve a new user from now on; outcomes of the one before may still come.

        Args:
            detach: ends the new user's waiting when the next one comes, or the pool is closed.
        """
        if not self._workers:
            raise RuntimeError("the decoding processes are closed")
        before, self._detach = self._detach, detach
        before()
        self._queue.clear()

    def submit(self, task: Task) -> None:
        """Let a task be read after those submitted before."""
        self._queue.append(task)

    def wake(self) -> None:
        """End the waiting of `outcomes`, from any thread."""
        with contextlib.suppress(OSError):  # its buffer is full: `outcomes` will be woken
            self._wake_sender.send(b"!")

    def outcomes(self, seconds: float | None = None) -> Iterator[tuple[Task, Any]]:
        """Wait, and give what has come of tasks: the result, or why the video is broken; nothing where it was woken.

        Args:
            seconds: that are waited at most.

        Raises:
            RuntimeError: a process died before it was ready; and whatever else than a broken video met the reading.
        """
        self._hand_out()
        by_socket = {worker.socket: worker for worker in self._workers}
        limits = [limit for limit in (self._timeout(), seconds) if limit is not None]
        timeout, begun = min(limits, default=None), time.monotonic()
        answers = wait([self._wake_receiver, *by_socket], timeout)
        now = time.monotonic()  # what takes time from here on, such as starting a process anew, is no video's
        if timeout is not None and (late := now - begun - timeout) > 1:
            for worker in self._workers:  # this process was stopped for a while, and they with it
                worker.since += late
        for ready in answers:
            if ready is self._wake_receiver:
                self._wake_receiver.recv(4096)
            else:
                yield from self._receive_from(by_socket[ready])  # type: ignore[index]
        for worker in [worker for worker in self._workers if worker.ready and worker.tasks]:
            if now - worker.since > self.limit:
                worker.process.kill()
                worker.busy = True  # with it, or with getting it
                if task := self._replace(worker):
                    yield task, self._mark_broken(task, f"the decoder took more than {self.limit:g} s")

    def _hand_out(self) -> None:
        """Every process gets one task before any gets a second."""
        for held in range(HELD):
            for worker in self._workers:
                if self._queue and len(worker.tasks) == held:
                    task = self._queue[0]
                    try:
                        send(worker.socket, (self._readers.index(task.reader), task.value))
                    except OSError:  # it died of something else, as shows when it is listened to
                        continue
                    if not worker.tasks:
                        worker.since = time.monotonic()
                    worker.tasks.append(self._queue.popleft())

    def _timeout(self) -> float | None:
        """Seconds until the next process is over its limit."""
        since = [worker.since for worker in self._workers if worker.ready and worker.tasks]
        return max(0.0, min(since) + self.limit - time.monotonic()) + 0.01 if since else None

    def _receive_from(self, worker: _Worker) -> Iterator[tuple[Task, Any]]:
        try:
            message = receive(worker.socket)
            if isinstance(message, Clip):
                slot = worker.tasks[0].slot(message.shape)  # type: ignore[misc]
                fill(worker.socket, slot.numpy().data.cast("B"))
                message = replace(message.sample, clip=slot)
        except (EOFError, OSError):
            if task := self._replace(worker):
                yield task, self._mark_broken(task, f"the decoder {_exit_reason(worker.process.exitcode)}")
            return
        worker.since = time.monotonic()
        if isinstance(message, Ready):
            worker.ready = True
            return
        worker.busy = isinstance(message, Begun)
        if worker.busy:
            return
        task = worker.tasks.popleft()
        self._hand_out()
        if isinstance(message, Exception):
            raise message
        yield task, message

    def _replace(self, worker: _Worker) -> Task | None:
        """Put another process in the place of one that died; the task that it died of."""
        worker.socket.close()
        worker.process.join(5)  # one that the system itself cannot end, as on a dead network disk, is left behind
        if not worker.ready:  # no video's fault: another process would not come up either
            raise RuntimeError(f"a decoding process {_exit_reason(worker.process.exitcode)} before it was ready")
        self._workers[self._workers.index(worker)] = self._start()
        task = worker.tasks.popleft() if worker.busy else None  # else it died of no video
        self._queue.extendleft(reversed(worker.tasks))
        return task

    def _mark_broken(self, task: Task, reason: str) -> Broken:
        if task.path is not None:
            self.broken[task.path] = reason
        return Broken(reason)

    def close(self) -> None:
        """End every process, whatever it is doing."""
        self._detach()
        self._wake_receiver.close()
        self._wake_sender.close()
        for worker in self._workers:
            worker.socket.close()  # one that has nothing to do ends of itself
        until = time.monotonic() + 0.5
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
        for worker in self._workers:
            worker.process.join(5)
        self._workers.clear()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def without_videos(reader: Any) -> Any:
    """A data set without its list, which tries have no need of: a long one would be sent to every process."""
    reader = copy(reader)
    if hasattr(reader, "videos"):
        reader.videos = ()
    return reader


@contextlib.contextmanager
def _script_left_out() -> Iterator[None]:
    """Start processes that do not run the user's own script again, which may lack a `__main__` guard, and whose
    libraries compute with one thread.
    """
    script, before = sys.modules["__main__"], dict(os.environ)
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        for name in ONE_THREAD:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in ONE_THREAD if name in before})


def _exit_reason(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended (exit code {code})"
    name = signal.Signals(-code).name
    if code == -signal.SIGKILL:
        return f"was killed ({name}; the system does this where memory runs out)"
    return f"crashed ({name})"


class Broken(str):
    """A video's fault that its process did not live to tell."""


# ---- calls of a function


Item = TypeVar("Item")
Result = TypeVar("Result")


class Lost(Exception):
    """A call that took too long, or ended its process."""


@dataclass(frozen=True)
class _Outcome(Generic[Result]):
    """A call's result, or its error."""

    result: Result | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class _Function(Generic[Item, Result]):
    """A function as a reader of its arguments."""

    call: Callable[[Item], Result]

    def read(self, item: Item) -> _Outcome[Result]:
        try:
            return _Outcome(self.call(item))
        except Exception as error:
            return _Outcome(error=portable(error))


def run_isolated(
    call: Callable[[Item], Result], items: Iterable[Item], workers: int, limit: float
) -> Iterator[tuple[Item, Result | Exception]]:
    """Call with each item in processes of their own, for what a strange video may make of a decoder: hang, or crash.

    Args:
        call: can be sent to a process, as its result can.
        items: taken as they are needed.
        workers: processes.
        limit: seconds that a call may take.

    Returns each item with its result or its error (`Lost` where there was no end to wait for), as they end. Leaving off
    ends the processes. Raises UserError where a process does not come up, as where memory runs out.
    """
    reader = _Function(call)
    todo, running = iter(items), 0
    with DecodePool([reader], workers, limit, bare=True) as pool:
        while True:
            for item in islice(todo, HELD * workers + 1 - running):
                pool.submit(Task(reader, item))
                running += 1
            if not running:
                return
            try:
                outcomes = list(pool.outcomes())
            except RuntimeError as error:
                raise UserError([str(error)]) from error
            for task, outcome in outcomes:
                running -= 1
                if isinstance(outcome, Broken):
                    yield task.value, Lost(outcome)
                else:
                    yield task.value, outcome.error or outcome.result
