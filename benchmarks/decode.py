"""Clips a second of each decoder, side by side, on files like those of Kinetics and on large ones.

    python benchmarks/decode.py --rounds 7

The files are made here: 340x256, 10 s, 300 frames, H.264, with a key frame every 12, 50 and 250 frames, and 5 s of
1080p. Each round opens every file anew with every decoder, one after the other, for 8 frames: dense (every 16th, from
a place that changes with the round) and uniform. Ratios are to decord within the round; shown are medians over rounds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.data.decode.open import open_video, why_unusable
from bench.data.sampling import train_indices
from bench.spec.fields import DECODERS, Decoder

FRAMES, STRIDE, SHORT_SIDE = 8, 16, 256


def scene(count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """A camera that pans over a picture of coarse and fine texture, with a little noise: (H, W, 3) each."""
    from PIL import Image

    rng = np.random.default_rng(0)
    size = (width + count, height + count // 2)
    layers = []
    for cell in (4, 16, 64):
        coarse = rng.integers(0, 256, (size[1] // cell + 2, size[0] // cell + 2, 3), dtype=np.uint8)
        layers.append(np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.float32) / 3)
    whole = sum(layers)
    noise = rng.integers(-4, 5, (8, height, width, 1))
    return [
        np.clip(whole[i // 2 : i // 2 + height, i : i + width] + noise[i % 8], 0, 255).astype(np.uint8)
        for i in range(count)
    ]


def write(path: Path, frames: list[NDArray[np.uint8]], interval: int) -> None:
    import av

    with av.open(str(path), "w") as file:
        options = {"preset": "fast", "crf": "25", "g": str(interval)}
        stream: Any = file.add_stream("libx264", rate=30, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def seconds(path: Path, decoder: Decoder, indices: NDArray[np.int64], short_side: int | None) -> float:
    """Seconds to open a file, read a clip, and close it."""
    since = time.perf_counter()
    reader = open_video(path, decoder, short_side)
    reader.frames(indices)
    reader.close()
    return time.perf_counter() - since


def main(rounds: Annotated[int, typer.Option(min=1, help="Times that everything is read.")] = 7) -> None:
    """Print clips a second of each decoder, and their ratios to decord."""
    torch.set_num_threads(1)
    console = Console(width=120)
    decoders = [cast(Decoder, name) for name in DECODERS if not why_unusable(name)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        small = scene(300, 256, 340)
        files = {f"340x256 key {interval}": (root / f"{interval}.mp4", None) for interval in (12, 50, 250)}
        for interval in (12, 50, 250):
            write(root / f"{interval}.mp4", small, interval)
        write(root / "large.mp4", scene(150, 1080, 1920), 250)
        files["1080p"] = (root / "large.mp4", None)
        files[f"1080p to {SHORT_SIDE}"] = (root / "large.mp4", SHORT_SIDE)
        table = Table("file", "clip", *(name for name in decoders), *(f"{name}/decord" for name in decoders))
        for title, (path, short_side) in files.items():
            for sampling in ("dense", "uniform"):
                taken: dict[str, list[float]] = {name: [] for name in decoders}
                for number in range(rounds + 1):
                    rng = np.random.default_rng(number)
                    count = len(open_video(path))
                    indices = train_indices(cast(Any, sampling), count, FRAMES, STRIDE, rng)
                    for name in decoders:
                        found = seconds(path, name, indices, short_side)
                        if number:  # the first round warms up
                            taken[name].append(found)
                speeds = [f"{1 / statistics.median(taken[name]):.1f}" for name in decoders]
                base = taken["decord" if "decord" in taken else decoders[0]]
                ratios = [
                    f"{statistics.median(b / t for b, t in zip(base, taken[name], strict=True)):.2f}"
                    for name in decoders
                ]
                table.add_row(title, sampling, *speeds, *ratios)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
