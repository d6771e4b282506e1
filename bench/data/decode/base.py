"""Contract of a decoder: an opened video, its frames by their numbers, and one kind of error."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import DataError

Frames = NDArray[np.uint8]

_PIECE = 8  # frames of full size that wait for being made smaller: of 1080p, 50 MB


class VideoError(DataError):
    """A video that cannot be read: `path` and, in a sentence, the `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)  # both, so that the error survives the way out of a worker process
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class VideoReader(ABC):
    """One opened video. `len` is its number of frames; `decoder` names the library that reads it.

    Attributes:
        full_size: height and width of its frames before they were made smaller; None until some were read.

    Args:
        path: of the file or folder.
        short_side: pixels that the frames' short side has at most; None leaves them as they are.
    """

    decoder: str
    full_size: tuple[int, int] | None = None

    def __init__(self, path: Path, short_side: int | None = None) -> None:
        if short_side is not None and short_side < 1:
            raise ValueError(f"short_side is {short_side}: expected 1 pixel or more")
        self.path = path
        self.short_side = short_side

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _read(self, indices: list[int]) -> Frames:
        """Frames in their own size at indices that rise strictly and lie within the video."""

    @abstractmethod
    def close(self) -> None:
        """Let the file go; the reader is of no use afterwards."""

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        """The frames at `indices`, which may repeat and come in any order: uint8 (T, H, W, 3), RGB, upright.

        Raises IndexError for an index outside 0..len - 1, VideoError where a frame cannot be decoded.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.ndim != 1 or not len(wanted):
            raise IndexError(f"{self.path}: expected a list of frame indices, not {indices!r}")
        if wanted.min() < 0 or wanted.max() >= len(self):
            outside = wanted.min() if wanted.min() < 0 else wanted.max()
            raise IndexError(f"{self.path}: frame {outside} is outside the video's 0 to {len(self) - 1}")
        rising, places = np.unique(wanted, return_inverse=True)
        read = self._in_size(rising.tolist())
        return read if len(rising) == len(wanted) and (places[1:] > places[:-1]).all() else read[places]

    def _in_size(self, indices: list[int]) -> Frames:
        step = len(indices) if self.short_side is None else _PIECE
        pieces = []
        for start in range(0, len(indices), step):
            read = self._read(indices[start : start + step])
            if self.full_size is None:
                self.full_size = (read.shape[1], read.shape[2])
            pieces.append(read if self.short_side is None else shrunk(read, self.short_side))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def shrunk(frames: Frames, short_side: int) -> Frames:
    """(T, H, W, 3) -> (T, h, w, 3) with min(h, w) = min(H, W, short_side) and the same proportions.

    The interpolation, and the rounding of the long side, are those of the transforms: bilinear, antialiased, for every
    decoder alike. The libraries' own scalers agree neither with it nor with each other to 40 dB, and are no faster.
    """
    height, width = frames.shape[1:3]
    if min(height, width) <= short_side:
        return frames
    import torch

    from bench.data.transforms import resized, size_for

    whole = torch.from_numpy(frames).permute(0, 3, 1, 2)
    small = resized(whole, size_for(height, width, short_side))
    return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())


def first_words(error: BaseException) -> str:
    """The first line of an error's text that says something, without time stamps and the libraries' source lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return re.sub(r"^(\[[\d:]+\] \S+:\d+: (Check failed: )?|\w+, \S+\.cpp:\d+, )", "", first)
