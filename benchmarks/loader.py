"""Nearness of the loader to bare decord, memory of its processes over time, and steps that wait for it.

Run by hand, as `python -m benchmarks.loader --processes 2`, on a machine with nothing else to do. It makes its own
videos of Kinetics' kind (340x256, H.264, 300 frames in 10 s) and prints ratios of timings that were taken in turns:

- clips/s of the loader (opening, decoding, cropping, batching, over to this process) / those of as many plain processes
  that call decord's get_batch for the same frames of the same files and do nothing with them,
- resident memory of the decoding processes after the first and after the last thousand of 10,000 clips of small videos,
- the share of steps that waited for their batch, where a step is a little longer than the loader needs for one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np
import psutil

from bench.data.clips import TrainClips
from bench.data.dataset import Video
from bench.data.decode_pool import DecodePool
from bench.data.loader import train_loader
from bench.data.motion.dataset import write_h264
from bench.data.sampling import train_indices
from bench.data.transforms import TrainTransform

FRAMES, STRIDE, SIZE, BATCH = 8, 16, 224, 8  # of AIM on Kinetics-400
LATE = 0.005  # seconds of waiting that count as a stall


def kinetics_like(path: Path, seed: int) -> None:
    """300 frames of 340x256: a textured background that pans, with a patch that moves on it, and a little noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (40, 60, 3)).astype(np.float32)
    texture = np.kron(coarse, np.ones((16, 16, 1), np.float32)) + rng.normal(0, 12, (640, 960, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "fast", "crf": "23", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        for t in range(300):
            picture = texture[t // 2 : t // 2 + 256, t : t + 340].copy()
            picture[60 + t // 3 : 120 + t // 3, 20 + t // 2 : 100 + t // 2] = 255 - picture[:60, :80]
            picture += rng.normal(0, 4, picture.shape)
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def train_clips(videos: list[Video], size: int, frames: int, stride: int) -> TrainClips:
    return TrainClips(videos, "dense", frames, stride, TrainTransform(size), seed=0)


def bare(job: tuple[str, list[int]]) -> int:
    """Do what decord alone does for a clip."""
    import decord

    path, indices = job
    return decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1).get_batch(indices).asnumpy().nbytes


def bare_jobs(clips: TrainClips, epoch: int) -> Iterator[tuple[str, list[int]]]:
    """The files and frames that the loader's clips of an epoch show."""
    for key in clips.keys(epoch):
        draw = next(clips.draws(key))
        rng = np.random.default_rng(draw.seed)
        rng.integers(2**63)  # the crop's seed, which is drawn first
        yield str(draw.video.path), train_indices("dense", 300, FRAMES, STRIDE, rng).tolist()


def speed(folder: Path, processes: int, videos: int, clips: int, rounds: int) -> float:
    """Print the ratio; return seconds a batch of the loader."""
    begun = time.perf_counter()
    for i in range(videos):
        kinetics_like(folder / f"{i}.mp4", i)
    size = sum((folder / f"{i}.mp4").stat().st_size for i in range(videos)) / videos / 1e6
    print(f"{videos} videos of {size:.1f} MB made in {time.perf_counter() - begun:.0f} s")
    listed = [Video(folder / f"{i % videos}.mp4", 0, str(i)) for i in range(clips)]
    data = train_clips(listed, SIZE, FRAMES, STRIDE)
    ratios, ours = [], []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as plain, DecodePool([data], processes, 60) as pool:
        loader = train_loader(data, BATCH, pool)
        for epoch in range(rounds + 1):
            jobs = list(bare_jobs(data, epoch))
            begun = time.perf_counter()
            list(plain.map(bare, jobs))
            theirs = time.perf_counter() - begun
            loader.set_epoch(epoch)
            begun = time.perf_counter()
            count = sum(len(batch) for batch in loader)
            mine = time.perf_counter() - begun
            if epoch:  # the first round imports and fills the file cache
                ratios.append((count / mine) / (len(jobs) / theirs))
                ours.append(mine / count)
                print(
                    f"round {epoch}: bare decord {len(jobs) / theirs:.1f}, loader {count / mine:.1f} clips/s, "
                    f"ratio {ratios[-1]:.3f}"
                )
    print(f"loader / bare decord, {processes} processes, median of {rounds}: {statistics.median(ratios):.3f}")
    return statistics.median(ours) * BATCH


def stalls(folder: Path, processes: int, videos: int, seconds: float, steps: int) -> None:
    listed = [Video(folder / f"{i % videos}.mp4", 0, str(i)) for i in range(BATCH * (steps + 1))]
    data = train_clips(listed, SIZE, FRAMES, STRIDE)
    step = 1.25 * seconds
    with DecodePool([data], processes, 60) as pool:
        batches = iter(train_loader(data, BATCH, pool))
        next(batches)  # nothing can hide the first one
        waits = []
        for _ in range(steps):
            time.sleep(step)
            begun = time.perf_counter()
            next(batches)
            waits.append(time.perf_counter() - begun)
    late = sum(wait > LATE for wait in waits)
    print(
        f"steps of {step * 1e3:.0f} ms, 1.25 times the loader's time for a batch: {late} of {steps} waited over "
        f"{LATE * 1e3:.0f} ms, {100 * sum(waits) / (sum(waits) + steps * step):.2f} % of the time in all"
    )


def memory(folder: Path, processes: int, clips: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (17, 48, 64, 3), dtype=np.uint8)
    for i in range(50):
        write_h264(folder / f"small{i}.mp4", frames, 8, 20)
    listed = [Video(folder / f"small{i % 50}.mp4", 0, str(i)) for i in range(clips)]
    data = train_clips(listed, 32, 8, 2)
    resident = []
    with DecodePool([data], processes, 60) as pool:
        done = 0
        for batch in train_loader(data, 50, pool):
            done += len(batch)
            if done % 1000 == 0:
                resident.append([psutil.Process(pid).memory_info().rss / 2**20 for pid in pool.pids])
    for index, (first, last) in enumerate(zip(resident[0], resident[-1], strict=True)):
        print(f"process {index}: {first:.1f} MiB after 1,000 clips, {last:.1f} MiB after {done:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--clips", type=int, default=96, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--small-clips", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = speed(folder, given.processes, given.videos, given.clips, given.rounds)
        stalls(folder, given.processes, given.videos, seconds, given.steps)
        memory(folder, given.processes, given.small_clips)


if __name__ == "__main__":
    main()
