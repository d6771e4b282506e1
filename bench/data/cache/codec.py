"""Formats of a cached frame: as it is, or as a JPEG picture."""

from __future__ import annotations

import io
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data.decode.base import Frames, VideoReader

Format = Literal["raw", "jpeg"]

# Loses less than the videos' own codecs do. Colours at half the resolution, as nearly every video has them.
QUALITY = 95
_SUBSAMPLING = "4:2:0"


class Codec(Protocol):
    """Turns one frame, uint8 (H, W, 3), into bytes and back."""

    name: Format

    def pack(self, frame: Frames) -> bytes: ...

    def unpack(self, packed: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The frame of that shape. Raises OSError or ValueError where the bytes are not such a frame."""
        ...


class Raw:
    """The frame's own bytes: lossless, and the fastest to read."""

    name: Format = "raw"

    def pack(self, frame: Frames) -> bytes:
        return frame.tobytes()

    def unpack(self, packed: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        return np.frombuffer(packed, np.uint8).reshape(shape)


class Jpeg:
    """A JPEG picture of quality 95: some 7 to 20 times smaller, and not quite the same pixels."""

    name: Format = "jpeg"

    def pack(self, frame: Frames) -> bytes:
        from PIL import Image

        picture = io.BytesIO()
        Image.fromarray(frame).save(picture, "JPEG", quality=QUALITY, subsampling=_SUBSAMPLING)
        return picture.getvalue()

    def unpack(self, packed: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        from PIL import Image

        with Image.open(io.BytesIO(packed), formats=("JPEG",)) as picture:
            return np.asarray(picture).reshape(shape)


CODECS: dict[Format, Codec] = {"raw": Raw(), "jpeg": Jpeg()}

# what the results of cells must say whose frames were not kept as they are
FOOTNOTES: dict[Format, str] = {"jpeg": f"frames from a JPEG cache, quality {QUALITY}"}


class Through(VideoReader):
    """A video whose frames went through a codec: what a cache would return that had no room for it."""

    def __init__(self, reader: VideoReader, codec: Codec) -> None:
        super().__init__(reader.path)
        self._reader = reader
        self._codec = codec

    @property
    def decoder(self) -> Any:  # type: ignore[override]  # it may change with the frames that are read
        return self._reader.decoder

    def __len__(self) -> int:
        return len(self._reader)

    def _read(self, indices: list[int]) -> Frames:
        frames = self._reader.frames(indices)
        self.full_size = self._reader.full_size
        return np.stack([self._codec.unpack(self._codec.pack(frame), frame.shape) for frame in frames])

    def close(self) -> None:
        self._reader.close()
