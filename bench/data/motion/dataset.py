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
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from bench.data.dataset import SPLITS, DataError, Progress, Split, Video, VideoDataset, register_dataset
from bench.data.files import cache_root
from bench.data.lists import read_list, write_list
from bench.data.motion.encode import VideoSpec, render_videos
from bench.data.motion.scenes import CLASSES, Scene
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
