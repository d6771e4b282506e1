"""Entry of a cached video: its key, the formats of its frames, and its file.

    frame 0 | frame 1 | ... | length of each frame (uint32) | description (JSON) | its length, its CRC-32, a mark

The description is at the end, so that frames are written as they are decoded, and a file whose writing was cut
short lacks it. Frames are read by their place in the file and not mapped into memory: a mapping holds a file open, of
which a process may have a thousand, and a file that is cut meanwhile would end the process.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data.decode.base import Frames, VideoError, VideoReader
from bench.spec.fields import Decoder

# Goes up with the layout, and with every change of what the frames of a video look like: how they are resized.
VERSION = 2

_MARK = b"aimframe"
_END = struct.Struct("<II8s")
_AT_ONCE = 2**17  # bytes read from a file's end on opening it: all of a small video, and no slower for large ones


def write(
    file: BinaryIO, key: CacheKey, frames: Iterable[Frames], full: tuple[int, int], decoder: str, codec: Codec
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
    told = _described(key, (len(lengths), *shape), full, sum(lengths), decoder, codec)
    file.write(np.array(lengths, "<u4").tobytes() + told + _END.pack(len(told), zlib.crc32(told), _MARK))


def size(key: CacheKey, shape: tuple[int, ...], full: tuple[int, int], packed: int, decoder: str, codec: Codec) -> int:
    """Bytes of an entry whose frames, (T, H, W, 3), take `packed` bytes."""
    return packed + 4 * shape[0] + len(_described(key, shape, full, packed, decoder, codec)) + _END.size


def _described(
    key: CacheKey, shape: tuple[int, ...], full: tuple[int, int], packed: int, decoder: str, codec: Codec
) -> bytes:
    return json.dumps({**_identity(key, codec, decoder), "shape": shape, "full": full, "bytes": packed}).encode()


def _identity(key: CacheKey, codec: Codec, decoder: str) -> dict[str, Any]:
    return {
        "version": VERSION,
        "path": key.path,
        "size": key.size,
        "mtime_ns": key.mtime_ns,
        "asked": key.decoder,
        "short_side": key.short_side,
        "format": codec.name,
        "decoder": decoder,
        "library": library_version(decoder),
    }


def read(path: str, key: CacheKey, codec: Codec) -> Entry | None:
    """The cached video; None where the file is missing, damaged, or of another video or version."""
    try:
        file = FileIO(path)
    except OSError:
        return None
    try:
        entry = _opened(file, key, codec)
    except (OSError, ValueError, KeyError, TypeError, struct.error):  # whatever stands there is not ours
        entry = None
    if entry is None or entry.in_memory:
        file.close()
    return entry


def _opened(file: FileIO, key: CacheKey, codec: Codec) -> Entry | None:
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
    if not whole or any(description.get(name) != value for name, value in _identity(key, codec, decoder).items()):
        return None
    behind = 4 * count + told + _END.size  # the frames
    if behind > len(end):
        end = last(behind)
    ends = np.cumsum(np.frombuffer(end[-behind:], "<u4", count), dtype=np.int64)
    at = length - len(end)
    return Entry(Path(key.path), decoder, file, end, at, ends.tolist(), tuple(shape), (height, width), codec)


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
    def in_memory(self) -> bool:
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


_PACKAGES = {"decord": "decord", "pyav": "av"}


@dataclass(frozen=True, slots=True)
class CacheKey:
    """A video file as it is now, and how its frames are asked for.

    Attributes:
        path: absolute.
        decoder: as asked for, "auto" among them.
        short_side: pixels that the frames' shorter side has at most; None for the frames as they are.
        size, mtime_ns: of the file. Another size or time is another video.
    """

    path: str
    decoder: Decoder
    short_side: int | None
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, decoder: Decoder, short_side: int | None) -> CacheKey:
        """Return the key. Raises OSError where the file is missing, or is a folder of pictures, which need no cache."""
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return cls(os.path.abspath(path), decoder, short_side, found.st_size, found.st_mtime_ns)

    @property
    def name(self) -> str:
        """The name of its entry. Not of size and time: what was kept of a file that has changed is replaced."""
        return f"{name_of(self.path)}.{self.decoder}-{self.short_side or 'full'}"


def name_of(path: str | Path) -> str:
    """Return the prefix of the names of a video's entries: 32 hexadecimal digits."""
    return hashlib.sha256(os.path.abspath(path).encode(errors="surrogateescape")).hexdigest()[:32]


@cache
def library_version(decoder: str) -> str:
    """The version of the library that decodes: another version may decode other pixels. Empty where it is missing."""
    try:
        return version(_PACKAGES.get(decoder, decoder))
    except PackageNotFoundError:
        return ""


Format = Literal["raw", "jpeg"]

# Loses less than the videos' own codecs do. Colours at half the resolution, as nearly every video has them.
QUALITY = 95
_SUBSAMPLING = "4:2:0"


class Codec(Protocol):
    """Format of a frame: uint8 (H, W, 3) to bytes and back."""

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


class Recompressed(VideoReader):
    """Reader whose frames pass through a codec, as those do that a cache returns: for videos it has no room for."""

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
