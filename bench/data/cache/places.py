"""The two folders of cached frames: on the disk, where they stay, and in memory, where they go with the last run."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from bench.data.cache.store import FolderStore
from bench.data.cache_root import cache_root

if sys.platform != "win32":
    import fcntl

# a file system in memory that every Linux has
SHARED_MEMORY = Path("/dev/shm")

_CLAIM = ".in-use"


def disk_folder() -> Path:
    """Return the folder of decoded frames on the disk."""
    return cache_root() / "frames"


def ram_folder() -> Path | None:
    """A folder in memory that nobody but this user can look into; None where there can be none."""
    if sys.platform == "win32" or not SHARED_MEMORY.is_dir():
        return None
    folder = SHARED_MEMORY / f"aim-bench-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    # anyone may make a folder of this name first
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077
    return folder if ours else None


class Places:
    """The folders that a run uses, claimed until it ends; use as a context manager around all that reads frames.

    A claim is a shared lock, which the system takes away from a process that dies. Who is alone with a folder clears
    away what others left: half-written files on the disk, everything in memory.
    """

    def __enter__(self) -> Places:
        self._claims = contextlib.ExitStack()
        self._disk: Path | None = None
        self.ram = ram_folder()
        if self.ram is not None:
            self._claims.enter_context(_claimed(self.ram, _empty, at_end=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._claims.close()

    def disk(self) -> Path:
        """The folder on the disk, made where it is missing. Raises OSError."""
        if self._disk is None:
            folder = disk_folder()
            folder.mkdir(parents=True, exist_ok=True)
            self._claims.enter_context(_claimed(folder, _tidy, at_end=False))
            self._disk = folder
        return self._disk


@contextlib.contextmanager
def _claimed(folder: Path, clean: Callable[[Path], None], at_end: bool) -> Iterator[None]:
    """A claim on a folder. `clean` is called at its beginning, and at its end if asked, where nobody else has one."""
    try:
        file: BinaryIO = (folder / _CLAIM).open("ab")
    except OSError:  # a folder that may be read alone
        yield
        return
    with file:
        if _lock(file, "exclusive"):
            clean(folder)
        _lock(file, "shared")
        try:
            yield
        finally:
            if at_end and _lock(file, "exclusive"):
                clean(folder)


def _lock(file: BinaryIO, how: Literal["exclusive", "shared"]) -> bool:
    """Take the lock, in place of the one held; an exclusive one without waiting. Whether that could be done."""
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
