"""Frames by PyAV, which reads about everything: each is told by its time, so a jump cannot land beside it unseen."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.decode.base import Frames, VideoError, VideoReader, first_words
from bench.data.decode.index import read_index

_NEAR = 16  # frames up to which decoding on is cheaper than a jump


class PyavReader(VideoReader):
    """A video read with one thread: the processes that decode run side by side.

    Where a file has no times, its frames are counted from the start on instead.

    Raises VideoError where the file is not a video, or cut short.
    """

    decoder = "pyav"

    def __init__(self, path: Path, short_side: int | None = None) -> None:
        super().__init__(path, short_side)
        import av

        self._av: Any = av
        self._container: Any = None
        try:
            self._open()
            index = read_index(path, self._container)
            self._times = index.times
            # (time, how many frames are shown before it) of each frame that decoding can start at
            self._keys = [(time, bisect_left(index.times, time)) for time in index.keys]
            self._place = {time: place for place, time in enumerate(index.times)}
            self._length = len(index.times) or self._count()
            self._start()
        except av.FFmpegError as error:
            self.close()
            raise VideoError(path, f"PyAV cannot open it as a video ({first_words(error)})") from error
        except VideoError:
            self.close()
            raise
        if not self._length:
            raise VideoError(path, "PyAV finds no frame in it")

    def _open(self) -> None:
        self.close()
        self._container = self._av.open(str(self.path))
        if self._container.streams.video:
            context = self._container.streams.video[0].codec_context
            context.thread_count = 1
            self._size = (context.width, context.height)
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._last: int | None = None  # the last frame that is wanted, and all of those, by their times
        self._wanted: set[int] = set()

    def _count(self) -> int:
        """Count the frames that come when all of them are decoded."""
        self._open()
        return sum(1 for _ in self._container.decode(video=0))

    def _start(self) -> None:
        """Stand before the first frame."""
        if self._keys:
            self._seek(*self._keys[0])
        else:
            self._rewind()

    def _rewind(self) -> None:
        """Open the file anew: the way back to the start that never fails."""
        self._open()
        self._decoded = self._decode()
        self._next = 0  # the place of the frame that comes next

    def _seek(self, time: int, place: int) -> None:
        stream = self._container.streams.video[0]
        self._container.seek(time, stream=stream, backward=True)
        self._decoded = self._decode()
        self._next = place

    def _decode(self) -> Iterator[Any]:
        """Frames from here on, without those on which no other leans and which are passed over on the way."""
        stream = self._container.streams.video[0]
        context = stream.codec_context
        for packet in self._container.demux(stream):
            timed = self._last is not None and packet.pts is not None
            passed = timed and packet.pts < self._last and packet.pts not in self._wanted
            context.skip_frame = "NONREF" if passed else "DEFAULT"
            yield from packet.decode()

    def _forward(self, place: int) -> Any:
        """Decode up to the frame at `place`; None where it has gone by or the video ends before it."""
        for frame in self._decoded:
            here = self._place.get(frame.pts, -1) if self._place else self._next
            if here < 0:
                continue
            self._next = here + 1
            if here >= place:
                return frame if here == place else None
        return None

    def _jump(self, place: int) -> None:
        """Go to the last key frame at or before the frame at `place`, unless that is near or behind."""
        if not self._keys:
            return
        before = bisect_right(self._keys, (self._times[place], len(self._times))) - 1
        time, first = self._keys[max(before, 0)]
        if first > self._next + _NEAR:
            self._seek(time, first)

    def __len__(self) -> int:
        return self._length

    def _read(self, indices: list[int]) -> Frames:
        pictures = []
        try:
            if indices[0] < self._next:
                self._rewind()
            if self._keys:
                self._last, self._wanted = self._times[indices[-1]], {self._times[i] for i in indices}
            for place in indices:
                self._jump(place)
                frame = self._forward(place)
                if frame is None:  # a jump that landed behind its mark: from the start, every frame comes by
                    self._rewind()
                    frame = self._forward(place)
                if frame is None:
                    raise VideoError(self.path, f"PyAV cannot decode frame {place} of {self._length}")
                pictures.append(self._picture(frame))
        except self._av.FFmpegError as error:
            raise VideoError(self.path, f"PyAV cannot decode its frames ({first_words(error)})") from error
        return np.stack(pictures)

    def _picture(self, frame: Any) -> Frames:
        """(H, W, 3), upright, and in the video's size where that changes on the way."""
        width, height = self._size
        converted = self._reformatter.reformat(frame, width=width, height=height, format="rgb24")
        picture: Frames = converted.to_ndarray()
        turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counter-clockwise, as numpy turns
        return np.rot90(picture, turns) if turns else picture

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
