"""The cache as data sets use it: opens a video, decoded before or not."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench.data.cache.entry import CODECS, CacheKey, Entry, Recompressed
from bench.data.cache.store import FolderStore
from bench.data.dataset import DataError
from bench.data.decode.base import VideoError, VideoReader
from bench.data.decode.open import open_video
from bench.data.decode_pool import Lost, run_isolated
from bench.spec.fields import Decoder

_MEMORY = 2**28  # bytes of small videos that a process keeps for itself


class FrameCache:
    """Reader of videos that decodes each once, into a store.

    What it returns shows the same frames whether they were in the store or not, and whether the store has room. It can
    be sent to other processes, and used by several of them and by threads at once.

    Args:
        store: None keeps nothing.
    """

    def __init__(self, store: FolderStore | None = None) -> None:
        self.store = store
        self._passed_over: set[CacheKey] = set()  # videos for which there is no room, or that are broken somewhere
        self._in_memory: dict[CacheKey, VideoReader] = {}  # small videos that this process has read before
        self._in_memory_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def open(
        self, path: Path, decoder: Decoder = "auto", short_side: int | None = None, frames: int | None = None
    ) -> VideoReader:
        """The video, decoded as a whole where it is not in the store yet. For arguments and errors see `open_video`."""
        if self.store is None:
            return open_video(path, decoder, short_side, frames)
        try:
            key = CacheKey.of(path, decoder, short_side)
        except OSError:  # a folder, or what cannot be opened: that is told
            return open_video(path, decoder, short_side, frames)
        found = self._in_memory.get(key) or self.store.find(key)
        if found is not None:
            return self._remembered(key, found)
        if key not in self._passed_over and self.store.has_room(key):
            try:
                with self.store.lock(key):
                    # whoever held the lock before may have decoded it
                    found = self.store.find(key) or self._kept(key, path)
            except OSError:  # the folder is gone, or may not be written
                found = None
            if found is not None:
                return self._remembered(key, found)
            self._passed_over.add(key)
        reader = open_video(path, decoder, short_side)
        return reader if self.store.format == "raw" else Recompressed(reader, CODECS[self.store.format])

    def _kept(self, key: CacheKey, path: Path) -> VideoReader | None:
        """The video once it is in the store; None where it cannot be put there. Raises VideoError, as `open_video`."""
        assert self.store is not None
        reader = open_video(path, key.decoder, key.short_side)
        try:
            kept = self.store.keep(key, reader)
        except VideoError:  # broken somewhere; the frames that a clip needs may still be there
            kept = False
        finally:
            reader.close()
        return self.store.find(key) if kept else None

    def _remembered(self, key: CacheKey, found: VideoReader) -> VideoReader:
        """Return the video; keep a small one in memory, as opening its file takes longer than copying its frames."""
        if (
            isinstance(found, Entry)
            and found.in_memory
            and key not in self._in_memory
            and self._in_memory_bytes + found.nbytes <= _MEMORY
        ):
            self._in_memory[key] = found
            self._in_memory_bytes += found.nbytes
        return found

    def notes(self) -> list[str]:
        """Return the reasons that kept videos out of the cache, for the user."""
        return [] if self.store is None else self.store.notes()


_PATIENCE = 300.0  # seconds after which a video is given up


@dataclass(frozen=True, slots=True)
class Filled:
    """Outcome of a video.

    Attributes:
        path: of the video.
        outcome: "new": decoded now; "there": it lay in the cache; "left out": for want of room; "broken".
        size: bytes of its entry.
        reason: why it is broken.
    """

    path: Path
    outcome: Literal["new", "there", "left out", "broken"]
    size: int = 0
    reason: str = ""


def fill_one(store: FolderStore, short_side: int | None, path: Path) -> Filled:
    """Put a video into the store, unless it is there. Raises OSError, DataError where it cannot be decoded whole."""
    try:
        key = CacheKey.of(path, "auto", short_side)
    except OSError:
        open_video(path, "auto", short_side).close()  # which says what is wrong
        raise
    outcome: Literal["new", "there", "left out"] = "there"
    with store.lock(key):
        if not _lies(store, key):
            reader = open_video(path, "auto", short_side)
            try:
                outcome = "new" if store.keep(key, reader) else "left out"
            finally:
                reader.close()
    return Filled(path, outcome, 0 if outcome == "left out" else os.stat(store.path(key)).st_size)


def _lies(store: FolderStore, key: CacheKey) -> bool:
    entry = store.find(key)
    if entry is not None:
        entry.close()
    return entry is not None


def fill(
    store: FolderStore, paths: Sequence[Path], short_side: int | None, workers: int
) -> Generator[Filled, None, None]:
    """Yield the outcome of each video, as it is decoded. Closing the generator ends the processes."""
    for path, outcome in run_isolated(partial(fill_one, store, short_side), paths, workers, _PATIENCE):
        if isinstance(outcome, Filled):
            yield outcome
        elif isinstance(outcome, Lost | DataError | MemoryError | OSError):
            told = getattr(outcome, "reason", None) or getattr(outcome, "strerror", None) or str(outcome)
            yield Filled(path, "broken", reason=told or "out of memory")
        else:
            raise outcome
