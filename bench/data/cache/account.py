"""Size of a folder of cached frames: one count for all the processes that write into it."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench.data.cache.lock import locked

# Of a fixed size and overwritten in place: what it says can be changed on a disk that is full.
_STATE = struct.Struct("<8sQQQQ")
_MARK = b"aimcount"


@dataclass(frozen=True, slots=True)
class State:
    """Attributes:
    used: bytes of all entries, those that are just being written among them.
    full_ns: when the limit last kept a video out, in nanoseconds since 1970; 0 for never.
    failed_ns: when writing last failed.
    error: the system's number of that failure.
    """

    used: int
    full_ns: int = 0
    failed_ns: int = 0
    error: int = 0


class Account:
    """The count of one folder, changed under a lock."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "account"

    def read(self) -> State | None:
        """None where there is no count, or a damaged one."""
        try:
            mark, used, full_ns, failed_ns, error = _STATE.unpack(self._file.read_bytes())
        except (OSError, struct.error):
            return None
        return State(used, full_ns, failed_ns, error) if mark == _MARK else None

    def _change(self, change: Callable[[State], State]) -> None:
        with locked(f"{self._file}.lock"):
            state = change(self.read() or State(0))
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.write(
                    descriptor, _STATE.pack(_MARK, max(0, state.used), state.full_ns, state.failed_ns, state.error)
                )
            finally:
                os.close(descriptor)

    def reserve(self, count: int, limit: int) -> bool:
        """Count `count` bytes in before they are written; False where they go beyond the limit. Raises OSError."""
        granted = False

        def change(state: State) -> State:
            nonlocal granted
            if state.used + count > limit:
                return replace(state, full_ns=time.time_ns())
            granted = True
            return replace(state, used=state.used + count)

        self._change(change)
        return granted

    def give_back(self, count: int) -> None:
        """Count `count` bytes out. Raises OSError."""
        self._change(lambda state: replace(state, used=state.used - count))

    def failed(self, error: int) -> None:
        """Let all the processes know that writing failed. Raises OSError."""
        self._change(lambda state: replace(state, failed_ns=time.time_ns(), error=error))

    def full(self) -> None:
        """Note that the limit keeps videos out. Raises OSError."""
        self._change(lambda state: replace(state, full_ns=time.time_ns()))

    def set(self, used: int) -> None:
        """Begin the count anew. Raises OSError."""
        self._change(lambda state: replace(state, used=used))
