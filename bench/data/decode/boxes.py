"""End of an MP4 or AVI file according to its outermost boxes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_HEADER, _LONG = 8, 16  # bytes of a box's header, and of an MP4 box's whose size needs 64 bits


def ends_early(path: Path) -> bool:
    """Return whether the last box of an MP4 (ISO/IEC 14496-12, 4.2) or AVI file (RIFF) reaches beyond its end.

    It does where the file is cut anywhere but between two boxes, and where a recorder wrote a wrong size. A cut between
    two fragments of an MP4 file leaves a whole file, which only shows less.

    Raises OSError where the file cannot be read.
    """
    end, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at < end:
            file.seek(at)
            size = _box(file)
            if not size:
                return False
            at += size
    return at > end


def _box(file: BinaryIO) -> int:
    """The bytes of the box that begins here, with its header; 0 where it goes on to the end of the file."""
    header = file.read(_LONG)
    if len(header) < _HEADER:
        return _HEADER
    if header.startswith(b"RIFF"):
        (size,) = struct.unpack_from("<I", header, 4)
        return _HEADER + size + size % 2 if size else 0
    (size,) = struct.unpack_from(">I", header)
    if size == 1:
        size = int.from_bytes(header[_HEADER:]) if len(header) == _LONG else _LONG
    return size if size >= _HEADER else 0
