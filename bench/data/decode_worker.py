"""A decoding process: what it does, and the messages between it and its pool.

A message is its length and a pickle; the bytes of a clip follow a `Clip`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.data.decode.base import VideoError
from bench.processes import STOP_SIGNALS, end_with_parent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.data.clips import Sample

# the processes are what runs side by side
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
NAME = "bench-decoder"
_LENGTH = struct.Struct("!I")


class Reader(Protocol):
    """Work of the processes, sent to each of them once: `bench.data.clips.Clips` or a function's."""

    def read(self, task: Any, /) -> Any:
        """The result of a task. Raises VideoError where the video is broken."""
        ...


@dataclass(frozen=True)
class Ready:
    """A process's first message."""


@dataclass(frozen=True)
class Begun:
    """A process has begun with a task. A clip follows, a text (why the video is broken), an error or a result."""


@dataclass(frozen=True)
class Clip:
    """A sample without its clip, whose bytes follow."""

    sample: Sample
    shape: torch.Size


def send(connection: socket.socket, message: object) -> None:
    body = pickle.dumps(message)
    connection.sendall(_LENGTH.pack(len(body)) + body)


def receive(connection: socket.socket) -> Any:
    """A message. Raises EOFError at the end of the connection."""
    length = bytearray(_LENGTH.size)
    fill(connection, memoryview(length))
    body = bytearray(*_LENGTH.unpack(length))
    fill(connection, memoryview(body))
    return pickle.loads(body)


def fill(connection: socket.socket, rest: memoryview) -> None:
    while rest:
        count = connection.recv_into(rest, len(rest), socket.MSG_WAITALL)
        if not count:
            raise EOFError
        rest = rest[count:]


def main(connection: socket.socket, readers: Sequence[Reader]) -> None:
    """Read one task after the other until the connection closes or the parent dies."""
    # a scheduler signals every process of a job: the trainer decides, and needs its clips until then
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    with contextlib.suppress(OSError):  # the name that `top` shows, on Linux
        Path("/proc/self/comm").write_text(NAME)
    os.environ.update(ONE_THREAD)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError):
        send(connection, Ready())
        while True:
            reader, value = receive(connection)
            send(connection, Begun())
            _answer(connection, readers[reader], value)


def _answer(connection: socket.socket, reader: Reader, value: Any) -> None:
    try:
        result = reader.read(value)
    except VideoError as error:
        send(connection, error.reason)
    except Exception as error:
        send(connection, portable(error))
    else:
        clip: Tensor | None = getattr(result, "clip", None)
        if clip is None:
            send(connection, result)
        else:
            send(connection, Clip(replace(result, clip=None), clip.shape))
            connection.sendall(clip.contiguous().numpy().data.cast("B"))


def portable(error: Exception) -> Exception:
    """The error with its traceback in it, as another error where it cannot be sent."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a decoding process:\n{text}")
    return error
