"""Cached frames in this process's own memory, for systems without a file system in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any

import numpy as np

from bench.data.cache.entry import CODECS, CacheKey, Codec, Format, pieces
from bench.data.decode.base import Frames, VideoReader


class _InMemory(VideoReader):
    """A video's frames, each packed."""

    def __init__(self, reader: VideoReader, packed: list[bytes], shape: tuple[int, ...], codec: Codec) -> None:
        super().__init__(reader.path)
        self.decoder = reader.decoder
        self.full_size = reader.full_size
        self._packed = packed
        self._shape = shape
        self._codec = codec

    def __len__(self) -> int:
        return len(self._packed)

    def _read(self, indices: list[int]) -> Frames:
        return np.stack([self._codec.unpack(self._packed[index], self._shape) for index in indices])

    def close(self) -> None:
        pass  # others may be reading it


class MemoryStore:
    """Keeps videos until the limit is reached; a copy that is sent to another process starts empty.

    Args:
        limit_bytes: of the frames that one process keeps.
        format: how they are kept.
    """

    def __init__(self, limit_bytes: int, format: Format = "raw") -> None:
        self.limit_bytes = limit_bytes
        self.format: Format = format
        self.used_bytes = 0
        self._videos: dict[str, tuple[CacheKey, _InMemory]] = {}
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"limit_bytes": self.limit_bytes, "format": self.format}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def find(self, source: CacheKey) -> VideoReader | None:
        known, video = self._videos.get(source.name, (None, None))
        return video if known == source else None

    def has_room(self, source: CacheKey) -> bool:
        return self.used_bytes < self.limit_bytes

    def turn(self, source: CacheKey) -> AbstractContextManager[None]:
        return nullcontext()

    def keep(self, source: CacheKey, reader: VideoReader) -> bool:
        """Decode the whole video and keep it; False where there is no room. Raises VideoError."""
        codec = CODECS[self.format]
        decoded: Iterator[Frames] = pieces(reader)
        first = next(decoded)
        shape = first.shape[1:]
        packed = [codec.pack(first[0])]
        if self.used_bytes + len(packed[0]) * len(reader) > self.limit_bytes:
            return False
        packed += [codec.pack(frame) for piece in decoded for frame in piece]
        size = sum(map(len, packed))
        with self._lock:
            replaced = self._videos.pop(source.name, None)
            if replaced is not None:
                self.used_bytes -= sum(map(len, replaced[1]._packed))
            if self.used_bytes + size > self.limit_bytes:
                return False
            self._videos[source.name] = (source, _InMemory(reader, packed, shape, codec))
            self.used_bytes += size
        return True

    def notes(self) -> list[str]:
        return []
