"""Processes that decode, each try within a limit of seconds. One that hangs or dies is replaced, and nothing else ends.

Each process has a socket of its own. Clips come through it straight into the batch's memory: as fast as through shared
memory, but with nothing to run out of (containers have 64 MB of it) and nothing to be left behind by a killed process.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import socket
import struct
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.data.clips import Clips, Draw, Sample
from bench.data.decode.base import VideoError
from bench.processes import context, end_with_parent, interrupts_ignored

_JOBS = 2  # a process at most: the next one lies there when one is done
_LENGTH = struct.Struct("!I")


@dataclass(eq=False)
class Job:
    """A try that a process is to read.

    Attributes:
        clips: the data set.
        draw: the try.
        slot: where a clip of a given shape goes.
    """

    clips: Clips[Any]
    draw: Draw
    slot: Callable[[torch.Size], Tensor]


@dataclass(eq=False)
class _Worker:
    """A process with its jobs. `since`: when it was last heard of or given one. `busy`: whether it reads the first."""

    process: BaseProcess
    socket: socket.socket
    since: float
    ready: bool = False
    busy: bool = False
    jobs: deque[Job] = field(default_factory=deque)


class DecodePool:
    """Decoding processes. Everything but `wake` is for one thread at a time.

    Args:
        readers: the data sets whose tries they read.
        count: processes.
        limit: seconds that reading a try may take.
        broken: path -> reason of the videos that hung or killed a process, here or before; added to.
    """

    def __init__(
        self, readers: Sequence[Clips[Any]], count: int, limit: float, broken: MutableMapping[Path, str] | None = None
    ) -> None:
        if count < 1:
            raise ValueError(f"{count} decoding processes: expected 1 or more")
        self.count = count
        self.limit = limit
        self.broken: MutableMapping[Path, str] = {} if broken is None else broken
        self._readers = list(readers)
        self._queue: deque[Job] = deque()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_sender.setblocking(False)
        self._give_way: Callable[[], None] = lambda: None
        self._context = context(preload=__name__)
        self._workers = [self._start() for _ in range(count)]

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        bare = [_without_videos(reader) for reader in self._readers]
        process = self._context.Process(target=_main, args=(theirs, bare), name="bench-decoder", daemon=True)
        with interrupts_ignored():
            process.start()
        theirs.close()
        return _Worker(process, ours, time.monotonic())

    @property
    def pids(self) -> list[int]:
        """Of the processes as they are now."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def taken_by(self, give_way: Callable[[], None]) -> None:
        """Let whoever used the processes before give way to a new user, to whom the old one's jobs may come back."""
        if not self._workers:
            raise RuntimeError("the decoding processes are closed")
        before, self._give_way = self._give_way, give_way
        before()
        self._queue.clear()

    def submit(self, job: Job) -> None:
        """Let a job be read after those submitted before."""
        self._queue.append(job)

    def wake(self) -> None:
        """End the waiting of `outcomes`, from any thread."""
        with contextlib.suppress(OSError):  # rung so often that it rings anyway
            self._wake_sender.send(b"!")

    def outcomes(self) -> Iterator[tuple[Job, Sample | str]]:
        """Wait, and give what has come of jobs: the sample, or why the video is broken; nothing where it was woken.

        Raises:
            RuntimeError: a process died before it was ready; and whatever else than a broken video met the reading.
        """
        self._hand_out()
        by_socket = {worker.socket: worker for worker in self._workers}
        patience, begun = self._patience(), time.monotonic()
        answers = wait([self._wake_receiver, *by_socket], patience)
        if patience is not None and (late := time.monotonic() - begun - patience) > 1:
            for worker in self._workers:  # this process was stopped for a while, and they with it
                worker.since += late
        for ready in answers:
            if ready is self._wake_receiver:
                self._wake_receiver.recv(4096)
            else:
                yield from self._hear(by_socket[ready])  # type: ignore[index]
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.ready and worker.jobs]:
            if now - worker.since > self.limit:
                worker.process.kill()
                worker.busy = True  # with it, or with getting it
                if job := self._replace(worker):
                    yield job, self._mark_broken(job, f"the decoder took more than {self.limit:g} s")

    def _hand_out(self) -> None:
        """Every process gets one job before any gets a second."""
        for held in range(_JOBS):
            for worker in self._workers:
                if self._queue and len(worker.jobs) == held:
                    job = self._queue[0]
                    try:
                        _send(worker.socket, (self._readers.index(job.clips), job.draw))
                    except OSError:  # it died of something else, as shows when it is listened to
                        continue
                    if not worker.jobs:
                        worker.since = time.monotonic()
                    worker.jobs.append(self._queue.popleft())

    def _patience(self) -> float | None:
        """Seconds until the next process is over its limit."""
        since = [worker.since for worker in self._workers if worker.ready and worker.jobs]
        return max(0.0, min(since) + self.limit - time.monotonic()) + 0.01 if since else None

    def _hear(self, worker: _Worker) -> Iterator[tuple[Job, Sample | str]]:
        try:
            message = _receive(worker.socket)
            if isinstance(message, _Clip):
                slot = worker.jobs[0].slot(message.shape)
                _fill(worker.socket, slot.numpy().data.cast("B"))
                message = replace(message.sample, clip=slot)
        except (EOFError, OSError):
            if job := self._replace(worker):
                yield job, self._mark_broken(job, f"the decoder {_how(worker.process.exitcode)}")
            return
        worker.since = time.monotonic()
        if isinstance(message, _Ready):
            worker.ready = True
            return
        worker.busy = isinstance(message, _Begun)
        if worker.busy:
            return
        job = worker.jobs.popleft()
        self._hand_out()
        if isinstance(message, Exception):
            raise message
        yield job, message

    def _replace(self, worker: _Worker) -> Job | None:
        """Put another process in the place of one that died; the job that it died of."""
        worker.socket.close()
        worker.process.join(5)  # one that the system itself cannot end, as on a dead network disk, is left behind
        if not worker.ready:  # no video's fault: another process would not come up either
            raise RuntimeError(f"a decoding process {_how(worker.process.exitcode)} before it was ready")
        self._workers[self._workers.index(worker)] = self._start()
        job = worker.jobs.popleft() if worker.busy else None  # else it died of no video
        self._queue.extendleft(reversed(worker.jobs))
        return job

    def _mark_broken(self, job: Job, reason: str) -> str:
        self.broken[job.draw.video.path] = reason
        return reason

    def close(self) -> None:
        """End every process, whatever it is doing."""
        self._give_way()
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


def _without_videos(reader: Clips[Any]) -> Clips[Any]:
    """A data set without its list, which tries have no need of: a long one would be sent to every process."""
    bare = copy(reader)
    bare.videos = ()
    return bare


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended (exit code {code})"
    name = signal.Signals(-code).name
    if code == -signal.SIGKILL:
        return f"was killed ({name}; the system does this where memory runs out)"
    return f"crashed ({name})"


@dataclass(frozen=True)
class _Ready:
    """A process's first message."""


@dataclass(frozen=True)
class _Begun:
    """A process has begun with a try. A clip follows, a text (why the video is broken) or an error."""


@dataclass(frozen=True)
class _Clip:
    """A sample without its clip, whose bytes follow."""

    sample: Sample
    shape: torch.Size


def _send(connection: socket.socket, message: object) -> None:
    body = pickle.dumps(message)
    connection.sendall(_LENGTH.pack(len(body)) + body)


def _receive(connection: socket.socket) -> Any:
    """A message. Raises EOFError at the end of the connection."""
    length = bytearray(_LENGTH.size)
    _fill(connection, memoryview(length))
    body = bytearray(*_LENGTH.unpack(length))
    _fill(connection, memoryview(body))
    return pickle.loads(body)


def _fill(connection: socket.socket, rest: memoryview) -> None:
    while rest:
        count = connection.recv_into(rest, len(rest), socket.MSG_WAITALL)
        if not count:
            raise EOFError
        rest = rest[count:]


# ---- in a decoding process


def _main(connection: socket.socket, readers: Sequence[Clips[Any]]) -> None:
    """Read one try after the other until the connection closes or the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(1)  # the processes are what runs side by side
    with contextlib.suppress(EOFError, OSError):
        _send(connection, _Ready())
        while True:
            reader, draw = _receive(connection)
            _send(connection, _Begun())
            _answer(connection, readers[reader], draw)


def _answer(connection: socket.socket, reader: Clips[Any], draw: Draw) -> None:
    try:
        sample = reader.read(draw)
    except VideoError as error:
        _send(connection, error.reason)
    except Exception as error:
        _send(connection, _portable(error))
    else:
        assert sample.clip is not None
        _send(connection, _Clip(replace(sample, clip=None), sample.clip.shape))
        connection.sendall(sample.clip.contiguous().numpy().data.cast("B"))


def _portable(error: Exception) -> Exception:
    """The error with its traceback in it, as another error where it cannot be sent."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a decoding process:\n{text}")
    return error
