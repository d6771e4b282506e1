"""The embedded data set `motion`: ten classes that come in pairs, each the other played backwards.

It is rendered on first use into the user's cache folder as ordinary video files with ordinary lists, and read back the
way any other data set is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import SPLITS, DataError, Progress, Split, Video, VideoDataset, register_dataset
from bench.data.files import cache_root
from bench.data.lists import read_list, write_list
from bench.data.motion.render import CLASSES, Scene, render_clip
from bench.spec.source import DataSource

# Goes up with every change of what the code draws; a change of the numbers below and in Scene shows by itself.
VERSION = 2
FPS = 8
QP = 22  # about 34 dB against frames that are noise in their finest detail

_SEED = 2302_03024


@register_dataset("motion")
class Motion(VideoDataset):
    """Shapes that move, grow, approach or fade; ten classes in five pairs that only the frames' order tells apart.

    A video has 17 frames of 40x40 pixels. Seventeen, because g = 16 / L is then even for clips of 2, 4 and 8 frames:
    the frames that uniform test sampling takes (1, 3, .., 15 for L = 8) lie symmetrically about the middle, and a
    reversed video shows the very same frames. Not so for L = 16, which takes all frames but the last.

    Args:
        source: not used; the videos lie in the cache folder.
        train, val, test: videos a class in each split.
        cache: the folder to render into, in place of `cache_root()`.
    """

    name = "motion"
    small = True
    summary = "embedded: 10 classes of moving shapes in 5 time-reversed pairs, rendered on first use"
    size: Literal["tiny", "base"] = "tiny"
    frames = 8
    sampling: Literal["uniform", "dense"] = "uniform"
    flip = False  # a mirrored move-left is a move-right
    clips = 1
    crops: Literal[1, 3] = 1
    takes: Literal["nothing", "root", "lists"] = "nothing"

    def __init__(
        self,
        source: DataSource | None = None,
        *,
        train: int = 180,
        val: int = 20,
        test: int = 40,
        cache: Path | None = None,
    ) -> None:
        super().__init__(source)
        self.counts: dict[Split, int] = {"train": train, "val": val, "test": test}
        for split, count in self.counts.items():
            if count < 1:
                raise ValueError(f"motion needs at least 1 video a class for {split}, not {count}")
        self.scene = Scene()
        made_by: dict[str, Any] = {"version": VERSION, "fps": FPS, "qp": QP, "seed": _SEED, "counts": self.counts}
        decides = json.dumps(made_by | {"scene": asdict(self.scene)}, sort_keys=True)
        self.content = hashlib.sha256(decides.encode()).hexdigest()[:16]
        self._cache = cache

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASSES

    @property
    def folder(self) -> Path:
        """Folder of the rendered videos."""
        return (self._cache or cache_root()) / f"motion-{VERSION}-{self.content[:12]}"

    def prepare(self, progress: Progress | None = None) -> None:
        """Render the videos, unless they lie there whole.

        All is rendered into a folder beside the final one and renamed at the end, under a lock: a folder of the final
        name is complete, whatever else happened.

        Raises DataError where the folder cannot be written.
        """
        if self._complete():
            return
        import av
        from filelock import FileLock

        folder = self.folder
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f"{folder.name}.lock"):
                if self._complete():  # by the process that held the lock
                    return
                # who holds the lock is alone: whatever lies here was left by runs that died or was damaged since
                for left in (folder, *folder.parent.glob(f"{folder.name}.partial-*")):
                    if left.exists():
                        shutil.rmtree(left)
                partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
                try:
                    self._render(partial, progress)
                    partial.chmod(0o755)  # mkdtemp's folders are closed to others
                    partial.rename(folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        except (OSError, av.FFmpegError, DataError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(
                f"cannot render the data set 'motion' into {folder.parent}: {reason}; "
                "set AIM_BENCH_CACHE to a folder that can be written and has 100 MB to spare"
            ) from error

    def _list(self, folder: Path, split: Split) -> Path:
        return folder / f"motion_{split}_list_videos.txt"

    def _complete(self) -> bool:
        """Return whether the folder holds its lists and all of its videos: someone may have tidied up in it."""
        folder, each = self.folder, sum(self.counts.values())
        if not all(self._list(folder, split).is_file() for split in SPLITS):
            return False
        try:
            return all(len(os.listdir(folder / "videos" / name)) == each for name in CLASSES)
        except OSError:
            return False

    def plan(self, folder: Path) -> tuple[dict[Split, list[Video]], list[VideoSpec]]:
        """The lists of a folder, and what to render for them.

        No two videos start from the same numbers: not across splits, and not across twins.
        """
        lists: dict[Split, list[Video]] = {}
        specs: list[VideoSpec] = []
        first = 0
        for s, split in enumerate(SPLITS):
            lists[split] = []
            for label, class_name in enumerate(CLASSES):
                for i in range(self.counts[split]):
                    name = f"{class_name}/{first + i:05d}.mp4"
                    video = Video(path=folder / "videos" / name, label=label, name=name)
                    lists[split].append(video)
                    specs.append(VideoSpec(video.path, class_name, (_SEED, s, label, i)))
            first += self.counts[split]
        return lists, specs

    def _render(self, folder: Path, progress: Progress | None) -> None:
        lists, specs = self.plan(folder)
        for class_name in CLASSES:
            (folder / "videos" / class_name).mkdir(parents=True)
        for split, videos in lists.items():
            write_list(self._list(folder, split), videos)
        render_videos(specs, self.scene, FPS, QP, progress)

    def videos(self, split: Split) -> tuple[Video, ...]:
        folder = self.folder
        if not self._list(folder, split).is_file():
            raise DataError(f"the data set 'motion' is not rendered yet: expected {self._list(folder, split)}")
        return read_list(self._list(folder, split), folder / "videos", len(CLASSES))


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
