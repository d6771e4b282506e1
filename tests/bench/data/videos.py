"""Small videos of every kind that the decoders are tested with, written by PyAV."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

COUNT, HEIGHT, WIDTH, RATE = 40, 48, 64, 25
X264 = {"g": "12", "bf": "3", "crf": "12"}
X265 = {"crf": "12", "x265-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:log-level=none:open-gop="}
VP9 = {"g": "12", "crf": "12", "b": "0", "speed": "8", "auto-alt-ref": "1", "lag-in-frames": "8"}


def picture(count: int = COUNT, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A soft coloured pattern that moves and brightens, so that no two frames are alike: (T, H, W, 3)."""
    y, x, c = np.ogrid[0:height, 0:width, 0:3]
    t = np.arange(count)[:, None, None, None]
    waves = 35 * np.sin((x + 3 * t) / 7 + c) + 35 * np.sin((y + 2 * t) / 5 + 2 * c)
    return (100 + waves + t).astype(np.uint8)


def write(
    path: Path,
    codec: str,
    frames: NDArray[np.uint8],
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    container: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A video file. `times` are the frames' in milliseconds; None for 25 a second."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream: Any = file.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, frame in enumerate(frames):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                shown.pts, shown.time_base = times[i], Fraction(1, 1000)
            file.mux(stream.encode(shown))
        file.mux(stream.encode())
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        # where it may (as root), it makes the calling thread a real-time one, which then starves all others of a core
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


def turned(path: Path, out: Path, turn: int) -> Path:
    """A copy of an mp4 file that asks to be shown turned clockwise, by 90, 180 or 270 degrees, as phones write it."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    one = 1 << 16
    data[at : at + 36] = np.array([a * one, b * one, 0, -b * one, a * one, 0, 0, 0, 1 << 30], ">i4").tobytes()
    out.write_bytes(data)
    return out


def cut_by_list(path: Path, out: Path, start: int = 0, keep: int | None = None) -> Path:
    """A copy of an mp4 file whose edit list shows `keep` frames from `start` on, as cutting without encoding makes."""
    data = bytearray(path.read_bytes())
    at, media, movie = data.index(b"elst") + 12, data.index(b"mdhd") + 16, data.index(b"mvhd") + 16
    duration, first = struct.unpack(">Ii", data[at : at + 8])
    (media_units,) = struct.unpack(">I", data[media : media + 4])
    (movie_units,) = struct.unpack(">I", data[movie : movie + 4])
    duration = (keep * movie_units if keep is not None else duration * RATE - start * movie_units) // RATE
    data[at : at + 8] = struct.pack(">Ii", duration, first + start * media_units // RATE)
    out.write_bytes(data)
    return out


def copied(path: Path, out: Path, skip: int) -> Path:
    """The packets of a file from the one numbered `skip` on, not encoded anew: as cut between two key frames."""
    with av.open(str(path)) as source, av.open(str(out), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number >= skip:
                packet.stream = stream
                file.mux(packet)
    return out


def decoded(path: Path) -> NDArray[np.uint8]:
    """Every frame, from start to end, one by one and upright, by plain PyAV: what all decoders must give."""
    with av.open(str(path)) as file:
        file.streams.video[0].codec_context.thread_count = 1
        frames = [np.rot90(f.to_ndarray(format="rgb24"), round(f.rotation / 90) % 4) for f in file.decode(video=0)]
    return np.stack(frames)


def make(folder: Path) -> dict[str, Path]:
    """All kinds, by a name that says what is special in them."""
    frames, even = picture(), picture(COUNT, 64, 96)
    odd = frames[:, :47, :63]
    gaps = np.random.default_rng(0).integers(10, 90, COUNT).cumsum().tolist()
    open_gop = {**X264, "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}
    closed5, open5 = ({**X265, "x265-params": X265["x265-params"] + switch} for switch in "01")
    mpeg4 = {"g": "12", "qscale": "2", "b": "2M"}
    made = {
        "mp4 h264": write(folder / "h264.mp4", "libx264", frames, **X264),
        "mp4 h264 fragments": write(
            folder / "parts.mp4", "libx264", frames, container={"movflags": "frag_keyframe+empty_moov"}, **X264
        ),
        "mp4 h264 grey": write(folder / "grey.mp4", "libx264", frames, "gray", **X264),
        "mp4 h264 full range": write(folder / "full.mp4", "libx264", frames, "yuvj420p", **X264),
        "mp4 h264 bt709": write(folder / "bt709.mp4", "libx264", frames, colorspace="bt709", **X264),
        "mp4 h264 4:4:4 odd": write(folder / "odd.mp4", "libx264", odd, "yuv444p", **X264),
        "mp4 h264 one frame": write(folder / "one.mp4", "libx264", frames[:1], **X264),
        "mp4 h264 uneven": write(folder / "uneven.mp4", "libx264", frames, times=gaps, **X264),
        "mp4 h264 open": write(folder / "open.mp4", "libx264", frames, **open_gop),
        "mp4 h264 interlaced": write(
            folder / "lines.mp4", "libx264", frames, flags="+ildct+ilme", **X264, **{"x264-params": "tff=1"}
        ),
        "mp4 h265": write(folder / "h265.mp4", "libx265", even, **closed5),
        "mp4 h265 open": write(folder / "open5.mp4", "libx265", even, **open5),
        "mp4 h265 ten bits": write(folder / "ten.mp4", "libx265", even, "yuv420p10le", **closed5),
        "mp4 mpeg4": write(folder / "mpeg4.mp4", "mpeg4", frames, **mpeg4),
        "mp4 mpeg4 b-frames": write(folder / "mpeg4b.mp4", "mpeg4", frames, bf="2", **mpeg4),
        "mp4 av1": write(folder / "av1.mp4", "libsvtav1", even, g="12", crf="12", preset="10"),
        "mkv h264": write(folder / "h264.mkv", "libx264", frames, **X264),
        "mkv h264 open": write(folder / "open.mkv", "libx264", frames, **open_gop),
        "mkv h265": write(folder / "h265.mkv", "libx265", even, **closed5),
        "mkv mpeg4 b-frames": write(folder / "mpeg4b.mkv", "mpeg4", frames, bf="2", **mpeg4),
        "webm vp9": write(folder / "vp9.webm", "libvpx-vp9", frames, **VP9),
        "webm vp9 odd": write(folder / "odd.webm", "libvpx-vp9", odd, **VP9),
        "webm vp9 uneven": write(folder / "uneven.webm", "libvpx-vp9", frames, times=gaps, **VP9),
        "webm vp9 one frame": write(folder / "one.webm", "libvpx-vp9", frames[:1], **VP9),
        "webm av1": write(folder / "av1.webm", "libsvtav1", even, g="12", crf="12", preset="10"),
        "avi mpeg4": write(folder / "mpeg4.avi", "mpeg4", frames, **mpeg4),
        "avi mpeg4 b-frames": write(folder / "mpeg4b.avi", "mpeg4", frames, bf="2", **mpeg4),
        "avi h264": write(folder / "h264.avi", "libx264", frames, **X264),
        "ts h264": write(folder / "h264.ts", "libx264", frames, **X264),
    }
    upright = write(folder / "upright.mp4", "libx264", even, **X264)
    for turn in (90, 180, 270):
        made[f"mp4 h264 turned {turn}"] = turned(upright, folder / f"turned{turn}.mp4", turn)
    made["mp4 h264 start cut"] = cut_by_list(made["mp4 h264"], folder / "start.mp4", start=5)
    made["mp4 h264 end cut"] = cut_by_list(made["mp4 h264"], folder / "end.mp4", keep=30)
    made["mp4 h264 between keys"] = copied(made["mp4 h264 open"], folder / "between.mp4", skip=5)
    made["mkv h264 from an open key"] = copied(made["mkv h264 open"], folder / "fromopen.mkv", skip=9)
    return made
