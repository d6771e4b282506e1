"""Frames by decord. Its last release, 0.6, is from 2021: files that it would misread are refused here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.data.decode.base import Frames, VideoError, VideoReader, first_words
from bench.data.decode.index import glance
from bench.text import counted


class DecordReader(VideoReader):
    """A video read with one thread: the processes that decode run side by side.

    Raises VideoError where the file is not a video, is cut short, or where decord would misread it.
    """

    decoder = "decord"

    def __init__(self, path: Path, short_side: int | None = None) -> None:
        super().__init__(path, short_side)
        shown, reason = glance(path)
        if reason:
            raise VideoError(path, f"decord would misread it: {reason}; expected the decoder auto or pyav")
        import decord

        decord.logging.set_level(decord.logging.QUIET)  # a broken video is reported once, by us
        try:
            self._video: Any = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
            self._length = len(self._video)
        except Exception as error:  # decord raises RuntimeError and DECORDError with a C++ traceback as its text
            raise VideoError(path, f"decord cannot open it as a video ({first_words(error)})") from error
        if self._length != shown:
            raise VideoError(
                path, f"decord would misread it: it finds {counted(self._length, 'frame')} where {shown} are shown"
            )

    def __len__(self) -> int:
        return self._length

    def _read(self, indices: list[int]) -> Frames:
        try:
            batch: Frames = self._video.get_batch(indices).asnumpy()
        except Exception as error:  # as above
            raise VideoError(self.path, f"decord cannot decode its frames ({first_words(error)})") from error
        return batch

    def close(self) -> None:
        self._video = None
