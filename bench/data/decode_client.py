"""A cell's end of the decoding processes that it shares with others: in its loaders' eyes a pool of its own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bench.data.decode_pool import MOST, Broken, DecodePool, Reading, Task
from bench.data.decode_relay import Failure, packed
from bench.data.decode_server import Answer, Ask, Forget, Hello
from bench.data.decode_worker import Clip, Reader, fill, receive, send

_ANSWER = 30.0  # seconds that the server is given to answer a new connection


def decoders(
    readers: Sequence[Reader], small: bool, how: Reading, broken: MutableMapping[Path, str]
) -> Decoders | None:
    """Processes that decode a cell's clips: the machine's where there are such, else its own; None for none.

    Args:
        readers: its data sets.
        small: whether their videos are, see `VideoDataset.small`.
        how: settings.
        broken: see `DecodePool`.
    """
    count = how.processes(small)
    if not count:
        return None
    if how.server is not None:
        with contextlib.suppress(OSError, EOFError):  # it has ended, and was not started anew
            return SharedPool(readers, how.server, count, how.limit, broken)
    return DecodePool(readers, count, how.limit, broken)


class SharedPool:
    """Connection to a `DecodeServer`, in place of a `DecodePool`. Where the server ends, a pool of its own goes on.

    Args:
        readers: the data sets whose tries are asked for.
        server: path of its socket.
        own: processes of its own, where it comes to that.
        limit, broken: see `DecodePool`.

    Raises:
        OSError, EOFError: the server does not answer.
    """

    def __init__(
        self, readers: Sequence[Reader], server: Path, own: int, limit: float, broken: MutableMapping[Path, str]
    ) -> None:
        self.broken = broken
        self.limit = limit
        self._own = own
        self._readers = list(readers)
        self._detach: Callable[[], None] = lambda: None
        self._pool: DecodePool | None = None
        self._closed = False
        self._tasks: dict[int, Task] = {}  # that no answer has come to
        self._asked = 0
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(_ANSWER)
            self._socket.connect(str(server))
            hello: Hello = receive(self._socket)
            self._socket.settimeout(None)
            self.count = min(hello.count, max(MOST, own))  # as many as a cell could have: so much is read ahead
            self._packed = [packed(reader) for reader in self._readers]
            for each in self._packed:
                send(self._socket, each)
        except BaseException:
            self._socket.close()
            raise
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_sender.setblocking(False)

    def attach(self, detach: Callable[[], None]) -> None:
        """As of `DecodePool`, but no outcome of the user before comes."""
        if self._closed:
            raise RuntimeError("the decoding processes are closed")
        if self._pool is None:
            self._detach()  # meanwhile the server's end may be met
            self._detach = detach
        if self._pool is not None:
            self._pool.attach(detach)
            return
        self._tasks.clear()
        self._say(Forget())

    def submit(self, task: Task) -> None:
        """Ask for a try."""
        if self._pool is not None:
            self._pool.submit(task)
            return
        self._asked += 1
        self._tasks[self._asked] = task
        self._say(Ask(self._asked, self._packed[self._readers.index(task.reader)].digest, task.value))

    def _say(self, message: Forget | Ask) -> None:
        with contextlib.suppress(OSError):  # the server has ended, as shows when it is listened to
            send(self._socket, message)

    def wake(self) -> None:
        """End the waiting of `outcomes`, from any thread."""
        with contextlib.suppress(OSError):
            self._wake_sender.send(b"!")
        if (pool := self._pool) is not None:
            pool.wake()

    def outcomes(self) -> Iterator[tuple[Task, Any]]:
        """As of `DecodePool`.

        Raises:
            Whatever else than a broken video met the reading.
        """
        if self._pool is not None:
            yield from self._pool.outcomes()
            return
        ready = wait([self._wake_receiver, self._socket])
        if self._wake_receiver in ready:
            self._wake_receiver.recv(4096)
        if self._socket not in ready:
            return
        try:
            task, result, killed = self._received()
        except (EOFError, OSError):
            self._go_on_alone()
            return
        if task is None:  # its asker is gone
            return
        if isinstance(result, Failure):
            raise result.error
        if killed:
            result = Broken(result)
            if task.path is not None:
                self.broken[task.path] = result
        yield task, result

    def _received(self) -> tuple[Task | None, Any, bool]:
        """The answer to a task. A clip is in the task's slot then."""
        answer: Answer = receive(self._socket)
        task, result = self._tasks.get(answer.number), answer.result
        if isinstance(result, Clip):
            slot, error = None, None
            if task is not None:
                try:
                    slot = task.slot(result.shape)  # type: ignore[misc]
                except Exception as raised:  # the bytes come all the same
                    error = raised
            if slot is None:
                fill(self._socket, memoryview(bytearray(result.shape.numel())))
            else:
                fill(self._socket, slot.numpy().data.cast("B"))
            result = replace(result.sample, clip=slot) if error is None else Failure(error)
        self._tasks.pop(answer.number, None)
        return task, result, answer.killed

    def _go_on_alone(self) -> None:
        """Put own processes in the place of the server's, which have ended."""
        self._socket.close()
        left = list(self._tasks.values())
        self._tasks.clear()
        pool = DecodePool(self._readers, self._own, self.limit, self.broken)
        pool.attach(self._detach)
        for task in left:
            pool.submit(task)
        self.count = pool.count
        self._pool = pool

    def close(self) -> None:
        """End the connection, and what processes there are of its own."""
        if self._closed:
            return
        self._closed = True
        if self._pool is None:
            self._detach()  # meanwhile the server's end may be met
        if self._pool is not None:
            self._pool.close()
        for each in (self._socket, self._wake_receiver, self._wake_sender):
            each.close()

    def __enter__(self) -> SharedPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Decoders = DecodePool | SharedPool
