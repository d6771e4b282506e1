"""Clips a second from the cache of decoded frames, beside decoding them: `python benchmarks/cache.py`.

Makes videos like Kinetics' (340 x 256, 300 frames, H.264) and reads clips of 8 frames from them, one process, each way
in turn. `cold` is the disk after the system was asked to forget the file's pages.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.cache import FolderStore, FrameCache
from bench.data.cache.choose import SHARED_MEMORY
from bench.data.cache.entry import CacheKey
from bench.data.sampling import Sampling, train_indices

HEIGHT, WIDTH, COUNT = 256, 340, 300


def write_video(path: Path, seed: int) -> None:
    """A background with structure at all scales that pans, and a shape that moves over it; a key frame every 250."""
    import av
    from PIL import Image

    rng = np.random.default_rng(seed)
    texture = np.full((HEIGHT + 64, WIDTH + COUNT, 3), 127, np.float32)
    for grid in (128, 64, 32, 16, 8, 4, 2):  # as in photographs, the finer the weaker
        for channel in range(3):
            points = rng.normal(0, grid**0.9, (len(texture) // grid + 2, 3 * COUNT // grid)).astype(np.float32)
            texture[..., channel] += Image.fromarray(points).resize(texture.shape[1::-1], Image.Resampling.BICUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(COUNT):
            seen = texture[i // 8 : i // 8 + HEIGHT, i : i + WIDTH]
            frame = np.clip(seen + rng.normal(0, 4, seen.shape), 0, 255).astype(np.uint8)  # a sensor's noise
            x, y = int(120 + 90 * np.sin(i / 20)), int(100 + 70 * np.cos(i / 30))
            frame[y : y + 50, x : x + 60] = (seed * 20 % 256, 200, i % 256)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def forget(path: str) -> None:
    """Drop a file's pages from memory."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def speed(open_clip: Callable[[int], None], seconds: float) -> float:
    """Calls a second."""
    spent, calls = 0.0, 0
    while spent < seconds:
        begun = time.perf_counter()
        open_clip(calls)
        spent += time.perf_counter() - begun
        calls += 1
    return calls / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the cache on the disk")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-cache-", dir=given.folder))
    memory = Path(tempfile.mkdtemp(prefix="bench-cache-", dir=SHARED_MEMORY))
    try:
        measure(given, folder, memory)
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(memory)


def measure(given: argparse.Namespace, folder: Path, memory: Path) -> None:
    paths = [folder / f"{i}.mp4" for i in range(given.videos)]
    for i, path in enumerate(paths):
        write_video(path, i)
    stores = {
        "disk raw": FolderStore(folder / "cache", 10**12),
        "disk jpeg": FolderStore(folder / "cache", 10**12, "jpeg"),
        "ram raw": FolderStore(memory, 10**12),
        "ram jpeg": FolderStore(memory, 10**12, "jpeg"),
    }
    print(f"{given.videos} videos of {np.mean([path.stat().st_size for path in paths]) / 1e6:.2f} MB")
    for name, store in stores.items():
        store.prepare()
        before, begun = store.used_bytes, time.perf_counter()
        for path in paths:
            FrameCache(store).open(path).close()
        seconds = (time.perf_counter() - begun) / given.videos
        size = (store.used_bytes - before) / given.videos
        print(f"filling {name}: {seconds:.2f} s and {size / 1e6:.1f} MB a video, {size / COUNT / 1e3:.1f} KB a frame")

    def clip(cache: FrameCache, sampling: Sampling) -> Callable[[int], None]:
        rng = np.random.default_rng(0)

        def read(call: int) -> None:
            reader = cache.open(paths[call % len(paths)])
            reader.frames(train_indices(sampling, len(reader), 8, 16, rng))
            reader.close()

        return read

    for sampling in ("dense", "uniform"):
        ways: dict[str, Callable[[int], None]] = {"decoded": clip(FrameCache(), sampling)}
        ways |= {name: clip(FrameCache(store), sampling) for name, store in stores.items()}
        found: dict[str, list[float]] = {name: [] for name in [*ways, "disk raw, cold", "disk jpeg, cold"]}
        for _ in range(given.rounds):
            for name, read in ways.items():
                found[name].append(speed(read, given.seconds))
            for name in ("disk raw", "disk jpeg"):
                for path in paths:
                    forget(stores[name].path(CacheKey.of(path, "auto", None)))
                begun = time.perf_counter()
                for call in range(len(paths)):
                    ways[name](call)
                found[f"{name}, cold"].append(len(paths) / (time.perf_counter() - begun))
        decoded = statistics.median(found["decoded"])
        for name, speeds in found.items():
            middle = statistics.median(speeds)
            print(f"{sampling:8} {name:16} {middle:8.1f} clips/s  {middle / decoded:6.1f} x decoded")


if __name__ == "__main__":
    main()
