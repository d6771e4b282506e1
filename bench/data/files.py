"""Files and folders of videos, with few questions to the file system: lists have hundreds of thousands of videos."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv")
)
_AT_ONCE = 32  # a network's answers are waited for side by side


def is_video(name: str) -> bool:
    """Return whether a file's name is a video's: by its suffix, in any case, and not hidden."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith(".")


class Listing:
    """Names in folders; each folder is read once, when it is first asked for."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}
        self._stems: dict[str, dict[str, str]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """The names in a folder; none where it cannot be read."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._names[folder] = frozenset()
        return self._names[folder]

    def video(self, folder: str, stem: str) -> str | None:
        """The video in a folder that has this name but for the suffix; the first of several in the alphabet."""
        if folder not in self._stems:
            videos = sorted(filter(is_video, self.names(folder)), reverse=True)
            self._stems[folder] = {os.path.splitext(name)[0]: name for name in videos}
        return self._stems[folder].get(stem)


def missing(paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> list[int]:
    """Return the indices of the paths that do not exist.

    Args:
        progress: called with (done, total).
    """
    listing = Listing()
    gone = []
    for index, path in enumerate(paths):
        folder, name = os.path.split(path)
        if name not in listing.names(folder or os.curdir):
            gone.append(index)
        if progress is not None and index % 1000 == 0:
            progress(index, len(paths))
    return gone


def sizes(paths: Sequence[Path]) -> list[str]:
    """Each file's bytes in digits; `folder` for a folder, `missing` for what does not exist."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        step = 256
        parts = pool.map(_sizes, (paths[first : first + step] for first in range(0, len(paths), step)))
        return [size for part in parts for size in part]


def _sizes(paths: Sequence[Path]) -> list[str]:
    found = []
    for path in paths:
        try:
            state = os.stat(path)
        except OSError:
            found.append("missing")
        else:
            found.append("folder" if stat.S_ISDIR(state.st_mode) else str(state.st_size))
    return found


def cache_root() -> Path:
    """$AIM_BENCH_CACHE, else the user's cache folder of this system."""
    named = os.environ.get("AIM_BENCH_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("aim-bench", appauthor=False))
