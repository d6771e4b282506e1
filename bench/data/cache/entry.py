"""The file of a cached video: its frames one after the other, then what they are.

    frame 0 | frame 1 | ... | length of each frame (uint32) | description (JSON) | its length, its CRC-32, a mark

What a file is stands at its end, so that frames are written as they are decoded, and a file whose writing was cut
short lacks it. Frames are read by their place in the file and not mapped into memory: a mapping holds a file open, of
which a process may have a thousand, and a file that is cut meanwhile would end the process.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bench.data.cache.codec import Codec
from bench.data.cache.source import CacheKey, library_version
from bench.data.decode.base import Frames, VideoError, VideoReader

# Goes up with the layout, and with every change of what the frames of a video look like: how they are resized.
VERSION = 2

_MARK = b"aimframe"
_END = struct.Struct("<II8s")
_AT_ONCE = 2**17  # bytes read from a file's end on opening it: all of a small video, and no slower for large ones


def write(
    file: BinaryIO, source: CacheKey, frames: Iterable[Frames], full: tuple[int, int], decoder: str, codec: Codec
) -> None:
    """Write a whole entry.

    Args:
        frames: pieces of the video, each uint8 (T, H, W, 3), from the first frame to the last.
        full: height and width of the frames before they were made smaller.
        decoder: the library that decodes them.
    """
    lengths: list[int] = []
    shape: tuple[int, ...] = ()
    for piece in frames:
        shape = piece.shape[1:]
        for frame in piece:
            packed = codec.pack(frame)
            lengths.append(len(packed))
            file.write(packed)
    told = _described(source, (len(lengths), *shape), full, sum(lengths), decoder, codec)
    file.write(np.array(lengths, "<u4").tobytes() + told + _END.pack(len(told), zlib.crc32(told), _MARK))


def size(
    source: CacheKey, shape: tuple[int, ...], full: tuple[int, int], packed: int, decoder: str, codec: Codec
) -> int:
    """Bytes of an entry whose frames, (T, H, W, 3), take `packed` bytes."""
    return packed + 4 * shape[0] + len(_described(source, shape, full, packed, decoder, codec)) + _END.size


def _described(
    source: CacheKey, shape: tuple[int, ...], full: tuple[int, int], packed: int, decoder: str, codec: Codec
) -> bytes:
    return json.dumps({**_identity(source, codec, decoder), "shape": shape, "full": full, "bytes": packed}).encode()


def _identity(source: CacheKey, codec: Codec, decoder: str) -> dict[str, Any]:
    return {
        "version": VERSION,
        "path": source.path,
        "size": source.size,
        "mtime_ns": source.mtime_ns,
        "asked": source.decoder,
        "short_side": source.short_side,
        "format": codec.name,
        "decoder": decoder,
        "library": library_version(decoder),
    }


def read(path: str, source: CacheKey, codec: Codec) -> Entry | None:
    """The cached video; None where the file is missing, damaged, or of another video or version."""
    try:
        file = FileIO(path)
    except OSError:
        return None
    try:
        entry = _opened(file, source, codec)
    except (OSError, ValueError, KeyError, TypeError, struct.error):  # whatever stands there is not ours
        entry = None
    if entry is None or entry.at_hand:
        file.close()
    return entry


def _opened(file: FileIO, source: CacheKey, codec: Codec) -> Entry | None:
    length = file.seek(0, os.SEEK_END)

    def last(count: int) -> bytes:
        file.seek(max(0, length - count))
        return file.read(count)

    end = last(_AT_ONCE)
    told, crc, mark = _END.unpack(end[-_END.size :])
    if mark != _MARK:
        return None
    if told + _END.size > len(end):
        end = last(told + _END.size)
    text = end[-_END.size - told : -_END.size]
    if zlib.crc32(text) != crc:
        return None
    description: dict[str, Any] = json.loads(text)
    count, *shape = description["shape"]
    height, width = description["full"]
    whole = description["bytes"] + 4 * count + told + _END.size == length
    decoder = description["decoder"]
    if not whole or any(description.get(name) != value for name, value in _identity(source, codec, decoder).items()):
        return None
    behind = 4 * count + told + _END.size  # the frames
    if behind > len(end):
        end = last(behind)
    ends = np.cumsum(np.frombuffer(end[-behind:], "<u4", count), dtype=np.int64)
    at = length - len(end)
    return Entry(Path(source.path), decoder, file, end, at, ends.tolist(), tuple(shape), (height, width), codec)


class Entry(VideoReader):
    """A cached video, read from its file.

    Args:
        path: of the video.
        decoder: the library that decoded it.
        file: opened.
        end: of the file, read already.
        end_at: the place in the file at which that begins.
        ends: the place at which each frame ends.
        shape: of a frame.
        full: height and width of a frame before it was made smaller.
    """

    def __init__(
        self,
        path: Path,
        decoder: Any,
        file: FileIO,
        end: bytes,
        end_at: int,
        ends: list[int],
        shape: tuple[int, ...],
        full: tuple[int, int],
        codec: Codec,
    ) -> None:
        super().__init__(path)
        self.full_size = full
        self.decoder = decoder
        self._file = file
        self._end = end
        self._end_at = end_at
        self._ends = ends
        self._shape = shape
        self._codec = codec

    @property
    def at_hand(self) -> bool:
        """True once all of the file has been read: it is closed, and the reader may be used again and by others."""
        return self._end_at == 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return len(self._end)

    def __len__(self) -> int:
        return len(self._ends)

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        wanted = np.asarray(indices).tolist()
        if wanted and min(wanted) >= 0 and max(wanted) < len(self):
            return self._read(wanted)  # in any order: here none is faster than another
        return super().frames(indices)  # which says what is wrong

    def _read(self, indices: list[int]) -> Frames:
        frames = np.empty((len(indices), *self._shape), np.uint8)
        try:
            for place, index in enumerate(indices):
                packed = self._bytes(self._ends[index - 1] if index else 0, self._ends[index])
                frames[place] = self._codec.unpack(packed, self._shape)
        except (OSError, ValueError) as error:  # the disk fails, or someone wrote into the file
            raise VideoError(self.path, f"its decoded frames in the cache, {self._file.name}, are damaged") from error
        return frames

    def _bytes(self, start: int, stop: int) -> bytes:
        if start >= self._end_at:
            return self._end[start - self._end_at : stop - self._end_at]
        self._file.seek(start)
        return self._file.read(stop - start)

    def close(self) -> None:
        self._file.close()
