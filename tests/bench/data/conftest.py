"""Small videos that several test files read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.clips import Clips
from bench.data.dataset import Video
from bench.data.decode_pool import DecodePool
from bench.data.motion.dataset import write_h264

Pools: TypeAlias = Callable[..., DecodePool]


def numbered(count: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Frames that tell their number: a soft picture whose brightness rises by 5 a frame."""
    picture = np.linspace(0, 60, width)[None, :, None] + np.linspace(0, 30, height)[:, None, None] + np.zeros(3)
    return (picture[None] + 5 * np.arange(count)[:, None, None, None]).astype(np.uint8)


def number_of(frames: NDArray[np.uint8]) -> list[int]:
    """The numbers of frames of `numbered`, or of pieces that keep the whole picture's mean."""
    return [round((float(frame.mean()) - float(numbered(1).mean())) / 5) for frame in frames]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six good videos `<i>.mp4` of 17 + i frames, and three that are none: empty.mp4, junk.mp4, missing.mp4."""
    root = tmp_path_factory.mktemp("videos")
    for i in range(6):
        write_h264(root / f"{i}.mp4", numbered(17 + i), fps=8, qp=10)
    (root / "empty.mp4").touch()
    (root / "junk.mp4").write_bytes(b"no video at all " * 500)
    return root


@pytest.fixture
def good(folder: Path) -> tuple[Video, ...]:
    return tuple(Video(folder / f"{i}.mp4", i, f"{i}.mp4") for i in range(6))


@pytest.fixture
def mixed(folder: Path, good: tuple[Video, ...]) -> tuple[Video, ...]:
    """The good videos with a broken one after every second."""
    broken = [Video(folder / name, 9, name) for name in ("empty.mp4", "junk.mp4", "missing.mp4")]
    return tuple(video for i in range(3) for video in (*good[2 * i : 2 * i + 2], broken[i]))


@pytest.fixture
def pools() -> Iterator[Pools]:
    """Decoding processes for data sets, closed when the test ends."""
    with ExitStack() as stack:

        def make(*readers: Clips[Any], count: int = 1, limit: float = 60, broken: Any = None) -> DecodePool:
            return stack.enter_context(DecodePool(readers, count, limit, broken))

        yield make
