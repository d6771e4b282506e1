"""Decoding of a whole data set into the cache, in processes that are replaced where a decoder hangs or crashes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from bench.data.cache.entry import CacheKey
from bench.data.cache.store import FolderStore
from bench.data.dataset import DataError
from bench.data.decode.open import open_video
from bench.data.decode_pool import Lost, run_isolated

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


def fill(store: FolderStore, paths: Sequence[Path], short_side: int | None, workers: int) -> Iterator[Filled]:
    """Yield the outcome of each video, as it is decoded. Closing the generator ends the processes."""
    for path, outcome in run_isolated(partial(fill_one, store, short_side), paths, workers, _PATIENCE):
        if isinstance(outcome, Filled):
            yield outcome
        elif isinstance(outcome, Lost | DataError | MemoryError | OSError):
            told = getattr(outcome, "reason", None) or getattr(outcome, "strerror", None) or str(outcome)
            yield Filled(path, "broken", reason=told or "out of memory")
        else:
            raise outcome
