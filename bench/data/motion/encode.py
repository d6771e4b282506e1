"""H.264 files in which no frame depends on another, written side by side.

A codec that predicts one frame from those before it would leave its errors in the direction of time, and a model could
read the direction from them. Here every frame is a key frame of constant quantisation, so that encoding the frames
backwards gives the same pictures backwards, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import DataError, Progress
from bench.data.motion.scenes import Scene, render_clip

# No frame but IDR frames (keyint, bframes); nothing that weighs one frame against others (aq-mode, mbtree, scenecut,
# lookahead); the quantiser as given for I frames too (ipratio); one thread, as the callers run several encoders.
_X264 = "keyint=1:bframes=0:aq-mode=0:mbtree=0:scenecut=0:rc-lookahead=0:sync-lookahead=0:ipratio=1:threads=1"

# RGB -> YCbCr after ITU-R BT.601 in studio range, which decoders assume of small pictures
_YUV = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float32) / 255
_OFFSET = np.array([[16], [128], [128]], np.float32)


def write_h264(path: Path, frames: NDArray[np.uint8], fps: int, qp: int) -> None:
    """Write `frames`, (T, H, W, 3) RGB, as an all-intra mp4 file with full chroma (4:4:4).

    Args:
        qp: H.264 quantiser, 0 (lossless) to 51.

    Raises OSError or av.FFmpegError where the file cannot be written.
    """
    import av

    count, height, width = frames.shape[:3]
    # one product for all the frames: the library's own conversion starts anew for each
    planes = _YUV @ frames.reshape(-1, 3).T.astype(np.float32) + _OFFSET
    pictures = np.rint(planes).astype(np.uint8).reshape(3, count, height, width).transpose(1, 0, 2, 3)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"preset": "veryfast", "qp": str(qp), "x264-params": _X264}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        stream.codec_context.thread_count = 1
        for picture in np.ascontiguousarray(pictures):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv444p")))
        container.mux(stream.encode())


_WORTH_A_PROCESS = 200  # videos; fewer are rendered before a process has started
_MOST = 8
_PATIENCE = 60.0  # seconds for a video, which takes some milliseconds


@dataclass(frozen=True)
class VideoSpec:
    """One video to render: where to, of which class, and the numbers its random generator starts from."""

    path: Path
    class_name: str
    seed: tuple[int, ...]


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def _render(scene: Scene, fps: int, qp: int, video: VideoSpec) -> None:
    write_h264(video.path, render_clip(video.class_name, np.random.default_rng(video.seed), scene), fps, qp)


def render_videos(
    videos: Sequence[VideoSpec],
    scene: Scene,
    fps: int,
    qp: int,
    progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Render every video. What is drawn does not depend on the number of workers.

    Threads would not do, as the work is many small steps between which they wait for each other.

    Args:
        workers: processes to use; None for as many as the cores and the number of videos call for.

    Raises OSError or av.FFmpegError where a file cannot be written, DataError with a worker's words where it failed.
    """
    if workers is None:
        workers = min(_cores(), _MOST, len(videos) // _WORTH_A_PROCESS)
    render = partial(_render, scene, fps, qp)
    if workers <= 1:
        for done, video in enumerate(videos, start=1):
            render(video)
            if progress:
                progress(done, len(videos))
        return
    from bench.data.decode_pool import run_isolated

    for done, (_, outcome) in enumerate(run_isolated(render, videos, workers, _PATIENCE), start=1):
        if isinstance(outcome, Exception):
            raise DataError(f"rendering failed: {outcome}")
        if progress:
            progress(done, len(videos))
