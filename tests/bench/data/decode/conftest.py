"""One video of every kind, and what all decoders must make of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bench.data.videos import decoded, make


@dataclass(frozen=True)
class Film:
    path: Path
    frames: NDArray[np.uint8]


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Film]:
    return {name: Film(path, decoded(path)) for name, path in make(tmp_path_factory.mktemp("films")).items()}


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Decibels of the worst of the frames; 99 for the same pictures. (T, H, W, 3) both."""
    assert a.shape == b.shape
    error = float(((a.astype(np.float64) - b) ** 2).mean(axis=(1, 2, 3)).max())
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def orders(count: int) -> list[list[int]]:
    """Orders of frames to ask a video for: all, single ones here and there, clips, back and forth, again and again."""
    rng = np.random.default_rng(count)
    drawn = [rng.integers(0, count, 6).tolist() for _ in range(6)]
    dense = [[(start + 4 * j) % count for j in range(8)] for start in (0, count // 3)]
    return [list(range(count)), [count - 1], [0], [count // 2] * 3, [count - 1, 0, count // 2], *dense, *drawn]
