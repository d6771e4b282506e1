"""Decodes a whole data set into the cache, in processes that are replaced where a decoder hangs or crashes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pebble import ProcessExpired

from bench.data.cache.source import CacheKey
from bench.data.cache.store import FolderStore
from bench.data.dataset import DataError
from bench.data.decode.open import open_video
from bench.data.isolated import apart, why_lost

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
    """See to it that a video lies in the store. Raises DataError where it cannot be decoded to its end, OSError."""
    try:
        source = CacheKey.of(path, "auto", short_side)
    except OSError:
        open_video(path, "auto", short_side).close()  # which says what is wrong
        raise
    outcome: Literal["new", "there", "left out"] = "there"
    with store.turn(source):
        if not _lies(store, source):
            reader = open_video(path, "auto", short_side)
            try:
                outcome = "new" if store.keep(source, reader) else "left out"
            finally:
                reader.close()
    return Filled(path, outcome, 0 if outcome == "left out" else os.stat(store.path(source)).st_size)


def _lies(store: FolderStore, source: CacheKey) -> bool:
    entry = store.find(source)
    if entry is not None:
        entry.close()
    return entry is not None


def fill(store: FolderStore, paths: Sequence[Path], short_side: int | None, workers: int) -> Iterator[Filled]:
    """Yield the outcome of each video, as it is decoded. Leaving off early ends the processes."""
    for path, future in apart(partial(fill_one, store, short_side), paths, workers, _PATIENCE):
        yield _outcome(path, future)


def _outcome(path: Path, future: Future[Filled]) -> Filled:
    try:
        return future.result()
    except (DataError, MemoryError, OSError, ProcessExpired) as error:  # a TimeoutError is an OSError
        told = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or "out of memory"
        return Filled(path, "broken", reason=why_lost(error, _PATIENCE) or told)
