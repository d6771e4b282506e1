"""Functions that hang or crash in place of a decoder. Imports little: each process imports it anew."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bench.data.cache.frames import Filled, fill_one
from bench.data.cache.store import FolderStore
from bench.data.dataset import Split, Video
from bench.data.validate import ClipSampling


def decode(clip: ClipSampling, full: bool, listed: tuple[Split, Video]) -> tuple[int, str]:
    """In place of `bench.data.validate.decode`."""
    _, video = listed
    if video.path.stem == "hangs":
        time.sleep(600)
    if video.path.stem == "dies":
        os.abort()
    if video.path.stem == "raises":
        raise MemoryError("no room")
    return 8, ""


def fill(store: FolderStore, short_side: int | None, path: Path) -> Filled:
    """In place of `bench.data.cache.frames.fill_one`."""
    if path.name == "1.mp4":
        time.sleep(600)
    if path.name == "2.mp4":
        os._exit(3)
    return fill_one(store, short_side, path)


def loaded(module: str) -> bool:
    """Return whether this process has imported a module."""
    return module in sys.modules
