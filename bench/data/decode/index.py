"""Index of a file's frames, read before one of them is decoded: their number, times and key frames."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bench.data.decode.base import VideoError, first_words
from bench.text import counted

# a packet of an AVI file that is no longer may say "the picture before, once more", for which no frame comes
_NO_PICTURE = 16
# containers whose boxes name the file's end
_BOXED = ("mov,mp4", "avi")
# containers and codecs that decord 0.6 was found to read as PyAV does, by the tests in tests/bench/data/decode
_CONTAINERS = ("mov,mp4", "matroska,webm")
_CODECS = ("h264", "hevc", "mpeg4", "vp8", "vp9")
_FULL_CHROMA = ("gray", "yuv444p", "yuvj444p")
_HALVED_CHROMA = ("yuv420p", "yuvj420p")


@dataclass(frozen=True, slots=True)
class Index:
    """The frames of a file in the order in which they are shown.

    Attributes:
        times: of the frames, rising, in the stream's units; empty where the file does not tell them.
        keys: times at which decoding can start. What is cut off a file's start leaves keys that are not shown.
        misread: why decord 0.6 would give other frames than it is asked for; empty where it would not.
    """

    times: Sequence[int]
    keys: Sequence[int]
    misread: str


class _Packet(NamedTuple):
    """A frame as it is stored: without its data, of which a file may hold gigabytes."""

    time: int | None
    size: int
    key: bool
    hidden: bool
    whole: bool


@lru_cache(maxsize=2**18)  # once a file, as it costs a tenth of reading a clip
def _glance(path: Path, size: int, changed: int) -> tuple[int, str]:
    import av

    try:
        with av.open(str(path)) as container:
            index = read_index(path, container)
    except av.FFmpegError as error:
        raise VideoError(path, f"it cannot be opened as a video ({first_words(error)})") from error
    return len(index.times), index.misread


def glance(path: Path) -> tuple[int, str]:
    """Return how many frames a file shows (0: unknown), and why decord would misread it (else an empty text).

    What was found is remembered for as long as the file is the same.

    Raises OSError where it is not there, VideoError where it is not a video, or cut short.
    """
    stat = path.stat()
    return _glance(path, stat.st_size, stat.st_mtime_ns)


def read_index(path: Path, container: Any) -> Index:
    """Read all the packets of the video stream. `container` is PyAV's; it is at its end afterwards.

    Raises VideoError where there is no video stream, or the file is cut short.
    """
    if not container.streams.video:
        raise VideoError(path, "the file holds no video stream")
    stream = container.streams.video[0]
    packets = [
        _Packet(packet.pts, packet.size, packet.is_keyframe, packet.is_discard, not packet.is_corrupt)
        for packet in container.demux(stream)
        if packet.size
    ]
    if not packets:
        raise VideoError(path, "the file holds no frame")
    if not packets[-1].whole:
        raise VideoError(path, "the file is cut short: its last frame is not whole")
    # FFmpeg takes a file that is cut between two frames for whole; of frames a fragmented MP4 file names none (0)
    boxed = container.format.name.startswith(_BOXED)
    if boxed and (not stream.frames or len(packets) < stream.frames) and ends_early(path):
        named = f" of {stream.frames}" if stream.frames else ""
        raise VideoError(path, f"the file is cut short: it ends after {counted(len(packets), 'frame')}{named}")
    first = next((i for i, packet in enumerate(packets) if packet.key), None)
    if first is None:
        raise VideoError(path, "the file holds no key frame, from which decoding could start")
    misread = _format_misread(container, stream) or ("it does not begin with a key frame" if first else "")
    packets = packets[first:]  # what comes before cannot be decoded
    stored = _times(packets)
    if stored is None or _miscounted(container, stream, packets):
        return Index((), (), misread or "its frames carry no times to tell them by")
    _check_end(path, container, stream, max(stored))
    # frames that are shown before the first key frame lean on some before it; what an edit list cuts is not shown
    times = sorted(
        time for time, packet in zip(stored, packets, strict=True) if not packet.hidden and time >= stored[0]
    )
    if not times:
        raise VideoError(path, "the file shows no frame: all of them are cut off by its edit list")
    keys = sorted(time for time, packet in zip(stored, packets, strict=True) if packet.key)
    return Index(times, keys, misread or _order_misread(stored, keys, len(times)))


def _times(packets: list[_Packet]) -> list[int] | None:
    """The packets' times in the order of the file; None where they do not tell the frames apart."""
    times = [packet.time for packet in packets if packet.time is not None]
    return times if len(set(times)) == len(packets) else None


def _miscounted(container: Any, stream: Any, packets: list[_Packet]) -> bool:
    """Return whether the times are wrong: AVI stores none, and they are made up by counting the packets.

    That fails where frames are stored out of order, or a packet holds no frame.
    """
    return container.format.name == "avi" and (
        stream.codec_context.has_b_frames or min(packet.size for packet in packets) <= _NO_PICTURE
    )


def _check_end(path: Path, container: Any, stream: Any, last: int) -> None:
    """Matroska, which has no list of its frames, is read to wherever it ends: that must be near the end it names."""
    if "matroska" not in container.format.name or not container.duration:
        return
    named = container.duration / 1e6
    if last * stream.time_base >= 0.9 * named or named < 1:
        return
    container.seek(0)
    ends = [float(packet.pts * packet.time_base) for packet in container.demux() if packet.pts is not None]
    if max(ends, default=0.0) < 0.9 * named:  # else the sound goes on
        raise VideoError(path, f"the file is cut short: it ends at {max(ends, default=0.0):.1f} of {named:.1f} seconds")


def _format_misread(container: Any, stream: Any) -> str:
    """Return why decord is not trusted with the format, whatever the packets say; else an empty text."""
    codec, name = stream.codec_context, container.format.name
    if not name.startswith(_CONTAINERS):
        return f"files of the kind {name!r} are read wrongly after a jump"
    if codec.name.removeprefix("lib") not in _CODECS:
        return f"its codec {codec.name} is not known to decord"
    if codec.field_order > 1:
        return "its frames are interlaced"
    if codec.pix_fmt in _FULL_CHROMA:
        return ""
    if codec.pix_fmt not in _HALVED_CHROMA:
        return f"pixels of the kind {codec.pix_fmt} come in other colours"
    return "frames of odd width or height come in other colours" if codec.width % 2 or codec.height % 2 else ""


def _order_misread(stored: list[int], keys: list[int], shown: int) -> str:
    """Return how decord would misread the order: to it a key frame's place in the file is its place on the screen."""
    if shown < len(stored):
        return "it stores frames that are not shown (an edit list or a cut hides them)"
    key = set(keys)
    if any(time in key and time != other for time, other in zip(stored, sorted(stored), strict=True)):
        return "some frames are stored behind a key frame before which they are shown (an open group of pictures)"
    return ""


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
