"""Choice of a run's cache, from what the user asked for and from how much its videos take when they are decoded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from bench.data.cache.codec import CODECS, Format
from bench.data.cache.frames import FrameCache
from bench.data.cache.memory import MemoryStore
from bench.data.cache.places import Places, disk_folder
from bench.data.cache.source import CacheKey
from bench.data.cache.store import FolderStore
from bench.data.dataset import DataError
from bench.data.decode.open import open_video
from bench.errors import UserError
from bench.files import reason
from bench.text import byte_size, counted

Place = Literal["auto", "ram", "disk", "off"]

_RAM_SHARE = 0.25  # of the free memory
_DISK_SHARE = 0.2  # of the free disk
_SAMPLES = 8


@dataclass(frozen=True)
class Asked:
    """The user's wishes for the cache.

    Attributes:
        place: "auto" for the disk where the videos were prepared there, else memory where they fit, else none.
        limit: bytes; None for a share of what is free.
        format: how frames are kept. JPEG pictures in place "auto" lie on the disk.
    """

    place: Place = "auto"
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
    """Look at a few videos, evenly spread over the list. Those that cannot be read count for nothing."""
    distinct = sorted(set(paths))
    looked_at = distinct[:: max(1, len(distinct) // _SAMPLES)][:_SAMPLES]
    codec, sizes, cached = CODECS[format], [], disk is not None
    for path in looked_at:
        try:
            source = CacheKey.of(path, "auto", short_side)
            found = disk.find(source) if disk else None
            cached = cached and found is not None
            reader = found or open_video(path, "auto", short_side)
            sizes.append(len(codec.pack(reader.frames([0])[0])) * len(reader))
            reader.close()
        except (OSError, DataError):
            continue
    total = sum(sizes) * len(distinct) // len(sizes) if sizes else 0
    return Estimate(len(distinct), total, cached and bool(sizes))


def choose(
    asked: Asked,
    paths: Sequence[Path],
    places: Places,
    processes: int = 1,
    short_side: int | None = None,
    once: bool = False,
) -> tuple[FrameCache, str]:
    """The cache of a run and a sentence on it.

    Args:
        paths: of all the videos that the run shows.
        places: claimed until the run ends.
        processes: that read videos side by side; where memory cannot be shared, each has its part of the limit.
        short_side: pixels to which larger frames are decoded.
        once: every video is shown once, so that decoding more than is shown would only cost time.

    Raises:
        UserError: the disk was asked for and cannot be written.
    """
    if asked.place == "off":
        return FrameCache(), "frame cache: off"
    disk = _disk(asked, places)
    need = estimate(paths, asked.format, disk, short_side)
    what = f"{byte_size(need.total)} for {counted(need.videos, 'video')}" + " as JPEG" * (asked.format == "jpeg")
    on_disk = asked.place == "disk" or (asked.place == "auto" and (need.cached or asked.format == "jpeg"))
    if on_disk and disk is not None:
        return FrameCache(disk), f"frame cache: {disk.folder}, {what}, limit {byte_size(disk.limit_bytes)}"
    share = int(psutil.virtual_memory().available * _RAM_SHARE)
    if asked.place == "auto":
        if once:
            return FrameCache(), "frame cache: off, as every video is read once"
        if not need.total or need.total > share:
            command = "bench data prepare" + (f" --short-side {short_side}" if short_side else "")
            return FrameCache(), (
                f"frame cache: off, as {what} do not fit a quarter of the free memory ({byte_size(share)}); "
                f"`{command}` decodes them once for all, to the disk"
            )
    limit = asked.limit or share
    ram = _ram(asked, places, min(need.total, limit), share)
    if ram is not None:
        return FrameCache(ram), f"frame cache: memory ({ram.folder}), {what}, limit {byte_size(ram.limit_bytes)}"
    memory = MemoryStore(limit // processes, asked.format)
    each = f"of each of {processes} processes" if processes > 1 else "of this process"
    return FrameCache(memory), f"frame cache: memory {each}, {what}, limit {byte_size(memory.limit_bytes)}"


def _ram(asked: Asked, places: Places, need: int, share: int) -> FolderStore | None:
    """The cache in shared memory; None where there is none, or too little of it (containers often have 64 MB)."""
    if places.ram is None:
        return None
    try:
        room = shutil.disk_usage(places.ram).free
        FolderStore(places.ram, 0).prepare()
    except OSError:
        return None
    if room < need:
        return None
    limit = asked.limit or FolderStore(places.ram, 0).used_bytes + min(share, room)
    return FolderStore(places.ram, limit, asked.format)


def _disk(asked: Asked, places: Places) -> FolderStore | None:
    """The cache on the disk; None where it cannot be used and the user has not asked for it."""
    if asked.place == "ram" or (asked == Asked(limit=asked.limit) and not disk_folder().is_dir()):
        return None
    try:
        folder = places.disk()
        FolderStore(folder, 0).prepare()
        limit = asked.limit or FolderStore(folder, 0).used_bytes + int(shutil.disk_usage(folder).free * _DISK_SHARE)
    except OSError as error:
        if asked.place == "disk" or asked.format == "jpeg":
            raise UserError(
                [f"cache is 'disk': it cannot be written ({reason(error)}); AIM_BENCH_CACHE names another folder"]
            ) from error
        return None
    return FolderStore(folder, limit, asked.format)
