"""Frames out of video files: decord where it can, PyAV elsewhere.

decord is the faster of the two, but its last release is from 2021 and not every system has it. PyAV reads what decord
cannot. Which of the two read a video is told by `VideoReader.decoder`, for the result to record.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.base import DataError

Decoder = Literal["auto", "decord", "pyav"]
Frames = NDArray[np.uint8]


class VideoError(DataError):
    """A video that cannot be read: `path` and, in a sentence, the `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)  # both, so that the error survives the way out of a worker process
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class VideoReader(ABC):
    """One opened video. `len` is its number of frames; `decoder` names the library that reads it."""

    decoder: Literal["decord", "pyav"]
    path: Path

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _read(self, indices: list[int]) -> Frames:
        """Frames at indices that rise strictly and lie within the video."""

    @abstractmethod
    def close(self) -> None:
        """Let the file go; the reader is of no use afterwards."""

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        """The frames at `indices`, which may repeat and come in any order: uint8 (T, H, W, 3), RGB.

        Raises IndexError for an index outside 0..len - 1, VideoError where a frame cannot be decoded.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.ndim != 1 or not len(wanted):
            raise IndexError(f"{self.path}: expected a list of frame indices, not {indices!r}")
        if wanted.min() < 0 or wanted.max() >= len(self):
            outside = wanted.min() if wanted.min() < 0 else wanted.max()
            raise IndexError(f"{self.path}: frame {outside} is outside the video's 0 to {len(self) - 1}")
        rising, places = np.unique(wanted, return_inverse=True)
        read = self._read(rising.tolist())
        return read if len(rising) == len(wanted) and (places[1:] > places[:-1]).all() else read[places]


@cache
def _import(name: str) -> Any:
    """The module, or None where it or the libraries it loads are missing."""
    try:
        module = import_module(name)
    except (ImportError, OSError):
        return None
    if name == "decord":
        module.logging.set_level(module.logging.QUIET)  # a broken video is reported once, by us
    return module


def available_decoders() -> tuple[str, ...]:
    """The decoders that are installed, in the order in which "auto" tries them."""
    return tuple(name for name, module in (("decord", "decord"), ("pyav", "av")) if _import(module))


def open_video(path: Path, decoder: Decoder = "auto") -> VideoReader:
    """Open a video.

    Args:
        decoder: "decord" or "pyav" for that one alone; "auto" for decord, then PyAV where decord is not installed or
            cannot read the file. AVI files go to PyAV at once: after a jump in one with B-frames, decord 0.6 returns
            other frames than it was asked for, and says nothing.

    Raises VideoError where the file is missing, empty or no video, ValueError for an unknown decoder and DataError for
    one that is not installed.
    """
    if decoder not in ("auto", "decord", "pyav"):
        raise ValueError(f"unknown decoder {decoder!r}: expected 'auto', 'decord' or 'pyav'")
    installed = available_decoders()
    if not installed or decoder not in ("auto", *installed):
        name = "decord or PyAV" if decoder == "auto" else decoder
        raise DataError(
            f"no video can be read: {name} is not installed here (installed: {', '.join(installed) or 'none'})"
        )
    try:
        size = path.stat().st_size
    except OSError as error:
        raise VideoError(path, error.strerror or "the file cannot be read") from error
    if not path.is_file():
        raise VideoError(path, "not a file")
    if not size:
        raise VideoError(path, "the file is empty (0 bytes)")
    if decoder == "decord":
        return _Decord(path)
    if decoder == "pyav" or "decord" not in installed:
        return _Pyav(path)
    if "pyav" not in installed:
        return _Decord(path)
    if path.suffix.lower() == ".avi":
        return _Pyav(path)
    try:
        return _Either(path)
    except VideoError:
        return _Pyav(path)


class _Decord(VideoReader):
    """A video read by decord, with one thread: the loader's worker processes are what runs side by side."""

    decoder = "decord"

    def __init__(self, path: Path) -> None:
        self.path = path
        decord = _import("decord")
        try:
            self._video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
            self._length = len(self._video)
        except Exception as error:  # decord raises RuntimeError and DECORDError with a C++ traceback as its text
            raise VideoError(path, f"decord cannot open it as a video ({_last_words(error)})") from error
        if not self._length:
            raise VideoError(path, "decord finds no frame in it")

    def __len__(self) -> int:
        return self._length

    def _read(self, indices: list[int]) -> Frames:
        try:
            batch: Frames = self._video.get_batch(indices).asnumpy()
        except Exception as error:  # as above
            raise VideoError(self.path, f"decord cannot decode its frames ({_last_words(error)})") from error
        return batch

    def close(self) -> None:
        del self._video


class _Either(VideoReader):
    """A video that decord opens, read by PyAV from where decord fails on.

    decord cannot decode, among others, turned videos whose upright width is no multiple of 32.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: VideoReader = _Decord(path)
        self.decoder = "decord"

    def __len__(self) -> int:
        return len(self._reader)

    def _read(self, indices: list[int]) -> Frames:
        try:
            return self._reader._read(indices)
        except VideoError:
            if self.decoder == "pyav":
                raise
            other = _Pyav(self.path)
            if len(other) != len(self):  # the indices were chosen for another length
                raise
            self.close()
            self._reader, self.decoder = other, "pyav"
            return other._read(indices)

    def close(self) -> None:
        self._reader.close()


class _Pyav(VideoReader):
    """A video read by PyAV, frame-exact: every packet's time is read first, and a frame is told by its time.

    Where a file has no times, its frames are counted from the start on instead.
    """

    decoder = "pyav"
    _SKIP = 16  # frames up to which decoding on is cheaper than a jump

    def __init__(self, path: Path) -> None:
        self.path = path
        self._av = _import("av")
        self._container: Any = None
        try:
            self._index()
            self._rewind()
        except self._av.FFmpegError as error:
            raise VideoError(path, f"PyAV cannot open it as a video ({_last_words(error)})") from error
        if not self._length:
            raise VideoError(path, "PyAV finds no frame in it")

    def _index(self) -> None:
        """Read all the packets: how many frames there are, when each is shown, and which can be jumped to."""
        times: list[tuple[int | None, bool]] = []
        with self._av.open(str(self.path)) as container:
            if not container.streams.video:
                raise VideoError(self.path, "the file holds no video stream")
            timeless = container.format.name == "avi"  # it stores no times: PyAV makes them up, wrongly for B-frames
            for packet in container.demux(container.streams.video[0]):
                # what precedes the first key frame cannot be decoded; what the file's edit list cuts is not shown
                if packet.size and not packet.is_discard and (times or packet.is_keyframe):
                    times.append((packet.pts, packet.is_keyframe))
        known = sorted((time, key) for time, key in times if time is not None)
        self._times = [time for time, _ in known]
        self._place = {time: i for i, time in enumerate(self._times)}
        self._keys = [i for i, (_, key) in enumerate(known) if key]
        self._length = len(times)
        if timeless or len(self._place) < len(times):  # times that are missing or repeat tell nothing: count
            self._place, self._keys = {}, []
            with self._av.open(str(self.path)) as container:
                self._length = sum(1 for _ in container.decode(video=0))

    def _rewind(self) -> None:
        """Start anew before the first frame."""
        self.close()
        self._container = self._av.open(str(self.path))
        stream = self._container.streams.video[0]
        stream.codec_context.thread_count = 1
        self._decoded = self._container.decode(stream)
        self._next = 0  # the place of the frame that comes next, where times do not tell
        self._reformatter = self._av.video.reformatter.VideoReformatter()

    def _jump(self, place: int) -> None:
        """Go to the last key frame at or before `place`, unless that is near or behind."""
        key = max((k for k in self._keys if k <= place), default=0)
        if key <= self._next + self._SKIP:
            return
        stream = self._container.streams.video[0]
        self._container.seek(self._times[key], stream=stream, backward=True)
        self._decoded = self._container.decode(stream)
        self._next = key

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

    def __len__(self) -> int:
        return self._length

    def _read(self, indices: list[int]) -> Frames:
        pictures = []
        try:
            if indices[0] < self._next:
                self._rewind()
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
            raise VideoError(self.path, f"PyAV cannot decode its frames ({_last_words(error)})") from error
        return np.stack(pictures)

    def _picture(self, frame: Any) -> Frames:
        """(H, W, 3), upright."""
        picture: Frames = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counter-clockwise, as numpy turns
        return np.rot90(picture, turns) if turns else picture

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


def _last_words(error: Exception) -> str:
    """The first line of an error's text that says something, without decord's time stamps and source lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return re.sub(r"^\[[\d:]+\] \S+:\d+: (Check failed: )?", "", first)
