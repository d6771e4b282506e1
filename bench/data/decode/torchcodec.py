"""Frames by torchcodec, which brings no FFmpeg of its own and is used only where it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.data.decode.base import Frames, VideoError, VideoReader, first_words
from bench.data.decode.index import glance
from bench.text import counted


def check_libraries() -> None:
    """Raise ImportError, its message half a sentence, where torchcodec is there and its FFmpeg is not."""
    from torchcodec.decoders import VideoDecoder

    try:
        VideoDecoder(b"")  # what it says of an empty video, it says after it has loaded FFmpeg
    except Exception as error:
        if "load libtorchcodec" in str(error):
            raise ImportError(
                "it finds no FFmpeg libraries that it can load (FFmpeg is missing, or torchcodec is not of torch's "
                "version)"
            ) from error


class TorchcodecReader(VideoReader):
    """A video read with one thread: the processes that decode run side by side.

    Raises VideoError where torchcodec cannot open the file, or it is cut short.
    """

    decoder = "torchcodec"

    def __init__(self, path: Path, short_side: int | None = None) -> None:
        super().__init__(path, short_side)
        from torchcodec.decoders import VideoDecoder

        shown, _ = glance(path)
        try:
            # exact: every frame's time is read first; what the headers promise is not relied on
            self._video: Any = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
            self._length = int(self._video.metadata.num_frames or 0)
        except Exception as error:  # RuntimeError, ValueError and others, with a C++ traceback as their text
            raise VideoError(path, f"torchcodec cannot open it as a video ({first_words(error)})") from error
        if not self._length or shown not in (0, self._length):
            raise VideoError(path, f"torchcodec finds {counted(self._length, 'frame')} in it where {shown} are shown")

    def __len__(self) -> int:
        return self._length

    def _read(self, indices: list[int]) -> Frames:
        try:
            batch: Frames = self._video.get_frames_at(indices).data.numpy()
        except Exception as error:  # as above
            raise VideoError(self.path, f"torchcodec cannot decode its frames ({first_words(error)})") from error
        return batch

    def close(self) -> None:
        self._video = None
