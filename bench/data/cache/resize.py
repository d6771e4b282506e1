"""A video whose frames are resized as they are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.data.decode import Decoder, Frames, VideoReader, open_video


def open_resized(path: Path, decoder: Decoder, short_side: int | None) -> VideoReader:
    """`open_video`, its frames made smaller where their shorter side exceeds `short_side` pixels."""
    reader = open_video(path, decoder)
    return reader if short_side is None else _Resized(reader, short_side)


class _Resized(VideoReader):
    def __init__(self, reader: VideoReader, short_side: int) -> None:
        self._reader = reader
        self._short_side = short_side
        self.path = reader.path

    @property
    def decoder(self) -> Any:  # type: ignore[override]  # it may change with the frames that are read
        return self._reader.decoder

    def __len__(self) -> int:
        return len(self._reader)

    def _read(self, indices: list[int]) -> Frames:
        return _resized(self._reader.frames(indices), self._short_side)

    def close(self) -> None:
        self._reader.close()


def _resized(frames: Frames, short_side: int) -> Frames:
    """(T, H, W, 3) -> (T, h, w, 3) with min(h, w) = min(H, W, short_side): bilinear, antialiased."""
    from PIL import Image

    height, width = frames.shape[1:3]
    if min(height, width) <= short_side:
        return frames
    factor = short_side / min(height, width)
    size = (round(width * factor), round(height * factor))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)) for frame in frames])
