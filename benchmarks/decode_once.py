"""A matrix whose cells share one set of decoding processes, against its cells one after the other, each decoding alone.

    python -m benchmarks.decode_once --out results/decode-once-cpu.csv

The videos are made here, of Kinetics' kind: 340x256, 10 s, 300 frames, H.264 with a key frame every 250. Six strategies
on one tiny backbone of 32 pixels take less time to compute than their clips to decode. `bench run` executes all six
side by side, with a folder of cached frames that is new; `--cache off` is a data set too large for any cache, each clip
of which is decoded when it is shown. The plain reference trains and evaluates the same models one after the other, in
one process that imports its libraries once: torch's DataLoader with a process a core, decord, torchvision's crops.
`bench run` is the command as a user types it: its start and its measurements are in its time, and named beside it.

CPU seconds of decoding are those of the decoding processes as they were last seen, ten times a second, and in the plain
reference those that a clip takes from its file to its crop.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.data.decode_worker import NAME
from bench.data.sampling import train_indices
from bench.measure.machine import cores
from bench.run.build import classifier
from bench.run.matrix import expand
from bench.run.store import Run
from bench.spec import Cell, Matrix
from benchmarks.loader import kinetics_like
from benchmarks.record import add_to_csv, provenance

ROOT = Path(__file__).resolve().parent.parent
BACKBONE, CLASSES, FRAMES, SIZE = "vit:tiny@none", ("left", "right"), 8, 32


def make_videos(folder: Path, train: int, val: int) -> None:
    """train/<class>/<i>.mp4 and val/<class>/<i>.mp4, those that are not there yet."""
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            path = folder / split / CLASSES[i % 2] / f"{i}.mp4"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                kinetics_like(path.with_suffix(".part.mp4"), i + 1000 * (split == "val"))
                path.with_suffix(".part.mp4").rename(path)


class Clips(Dataset[tuple[Tensor, int, float]]):
    """The clips of a split: (T, 3, S, S) uint8, label, CPU seconds from the file to the crop."""

    def __init__(self, folder: Path, training: bool) -> None:
        self.videos = [
            (path, label) for label, name in enumerate(CLASSES) for path in sorted((folder / name).iterdir())
        ]
        self.training = training
        middle = v2.Compose([v2.Resize(round(SIZE * 256 / 224)), v2.CenterCrop(SIZE)])
        crop = v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()])
        self.transform: nn.Module = crop if training else middle

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[Tensor, int, float]:
        import decord

        begun = time.process_time()
        path, label = self.videos[index]
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        if self.training:
            wanted = train_indices("uniform", len(reader), FRAMES, 1, np.random.default_rng())
        else:
            wanted = (np.arange(FRAMES) * 2 + 1) * len(reader) // (2 * FRAMES)
        frames = torch.from_numpy(reader.get_batch(wanted).asnumpy()).permute(0, 3, 1, 2)
        return self.transform(frames), label, time.process_time() - begun


def plain_cell(cell: Cell, folder: Path, processes: int) -> float:
    """Train and evaluate a cell's model: the validation once, the test in three orders. CPU seconds of decoding."""
    model = classifier(cell, len(CLASSES))
    recipe = cell.recipe
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.backbone.mean, model.backbone.std))
    optimiser = torch.optim.AdamW([parameter for _, parameter in model.trained()], lr=recipe.lr)
    how: dict[str, Any] = {"batch_size": recipe.batch_size, "num_workers": processes, "persistent_workers": True}
    train = DataLoader(Clips(folder / "train", True), shuffle=True, drop_last=True, **how)
    val = DataLoader(Clips(folder / "val", False), **how)
    decoding = 0.0
    model.train()
    for _ in range(recipe.epochs):
        for clips, labels, seconds in train:
            decoding += float(seconds.sum())
            loss = F.cross_entropy(model((clips / 255 - mean) / std), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()
    with torch.inference_mode():
        for orders in (1, 3):  # of the validation and of the test, which here are the same videos
            for clips, _, seconds in val:
                decoding += float(seconds.sum())
                for _ in range(orders):
                    model((clips / 255 - mean) / std).argmax(1)
    return decoding


def plain(cells: list[Cell], folder: Path, processes: int) -> tuple[float, float]:
    """Wall seconds of the cells one after the other, and CPU seconds of their decoding."""
    begun = time.perf_counter()
    decoding = sum(plain_cell(cell, folder, processes) for cell in cells)
    return time.perf_counter() - begun, decoding


def decoding_seconds(command: subprocess.Popen[bytes]) -> Iterator[float]:
    """CPU seconds of the decoding processes that the command has started so far, until it ends."""
    found: dict[int, float] = {}
    parent = psutil.Process(command.pid)
    while command.poll() is None:
        for process in parent.children(recursive=True):
            try:
                if process.name() == NAME:
                    used = process.cpu_times()
                    found[process.pid] = used.user + used.system
            except psutil.Error:
                continue
        yield sum(found.values())
        time.sleep(0.1)


def ours(arguments: list[str], cells: int, cache: str) -> dict[str, Any]:
    """The columns of `bench run` on the matrix, all cells side by side."""
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "run"
        options = ["--workers", str(cells), "--cache", cache, "--out", str(out)]
        environment = {**os.environ, "AIM_BENCH_CACHE": str(Path(made) / "cache")}
        begun = time.perf_counter()
        command = subprocess.Popen(
            [sys.executable, "-m", "bench.cli.main", "run", *arguments, *options],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        decoding = 0.0
        for seen in decoding_seconds(command):
            decoding = seen
        took = time.perf_counter() - begun
        if command.returncode:
            raise RuntimeError(f"bench run ended with exit code {command.returncode}")
        results = Run(out).results()
        longest = max(result.provenance.wall_seconds for result in results)
    return {"run_seconds": took, "run_longest_cell_seconds": longest, "run_decoding_cpu_seconds": decoding}


def main(
    rounds: Annotated[int, typer.Option(help="Of the reference and the commands, one after the other.")] = 1,
    strategies: Annotated[str, typer.Option(help="Comma list.")] = "frozen,full,spatial,temporal,joint,lora",
    train: Annotated[int, typer.Option(help="Training videos.")] = 24,
    val: Annotated[int, typer.Option(help="Validation videos, which are the test's too.")] = 6,
    epochs: Annotated[int, typer.Option(help="Of each training.")] = 8,
    videos: Annotated[Path | None, typer.Option(help="Folder that keeps the videos for another time.")] = None,
    caches: Annotated[str, typer.Option(help="Comma list of --cache of the command.")] = "off,auto",
    out: Annotated[Path | None, typer.Option(help="CSV file, to which rows are added.")] = None,
) -> None:
    """Print the command's time by the plain reference's, and the same of the CPU seconds of decoding."""
    with tempfile.TemporaryDirectory() as made:
        folder = videos or Path(made)
        make_videos(folder, train, val)
        recipe = {"epochs": epochs, "batch_size": 8}
        matrix = Matrix(
            backbones=(BACKBONE,),
            strategies=tuple(strategies.split(",")),
            datasets=("folder",),
            data_root=folder,
            frames=(FRAMES,),
            recipe=recipe,
            device="cpu",
        )
        cells = list(expand(matrix).cells)
        arguments = ["--backbones", BACKBONE, "--strategies", strategies, "--dataset", "folder", "--device", "cpu"]
        arguments += ["--data-root", str(folder), "--frames", str(FRAMES), "--epochs", str(epochs), "--batch-size", "8"]
        for number in range(rounds):
            reference, decoding = plain(cells, folder, cores())
            for cache in caches.split(","):
                found = ours(arguments, len(cells), cache)
                row = {
                    "round": number,
                    "cells": len(cells),
                    "clips_of_a_cell": epochs * (train - train % 8) + 2 * val,
                    "cache": cache,
                    "plain_seconds": reference,
                    "plain_decoding_cpu_seconds": decoding,
                    **found,
                    "ratio": found["run_seconds"] / reference,
                    "cells_ratio": found["run_longest_cell_seconds"] / reference,
                    "decoding_ratio": found["run_decoding_cpu_seconds"] / decoding,
                    "load": os.getloadavg()[0],
                    **provenance("cpu"),
                }
                typer.echo(
                    f"cache {cache}: plain {reference:.1f} s, bench run {row['run_seconds']:.1f} s, {row['ratio']:.3f} "
                    f"(its cells alone {row['cells_ratio']:.3f}); decoding {row['decoding_ratio']:.3f}"
                )
                if out is not None:
                    add_to_csv(out, [row])


if __name__ == "__main__":
    typer.run(main)
