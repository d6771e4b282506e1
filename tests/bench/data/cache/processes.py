"""Work of tests in processes of their own: started anew, as a fork of one with threads may wait for a lock for ever."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import bench.data.cache.choose
import bench.data.cache.frames
import bench.data.cache.store
from bench.data.cache import FolderStore, FrameCache
from bench.data.decode.base import Frames, VideoReader
from bench.data.decode.open import open_video
from tests.bench.data.cache.conftest import counted, make_store

SPAWN = multiprocessing.get_context("spawn")


def read_all(store: FolderStore, paths: list[Path], log: Path, barrier: Any) -> None:
    """Read the videos through the cache when all processes are ready to."""
    bench.data.cache.frames.open_video = counted(log)  # type: ignore[assignment]
    cache = FrameCache(store)
    barrier.wait(600)
    for path in paths:
        reader = cache.open(path)
        assert np.array_equal(reader.frames([16, 0, 7]), open_video(path).frames([16, 0, 7]))
        reader.close()


def write_half(store: FolderStore, path: Path, begun: Any) -> None:
    """Write ten frames of a video into the cache, say so, and wait to be killed."""

    def slow(reader: VideoReader) -> Iterator[Frames]:
        yield reader.frames([0])
        yield reader.frames(range(1, 10))
        begun.set()
        time.sleep(900)

    bench.data.cache.store.pieces = slow
    FrameCache(store).open(path)


def hold(memory: Path, path: Path, ready: Any, end: Any) -> None:
    """Keep a video in the shared memory at `memory` until told to end."""
    bench.data.cache.choose.SHARED_MEMORY = memory
    with bench.data.cache.choose.CacheFolders() as folders:
        assert folders.ram is not None
        FrameCache(make_store(folders.ram)).open(path).close()
        ready.set()
        end.wait(900)
