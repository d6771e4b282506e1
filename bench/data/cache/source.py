"""Key of a cached video."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.spec.fields import Decoder

_PACKAGES = {"decord": "decord", "pyav": "av"}


@dataclass(frozen=True, slots=True)
class CacheKey:
    """A video file as it is now, and how its frames are asked for.

    Attributes:
        path: absolute.
        decoder: as asked for, "auto" among them.
        short_side: pixels that the frames' shorter side has at most; None for the frames as they are.
        size, mtime_ns: of the file. Another size or time is another video.
    """

    path: str
    decoder: Decoder
    short_side: int | None
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, decoder: Decoder, short_side: int | None) -> CacheKey:
        """Raises OSError where there is no such file, or a folder of pictures: those are decoded already, nearly."""
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return cls(os.path.abspath(path), decoder, short_side, found.st_size, found.st_mtime_ns)

    @property
    def name(self) -> str:
        """The name of its entry. Not of size and time: what was kept of a file that has changed is replaced."""
        return f"{name_of(self.path)}.{self.decoder}-{self.short_side or 'full'}"


def name_of(path: str | Path) -> str:
    """Return the prefix of the names of a video's entries: 32 hexadecimal digits."""
    return hashlib.sha256(os.path.abspath(path).encode(errors="surrogateescape")).hexdigest()[:32]


@cache
def library_version(decoder: str) -> str:
    """The version of the library that decodes: another version may decode other pixels. Empty where it is missing."""
    try:
        return version(_PACKAGES.get(decoder, decoder))
    except PackageNotFoundError:
        return ""
