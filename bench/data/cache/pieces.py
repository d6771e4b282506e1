"""A whole video, decoded piece by piece: none has to fit the memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.data.decode.base import Frames, VideoError, VideoReader

_PIECE = 32 * 2**20  # bytes of decoded frames at once


def pieces(reader: VideoReader) -> Iterator[Frames]:
    """The frames from first to last, uint8 (T, H, W, 3) a piece; the first piece is one frame alone.

    Raises VideoError where a frame cannot be decoded, where frames differ in size, and where one library decodes the
    beginning and another the rest: a clip would not be read like that.
    """
    first = reader.frames([0])
    yield first
    decoder, count = reader.decoder, max(1, _PIECE // first.nbytes)
    for start in range(1, len(reader), count):
        piece = reader.frames(np.arange(start, min(start + count, len(reader))))
        if piece.shape[1:] != first.shape[1:] or reader.decoder != decoder:
            raise VideoError(reader.path, "its frames differ in size or in what decodes them")
        yield piece
