"""One set of decoding processes for all the cells of a machine, which reach it through a Unix socket.

Every cell's connection has a thread that listens and one that sends, so that a cell that is stopped holds up nobody;
the thread that runs the server decides and talks to the processes. Clips go through the sockets, as from the processes
themselves: there is no shared memory to run out of, and nothing that a killed process could leave behind.

Messages to the server: `Ask`, `Forget`, and a reader's `Packed` before the first try that is asked of it. From it:
`Hello`, then an `Answer` to each `Ask`, in any order; the bytes of a clip follow it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from bench.data.decode_pool import HELD, Broken, DecodePool, Task
from bench.data.decode_relay import Failure, Packed, Relay
from bench.data.decode_sharing import PATIENCE, Member, Sharing, Try
from bench.data.decode_worker import Clip, receive, send

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_LOOK = 1.0  # seconds between looks whether who waits for others still has to


@dataclass(frozen=True)
class Hello:
    """The server's first message: how many processes decode."""

    count: int


@dataclass(frozen=True)
class Ask:
    """A try: its number in this connection, its reader's digest, and what the reader gets."""

    number: int
    reader: bytes
    value: Hashable


@dataclass(frozen=True)
class Forget:
    """Nothing that was asked for before is wanted any more."""


@dataclass(frozen=True)
class Answer:
    """Outcome of a try.

    Attributes:
        result: a `Clip` whose bytes follow, why the video is broken, a result of another kind, or a `Failure`.
        killed: the video hung its process, or ended it.
    """

    number: int
    result: Any
    killed: bool = False


@dataclass(eq=False)
class _Client:
    """A cell's connection."""

    socket: socket.socket
    member: Member
    outbox: SimpleQueue[tuple[Answer, Tensor | None] | None] = field(default_factory=SimpleQueue)
    readers: dict[bytes, Packed] = field(default_factory=dict)


class DecodeServer:
    """Decoding processes that several cells share. They are started when the first try is asked for.

    Args:
        listener: socket at which cells connect.
        count: processes.
        limit: seconds that reading a try may take.
        budget: bytes of clips that are kept for cells that have not asked for them yet.
        patience: seconds without a question after which a cell is not waited for.
    """

    def __init__(
        self, listener: socket.socket, count: int, limit: float, budget: int, patience: float = PATIENCE
    ) -> None:
        self.count = count
        self.limit = limit
        self._listener = listener
        self._sharing = Sharing(budget, patience)
        self._relay = Relay()
        self._pool: DecodePool | None = None
        self._tasks: dict[Task, Try] = {}
        self._killed: dict[Hashable, Broken] = {}  # tries that hung a process or ended it
        self._clients: dict[Member, _Client] = {}
        self._inbox: SimpleQueue[tuple[_Client | None, Any]] = SimpleQueue()
        self._closing = False

    def run(self) -> None:
        """Serve until `close` is called from another thread."""
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            while True:
                while not self._inbox.empty():
                    self._handle(*self._inbox.get())
                if self._closing:
                    break
                self._hand_out()
                if self._pool is None:
                    self._handle(*self._inbox.get())
                    continue
                try:
                    for task, outcome in self._pool.outcomes(_LOOK if self._sharing.holding else None):
                        self._settle(self._tasks.pop(task), outcome)
                except Exception as error:  # no process comes up, as where memory runs out: a cell's own would not
                    self._give_up(error)
        finally:
            if self._pool is not None:
                self._pool.close()
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # closing alone does not end the waiting for another cell
            self._listener.close()

    def close(self) -> None:
        """End the server and its processes, whatever they are doing."""
        self._tell(None, None)

    def _tell(self, client: _Client | None, message: Any) -> None:
        """Put a message before the thread that runs the server."""
        self._inbox.put((client, message))
        if (pool := self._pool) is not None:  # else it waits for the message itself
            pool.wake()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection, _ = self._listener.accept()
                with contextlib.suppress(OSError):  # it has ended, as shows when it is listened to
                    send(connection, Hello(self.count))  # at once: the start of the processes may take a while
                self._tell(None, connection)

    def _listen(self, client: _Client) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._tell(client, receive(client.socket))
        self._tell(client, None)

    def _send(self, client: _Client) -> None:
        with contextlib.suppress(OSError):  # whoever listens tells
            while (item := client.outbox.get()) is not None:
                message, clip = item
                send(client.socket, message)
                if clip is not None:
                    client.socket.sendall(clip.numpy().data.cast("B"))
        client.socket.close()

    def _handle(self, client: _Client | None, message: Any) -> None:
        now = time.monotonic()
        if client is None and message is None:
            self._closing = True
        elif client is None:
            self._welcome(message, now)
        elif message is None:
            self._sharing.leave(client.member)
            del self._clients[client.member]
            client.outbox.put(None)
        elif isinstance(message, Packed):
            client.readers[message.digest] = message
        elif isinstance(message, Forget):
            self._sharing.forget(client.member)
        else:
            self._ask(client, message, now)

    def _welcome(self, connection: socket.socket, now: float) -> None:
        client = _Client(connection, self._sharing.join(now))
        self._clients[client.member] = client
        for work in (self._listen, self._send):
            threading.Thread(target=work, args=(client,), daemon=True).start()

    def _ask(self, client: _Client, ask: Ask, now: float) -> None:
        key = (ask.reader, ask.value)
        if (reason := self._killed.get(key)) is not None:
            self._answer(client.member, ask.number, reason)
            return
        found = self._sharing.ask(client.member, ask.number, key, now)
        if found.state == "done":
            self._answer(client.member, ask.number, found.result)
        elif found.task is None:
            found.task = client.readers[ask.reader], ask.value

    def _hand_out(self) -> None:
        """Keep the processes busy, and not more than that: what is read next is decided as late as possible."""
        while len(self._tasks) < HELD * self.count:
            wanted = self._sharing.next(time.monotonic())
            if wanted is None:
                return
            if self._pool is None:
                try:
                    self._pool = DecodePool([self._relay], self.count, self.limit)
                except Exception as error:
                    self._give_up(error)
                    return
            task = Task(self._relay, wanted.task, slot=_slot)
            self._tasks[task] = wanted
            self._pool.submit(task)

    def _settle(self, ended: Try, result: Any) -> None:
        clip = getattr(result, "clip", None)
        size = 0 if clip is None else clip.nbytes
        if isinstance(result, Broken):
            self._killed[ended.key] = result
        keep = not isinstance(result, Failure | Broken)
        for member, number in self._sharing.done(ended, result, size, keep):
            self._answer(member, number, result)

    def _answer(self, member: Member, number: int, result: Any) -> None:
        clip = getattr(result, "clip", None)
        if clip is not None:
            answer = Answer(number, Clip(replace(result, clip=None), clip.shape))
        else:
            answer = Answer(number, str(result) if isinstance(result, Broken) else result, isinstance(result, Broken))
        self._clients[member].outbox.put((answer, clip))

    def _give_up(self, error: Exception) -> None:
        """Tell an error that is no try's to all that wait. The next try finds new processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self._tasks.clear()
        for member, number in self._sharing.fail():
            self._answer(member, number, Failure(error))


def _slot(shape: torch.Size) -> Tensor:
    import torch

    return torch.empty(shape, dtype=torch.uint8)
