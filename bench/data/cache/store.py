"""Cached frames as files in a folder, which all processes of the machine share: on a disk, or in memory (tmpfs)."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from bench.data.cache import entry
from bench.data.cache.account import Account
from bench.data.cache.codec import CODECS, Format
from bench.data.cache.lock import locked
from bench.data.cache.pieces import pieces
from bench.data.cache.source import CacheKey, name_of
from bench.data.decode.base import VideoReader
from bench.text import byte_size


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

    def path(self, source: CacheKey) -> str:
        """Return the path of a video's entry, if there is one."""
        name = source.name  # a text, as a Path would take longer than reading the file
        return os.path.join(self.folder, name[:2], f"{name[2:]}.{self.format}")

    def find(self, source: CacheKey) -> VideoReader | None:
        """The cached video; None where there is none of the file as it is now."""
        return entry.read(self.path(source), source, CODECS[self.format])

    def has_room(self, source: CacheKey) -> bool:
        """False where the video could not be kept, whatever its frames are."""
        state = self._account.read()
        if state is None:
            return True
        least = source.size if self.format == "raw" else 0  # frames are never smaller than the file they come from
        if state.used + least >= self.limit_bytes and state.full_ns < self.since_ns:
            with contextlib.suppress(OSError):
                self._account.full()  # for `notes`
        return state.failed_ns < self.since_ns and state.used + least < self.limit_bytes

    def turn(self, source: CacheKey) -> AbstractContextManager[object]:
        """Held by the one process that decodes a video; those that need it too wait. Entering it may raise OSError.

        A process that dies lets go of it. Videos share 256 locks, as the file of a lock outlives its use.
        """
        return locked(self.folder / "locks" / source.name[:2])

    def keep(self, source: CacheKey, reader: VideoReader) -> bool:
        """Decode the whole video into its file; False where the limit or the disk has no room for it.

        Raises VideoError where it cannot be decoded to its end; nothing is kept then.
        """
        codec = CODECS[self.format]
        decoded = pieces(reader)
        first = next(decoded)
        shape, packed, decoder = (len(reader), *first.shape[1:]), len(codec.pack(first[0])), reader.decoder
        full = reader.full_size or (first.shape[1], first.shape[2])
        expected = entry.size(source, shape, full, packed * len(reader), decoder, codec)
        try:
            with self._temporary() as (temporary, file):
                if not self._reserve(expected):
                    return False
                counted = expected
                try:
                    entry.write(file, source, chain([first], decoded), full, decoder, codec)
                    file.close()
                    place = Path(self.path(source))
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
                        self._account.give_back(counted)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._account.failed(error.errno or errno.EIO)
            return False
        return True

    def _reserve(self, count: int) -> bool:
        return self._account.reserve(count, self.limit_bytes)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file that is gone afterwards, unless it was renamed. It is not synced: a cache can be made anew."""
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
        self._account.set(sum(map(_size, self._entries())))

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
