"""Cached frames as files in a folder, which all processes of the machine share: on a disk, or in memory (tmpfs)."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from bench.data.cache import entry
from bench.data.cache.entry import CODECS, CacheKey, Format, name_of, pieces
from bench.data.decode.base import VideoReader
from bench.text import byte_size

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True)
class FolderStore:
    """One file a video, put in its place whole. Cheap to send to other processes, safe in several of them and threads.

    When the limit is reached, nothing makes room: cells go through a data set again and again, and whichever video
    went first would be the next one wanted.

    Attributes:
        folder: made by `prepare`.
        limit_bytes: of all files in the folder, whoever wrote them.
        format: how frames are kept.
        since_ns: what kept videos out before then is forgotten.
    """

    folder: Path
    limit_bytes: int
    format: Format = "raw"
    since_ns: int = field(default_factory=time.time_ns)

    @property
    def _account(self) -> Account:
        return Account(self.folder)

    @property
    def used_bytes(self) -> int:
        state = self._account.read()
        return 0 if state is None else state.used

    def path(self, key: CacheKey) -> str:
        """Return the path of a video's entry, if there is one."""
        name = key.name  # a text, as a Path would take longer than reading the file
        return os.path.join(self.folder, name[:2], f"{name[2:]}.{self.format}")

    def find(self, key: CacheKey) -> VideoReader | None:
        """The cached video; None where there is none of the file as it is now."""
        return entry.read(self.path(key), key, CODECS[self.format])

    def has_room(self, key: CacheKey) -> bool:
        """Return False where there is no room for the video, whatever its frames are."""
        state = self._account.read()
        if state is None:
            return True
        least = key.size if self.format == "raw" else 0  # frames are never smaller than the file they come from
        if state.used + least >= self.limit_bytes and state.full_ns < self.since_ns:
            with contextlib.suppress(OSError):
                self._account.note(full_ns=time.time_ns())  # for `notes`
        return state.failed_ns < self.since_ns and state.used + least < self.limit_bytes

    def lock(self, key: CacheKey) -> AbstractContextManager[object]:
        """Lock of the process that decodes a video; others that need the video wait. Entering it may raise OSError.

        A process that dies lets go of it. Videos share 256 locks, as the file of a lock outlives its use.
        """
        return locked(self.folder / "locks" / key.name[:2])

    def keep(self, key: CacheKey, reader: VideoReader) -> bool:
        """Decode the whole video into its file; False where the limit or the disk has no room for it.

        Raises VideoError where it cannot be decoded to its end; nothing is kept then.
        """
        codec = CODECS[self.format]
        decoded = pieces(reader)
        first = next(decoded)
        shape, packed, decoder = (len(reader), *first.shape[1:]), len(codec.pack(first[0])), reader.decoder
        full = reader.full_size or (first.shape[1], first.shape[2])
        expected = entry.size(key, shape, full, packed * len(reader), decoder, codec)
        try:
            with self._temporary() as (temporary, file):
                if not self._reserve(expected):
                    return False
                counted = expected
                try:
                    entry.write(file, key, chain([first], decoded), full, decoder, codec)
                    file.close()
                    place = Path(self.path(key))
                    place.parent.mkdir(exist_ok=True)
                    # pictures differ in size, so the first one did not tell all; and the place may be taken
                    more = _size(temporary) - _size(place) - expected
                    if more and not self._reserve(more):
                        return False
                    counted += more
                    temporary.replace(place)
                    counted = 0
                finally:
                    if counted:
                        self._account.add(-counted)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._account.note(failed_ns=time.time_ns(), error=error.errno or errno.EIO)
            return False
        return True

    def _reserve(self, count: int) -> bool:
        return self._account.add(count, self.limit_bytes)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Make a file that is removed afterwards, unless it was renamed. It is not synced: a cache can be made anew."""
        path = self.folder / "tmp" / secrets.token_hex(8)
        with path.open("xb") as file:
            try:
                yield path, file
            finally:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Make the folders. Raises OSError."""
        for name in ("locks", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if self._account.read() is None:
            self._recount()

    def tidy(self) -> None:
        """Clear away what dead processes left half-written. Nobody else may be writing. Raises OSError."""
        left = list((self.folder / "tmp").iterdir())
        for file in left:
            file.unlink(missing_ok=True)
        if left:  # it was counted
            self._recount()

    def forget(self, paths: Iterable[Path]) -> tuple[int, int]:
        """Remove every entry of these videos: in any format, of any decoder. How many there were, and their bytes.

        Raises OSError.
        """
        names = {name_of(path) for path in paths}
        gone = freed = 0
        for file in self._entries():
            if file.parent.name + file.name.partition(".")[0] in names:
                freed += _size(file)
                file.unlink(missing_ok=True)
                gone += 1
        self._recount()
        return gone, freed

    def _entries(self) -> Iterator[Path]:
        return self.folder.glob("[0-9a-f][0-9a-f]/*")

    def _recount(self) -> None:
        self._account.note(used=sum(map(_size, self._entries())))

    def notes(self) -> list[str]:
        """Return the reasons that kept videos out of the cache since it was made."""
        state = self._account.read()
        if state is None:
            return []
        notes = []
        if state.full_ns >= self.since_ns:
            notes.append(
                f"the frame cache is full ({byte_size(state.used)} of its limit of {byte_size(self.limit_bytes)}): "
                "videos beyond it are decoded each time they are shown"
            )
        if state.failed_ns >= self.since_ns:
            notes.append(
                f"the frame cache stopped growing: {self.folder} cannot be written ({os.strerror(state.error)})"
            )
        return notes


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# Of a fixed size and overwritten in place: what it says can be changed on a disk that is full.
_STATE = struct.Struct("<8sQQQQ")
_MARK = b"aimcount"


@dataclass(frozen=True, slots=True)
class State:
    """Count of a folder's bytes, and what kept videos out of it.

    Attributes:
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
        """Return the count; None where there is none, or it is damaged."""
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

    def add(self, count: int, limit: int | None = None) -> bool:
        """Count `count` bytes in, before they are written, or out. Raises OSError.

        Returns False, and counts nothing, where they go beyond the limit.
        """
        granted = True

        def change(state: State) -> State:
            nonlocal granted
            granted = limit is None or state.used + count <= limit
            return replace(state, used=state.used + count) if granted else replace(state, full_ns=time.time_ns())

        self._change(change)
        return granted

    def note(self, **fields: int) -> None:
        """Set fields of the count, for all the processes. Raises OSError."""
        self._change(lambda state: replace(state, **fields))


@contextlib.contextmanager
def locked(file: str | Path) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is missing and stays. Raises OSError.

    The system's own call wakes the next one at once, and filelock asks again and again: 0.006 ms against 0.35 ms where
    nobody waits, 0.8 ms a turn of 0.5 ms among four processes against 2.5 ms (1.3 ms where it asks every millisecond).
    Filling the cache with the embedded data set's videos from two processes takes a third longer with it (8.3 and
    11.0 ms a video, of two cores). It is for systems without that call.
    """
    if sys.platform == "win32":
        from filelock import FileLock

        with FileLock(file):
            yield
        return
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing does not where a process was forked meanwhile
        os.close(descriptor)
