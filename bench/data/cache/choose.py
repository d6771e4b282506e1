"""Choice of a run's cache: the folders that there are, what the user asked for, and what the videos take decoded."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import psutil

from bench.data.cache.entry import CODECS, CacheKey, Format
from bench.data.cache.frames import FrameCache
from bench.data.cache.store import FolderStore
from bench.data.dataset import DataError
from bench.data.decode.open import open_video
from bench.data.files import cache_root
from bench.errors import UserError
from bench.files import reason
from bench.text import byte_size, counted

CacheMode = Literal["auto", "ram", "disk", "off"]

_RAM_SHARE = 0.25  # of the free memory
_DISK_SHARE = 0.2  # of the free disk
_SAMPLES = 8


# a file system in memory that every Linux has
SHARED_MEMORY = Path("/dev/shm")

_CLAIM = ".in-use"


def disk_folder() -> Path:
    """Return the folder of decoded frames on the disk."""
    return cache_root() / "frames"


def own_folder(parent: Path) -> Path | None:
    """Make a folder that this user alone can read; return None where that is not possible."""
    if sys.platform == "win32" or not parent.is_dir():  # which could not tell when the last run has ended
        return None
    folder = parent / f"aim-bench-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    # anyone may make a folder of this name first
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077
    return folder if ours else None


class CacheFolders:
    """Folders that a run uses, claimed until it ends; a context manager around all that reads frames.

    A claim is a shared lock (filelock has none), which the system takes away from a process that dies. Who is alone
    with a folder clears away what others left: half-written files on the disk, everything elsewhere.
    """

    def __enter__(self) -> CacheFolders:
        self._claims = contextlib.ExitStack()
        self._claimed: set[Path] = set()
        self.ram = self._claim(own_folder(SHARED_MEMORY))
        return self

    def _claim(self, folder: Path | None, emptied: bool = True) -> Path | None:
        if folder is not None and folder not in self._claimed:
            clean = _empty if emptied else _tidy
            self._claims.enter_context(claimed(folder, clean, clean_after=emptied))
            self._claimed.add(folder)
        return folder

    def temporary(self) -> Path | None:
        """Folder of temporary files, which the system keeps in memory while there is room; None where there is none."""
        return self._claim(own_folder(Path(tempfile.gettempdir())))

    def __exit__(self, *_: object) -> None:
        self._claims.close()

    def disk(self, folder: Path | None = None) -> Path:
        """The folder on the disk, which is the user's unless one is named, made where it is missing. Raises OSError."""
        folder = folder or disk_folder()
        folder.mkdir(parents=True, exist_ok=True)
        self._claim(folder, emptied=False)
        return folder


@contextlib.contextmanager
def claimed(folder: Path, clean: Callable[[Path], object] | None = None, clean_after: bool = False) -> Iterator[None]:
    """Claim a folder. `clean` is called before, and after it if `clean_after`, where no other process has a claim."""
    try:
        file: BinaryIO = (folder / _CLAIM).open("ab")
    except OSError:  # a folder that may be read alone
        yield
        return
    with file:
        if clean and _lock(file, "exclusive"):
            clean(folder)
        _lock(file, "shared")
        try:
            yield
        finally:
            if clean and clean_after and _lock(file, "exclusive"):
                clean(folder)


def _lock(file: BinaryIO, how: Literal["exclusive", "shared"]) -> bool:
    """Take the lock, in place of the one held; an exclusive one without waiting. Return whether that could be done."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH if how == "shared" else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by others, or a file system without locks
        return False
    return True


def _empty(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.name != _CLAIM and not path.is_dir():
            with contextlib.suppress(OSError):
                path.unlink()


def _tidy(folder: Path) -> None:
    with contextlib.suppress(OSError):
        FolderStore(folder, 0).tidy()


@dataclass(frozen=True)
class CacheSettings:
    """Settings of the cache that a user asked for.

    Attributes:
        mode: "auto" for the disk where the videos were prepared there, else memory where they fit, else none.
        limit: bytes; None for a share of what is free.
        format: how frames are kept. JPEG pictures of "auto" lie on the disk.
    """

    mode: CacheMode = "auto"
    limit: int | None = None
    format: Format = "raw"


@dataclass(frozen=True)
class Estimate:
    """Estimated size of a data set in the cache, after a few of its videos.

    Attributes:
        videos: how many there are.
        total: bytes.
        cached: whether all the videos looked at lie in the cache on the disk.
    """

    videos: int
    total: int
    cached: bool


def estimate(
    paths: Sequence[Path], format: Format = "raw", disk: FolderStore | None = None, short_side: int | None = None
) -> Estimate:
    """Estimate from a few videos, evenly spread over the list, without those that cannot be read."""
    distinct = sorted(set(paths))
    looked_at = distinct[:: max(1, len(distinct) // _SAMPLES)][:_SAMPLES]
    codec, sizes, cached = CODECS[format], [], disk is not None
    for path in looked_at:
        try:
            key = CacheKey.of(path, "auto", short_side)
            found = disk.find(key) if disk else None
            cached = cached and found is not None
            reader = found or open_video(path, "auto", short_side)
            sizes.append(len(codec.pack(reader.frames([0])[0])) * len(reader))
            reader.close()
        except (OSError, DataError):
            continue
    total = sum(sizes) * len(distinct) // len(sizes) if sizes else 0
    return Estimate(len(distinct), total, cached and bool(sizes))


def choose(
    asked: CacheSettings,
    paths: Sequence[Path],
    folders: CacheFolders,
    short_side: int | None = None,
    once: bool = False,
) -> tuple[FrameCache, str]:
    """The cache of a run and a sentence on it.

    Args:
        paths: of all the videos that the run shows.
        folders: claimed until the run ends.
        short_side: pixels to which larger frames are decoded.
        once: every video is shown once, so that decoding more than is shown would only cost time.

    Raises:
        UserError: the disk was asked for and cannot be written.
    """
    if asked.mode == "off":
        return FrameCache(), "frame cache: off"
    disk = _disk(asked, folders)
    need = estimate(paths, asked.format, disk, short_side)
    what = f"{byte_size(need.total)} for {counted(need.videos, 'video')}" + " as JPEG" * (asked.format == "jpeg")
    on_disk = asked.mode == "disk" or (asked.mode == "auto" and (need.cached or asked.format == "jpeg"))
    if on_disk and disk is not None:
        return FrameCache(disk), f"frame cache: {disk.folder}, {what}, limit {byte_size(disk.limit_bytes)}"
    share = int(psutil.virtual_memory().available * _RAM_SHARE)
    if asked.mode == "auto":
        if once:
            return FrameCache(), "frame cache: off, as every video is read once"
        if not need.total or need.total > share:
            command = "bench data prepare" + (f" --short-side {short_side}" if short_side else "")
            return FrameCache(), (
                f"frame cache: off, as {what} do not fit a quarter of the free memory ({byte_size(share)}); "
                f"`{command}` decodes them once for all, to the disk"
            )
    limit = asked.limit or share
    for kind, folder in (("memory", lambda: folders.ram), ("temporary files", folders.temporary)):
        if (store := _passing(folder(), asked, min(need.total, limit), share)) is not None:
            told = f"frame cache: {kind} ({store.folder}), {what}, limit {byte_size(store.limit_bytes)}"
            return FrameCache(store), told
    return FrameCache(), f"frame cache: off, as neither memory nor the folder of temporary files has room for {what}"


def _passing(folder: Path | None, asked: CacheSettings, need: int, share: int) -> FolderStore | None:
    """The cache in a folder that is emptied after the run; None where it has too little room.

    Of shared memory containers often have 64 MB, and other systems than Linux none.
    """
    if folder is None:
        return None
    try:
        room = shutil.disk_usage(folder).free
        FolderStore(folder, 0).prepare()
    except OSError:
        return None
    if room < need:
        return None
    limit = asked.limit or FolderStore(folder, 0).used_bytes + min(share, room)
    return FolderStore(folder, limit, asked.format)


def _disk(asked: CacheSettings, folders: CacheFolders) -> FolderStore | None:
    """The cache on the disk; None where it cannot be used and the user has not asked for it."""
    if asked.mode == "ram" or (asked == CacheSettings(limit=asked.limit) and not disk_folder().is_dir()):
        return None
    try:
        folder = folders.disk()
        FolderStore(folder, 0).prepare()
        limit = asked.limit or FolderStore(folder, 0).used_bytes + int(shutil.disk_usage(folder).free * _DISK_SHARE)
    except OSError as error:
        if asked.mode == "disk" or asked.format == "jpeg":
            raise UserError(
                [f"cache is 'disk': it cannot be written ({reason(error)}); AIM_BENCH_CACHE names another folder"]
            ) from error
        return None
    return FolderStore(folder, limit, asked.format)


if sys.platform != "win32":
    import fcntl
