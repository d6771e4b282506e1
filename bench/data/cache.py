"""Keeps small videos decoded in memory, so that the cells of a matrix decode each of them once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.decode.base import Frames, VideoError, VideoReader
from bench.data.decode.names import Decoder
from bench.data.decode.open import open_video

_SMALL = 16 * 2**20  # bytes of a decoded video up to which it is kept: a whole Kinetics video has a hundred million

# path, decoder asked for, short side, size in bytes, time of the last change in ns
_Key = tuple[str, str, int | None, int, int]


class _InMemory(VideoReader):
    """A video whose frames are all decoded: (T, H, W, 3)."""

    def __init__(self, path: Path, decoder: Any, frames: Frames) -> None:
        super().__init__(path)
        self.decoder = decoder
        self._frames = frames

    @property
    def nbytes(self) -> int:
        return self._frames.nbytes

    def __len__(self) -> int:
        return len(self._frames)

    def _read(self, indices: list[int]) -> Frames:
        return self.frames(indices)

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        if np.min(indices, initial=0) < 0:  # numpy would count from the end; it checks the other end itself
            raise IndexError(f"{self.path}: frame {np.min(indices)} is outside the video's 0 to {len(self) - 1}")
        chosen: Frames = self._frames[np.asarray(indices)]
        return chosen

    def close(self) -> None:
        pass  # others may be reading it


class FrameCache:
    """Whole decoded videos by path, decoder, size and time of change; the least recently used goes first.

    Worker processes each have their own. A copy that is sent to one starts empty.

    Args:
        limit_bytes: of all frames together; 0 keeps nothing.
        largest: bytes of one decoded video above which it is not kept and only the frames asked for are decoded.
    """

    def __init__(self, limit_bytes: int, largest: int = _SMALL) -> None:
        if limit_bytes < 0:
            raise ValueError(f"the cache's limit is {limit_bytes} bytes: expected 0 (off) or more")
        self.limit_bytes = limit_bytes
        self.largest = largest
        self.used_bytes = 0
        self._videos: OrderedDict[_Key, _InMemory] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, int]:
        return {"limit_bytes": self.limit_bytes, "largest": self.largest}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._videos)

    def open(self, path: Path, decoder: Decoder = "auto", short_side: int | None = None) -> VideoReader:
        """The video, from memory where it lies there, else as `open_video`, whose errors it raises."""
        if not self.limit_bytes:
            return open_video(path, decoder, short_side)
        try:
            stat = path.stat()
        except OSError:
            return open_video(path, decoder, short_side)  # which says what is wrong
        key = (str(path), decoder, short_side, stat.st_size, stat.st_mtime_ns)
        with self._lock:
            kept = self._videos.get(key)
            if kept is not None:
                self._videos.move_to_end(key)
                return kept
        reader = open_video(path, decoder, short_side)
        bound = min(self.largest, self.limit_bytes)
        # a decoded video is never smaller than its file
        if stat.st_size > bound:
            return reader
        try:
            first = reader.frames([0])
            if first.nbytes * len(reader) > bound:
                return reader
            rest = [reader.frames(np.arange(1, len(reader)))] if len(reader) > 1 else []  # going back would be a jump
            whole = _InMemory(path, reader.decoder, np.concatenate([first, *rest]))
        except VideoError:
            return reader  # broken somewhere; the frames that the clip needs may still be there, as without a cache
        reader.close()
        self._keep(key, whole)
        return whole

    def _keep(self, key: _Key, video: _InMemory) -> None:
        with self._lock:
            if key not in self._videos:
                self._videos[key] = video
                self.used_bytes += video.nbytes
            while self.used_bytes > self.limit_bytes:
                _, gone = self._videos.popitem(last=False)
                self.used_bytes -= gone.nbytes

    def clear(self) -> None:
        """Forget every video."""
        with self._lock:
            self._videos.clear()
            self.used_bytes = 0
