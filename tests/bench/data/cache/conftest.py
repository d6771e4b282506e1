"""Caches, and a count of what is decoded in whatever process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.data.cache import FolderStore
from bench.data.decode.base import VideoReader
from bench.data.decode.open import open_video

MB = 2**20
LOG = "opened.txt"


def counted(log: Path) -> Callable[..., VideoReader]:
    """`open_video`, which writes the names of the files that it opens into `log`, from whatever process."""

    def count(path: Path, *arguments: Any) -> VideoReader:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{path.name}\n".encode())
        os.close(descriptor)
        return open_video(path, *arguments)

    return count


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[str]]:
    """The names of the video files that were opened, in order: by this process and by those that were given the log."""
    log = tmp_path / LOG
    log.touch()
    monkeypatch.setattr("bench.data.cache.frames.open_video", counted(log))
    return lambda: log.read_text().split()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return make_store(tmp_path / "cache")


def make_store(folder: Path, limit_bytes: int = 64 * MB, **changes: Any) -> FolderStore:
    made = FolderStore(folder, limit_bytes, **changes)
    made.prepare()
    return made


def files(store: FolderStore) -> list[Path]:
    """The entries of a store."""
    return sorted(store.folder.glob("??/*.raw")) + sorted(store.folder.glob("??/*.jpeg"))
