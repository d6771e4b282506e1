"""Wall time of the default run by what training and evaluating the same cells takes in a plain loop of torch.

    python -m benchmarks.default_run --out results/default-run-cpu.csv

The plain loop is the script that one would write without a harness: a Dataset that reads each video once with PyAV and
keeps it in memory, torch's DataLoader, the same models, recipe, crops and steps, then the validation videos and, in the
three orders of the frames, the test videos. It writes nothing, measures no speed and counts nothing. As many processes
as `bench run` has workers share its cells, a thread each, and take the next cell when they are done with the last.

`bench run` is the command as a user types it: its start, its measurements, its files and its table included. Both begin
with the embedded videos rendered. Rounds alternate which of the two goes first. No other `bench run`
may go on meanwhile: the command would wait for its measurements, and find its decoded frames.

`ratio` is the command's wall time by the seconds of the loop's cells, summed over the cells and divided by the
processes: neither the start of the loop's processes nor its wait for the last of them counts. `ratio_started` is by the
loop's wall time, in which both do.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.multiprocessing as multiprocessing
import torch.nn.functional as F
import typer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.data.dataset import DATASETS, SPLITS, Split, VideoDataset
from bench.data.sampling import uniform_test, uniform_train
from bench.data.transforms import before_crop
from bench.run.build import classifier
from bench.run.matrix import expand
from bench.run.store import Run
from bench.spec import Cell, Matrix
from bench.train.optimiser import adamw, lr_scale
from benchmarks.record import provenance, write_csv

ROOT = Path(__file__).resolve().parent.parent


@cache
def frames_of(path: Path) -> Tensor:
    """All frames of a video, uint8 (N, 3, H, W), read once a process."""
    import av

    # a thread, and one converter for all frames: twice as fast as the library's defaults on videos as small as these
    converter = av.video.reformatter.VideoReformatter()
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        shown = [converter.reformat(frame, format="rgb24").to_ndarray() for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2)


class Videos(Dataset[tuple[Tensor, int]]):
    """Clips (T, 3, S, S) uint8 and labels of a split: a frame of each segment, cropped as the recipe has it.

    In training the frames and the crop are random; the validation's centre is a little enlarged, the test's is not.
    """

    def __init__(self, dataset: VideoDataset, split: Split, cell: Cell, size: int) -> None:
        self.videos, self.frames, self.training = dataset.videos(split), cell.frames, split == "train"
        self.rng = np.random.default_rng(cell.seed)
        bilinear = {"interpolation": v2.InterpolationMode.BILINEAR, "antialias": True}
        crop: v2.Transform = v2.RandomResizedCrop(size, scale=cell.recipe.crop_area, ratio=(3 / 4, 4 / 3), **bilinear)
        if not self.training:
            side = before_crop(size) if split == "val" else size
            crop = v2.Compose([v2.Resize(side, **bilinear), v2.CenterCrop(size)])
        self.crop = crop

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        video = self.videos[index]
        shown = frames_of(video.path)
        if self.training:
            places = uniform_train(len(shown), self.frames, self.rng)
        else:
            places = uniform_test(len(shown), self.frames)
        return self.crop(shown[places]), video.label


@dataclass
class Ended:
    """Accuracies of a cell's model after its recipe's epochs, in percent, and the seconds that it took.

    Attributes:
        seconds: all that was done, reading included.
        reading: seconds in which the process read videos that it had not read before.
    """

    accuracies: dict[str, float]
    seconds: float
    reading: float


def train_and_evaluate(cell: Cell) -> Ended:
    """Train a cell's model, and evaluate it on the validation and the test videos."""
    begun = time.perf_counter()
    torch.manual_seed(cell.seed)
    dataset, recipe = DATASETS.get(cell.dataset)(cell.data), cell.recipe
    for split in SPLITS:
        for video in dataset.videos(split):
            frames_of(video.path)
    reading = time.perf_counter() - begun
    model = classifier(cell, len(dataset.classes))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.backbone.mean, model.backbone.std))
    loaders = {
        split: DataLoader(
            Videos(dataset, split, cell, model.backbone.input_size),
            recipe.batch_size,
            shuffle=split == "train",
            drop_last=split == "train",
        )
        for split in SPLITS
    }

    def normalised(clips: Tensor) -> Tensor:
        return (clips.float() / 255 - mean) / std

    if recipe.time_init:
        first, _ = next(iter(loaders["train"]))
        model.body.start(normalised(first), recipe.time_init)
    optimiser = adamw(model, recipe)
    steps = len(loaders["train"])
    model.train()
    for epoch in range(recipe.epochs):
        for step, (clips, labels) in enumerate(loaders["train"], epoch * steps):
            for group in optimiser.param_groups:
                group["lr"] = group["base_lr"] * lr_scale(recipe, step, steps)
            loss = F.cross_entropy(model(normalised(clips)), labels, label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()
    right = {"val": 0, "top1": 0, "reversed": 0, "shuffled": 0}
    with torch.inference_mode():
        for clips, labels in loaders["val"]:
            right["val"] += int((model(normalised(clips)).argmax(1) == labels).sum())
        for clips, labels in loaders["test"]:
            orders = {"top1": clips, "reversed": clips.flip(1), "shuffled": clips[:, torch.randperm(clips.shape[1])]}
            for name, shown in orders.items():
                right[name] += int((model(normalised(shown)).argmax(1) == labels).sum())
    of = {name: len(dataset.videos("val" if name == "val" else "test")) for name in right}
    accuracies = {name: 100 * right[name] / of[name] for name in right}
    return Ended(accuracies, time.perf_counter() - begun, reading)


def plain(cells: list[Cell], processes: int) -> dict[str, Any]:
    """The loop over all cells: `wall` seconds, seconds of its `cells` and of their `reading` a process, mean `top1`.

    Raises whatever a cell raises, and BrokenProcessPool where a process dies.
    """
    begun = time.perf_counter()
    with concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        found = list(pool.map(train_and_evaluate, cells))
    return {
        "wall": time.perf_counter() - begun,
        "cells": sum(ended.seconds for ended in found) / processes,
        "reading": sum(ended.reading for ended in found) / processes,
        "top1": statistics.fmean(ended.accuracies["top1"] for ended in found),
    }


def harness(cells: list[Cell], arguments: list[str]) -> dict[str, Any]:
    """`bench run` of the same cells: `wall` seconds, `cells` seconds of training and evaluation, mean `top1`.

    Raises SystemExit where the command fails or leaves a cell without a result.
    """
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        command = [sys.executable, "-m", "bench.cli.main", "run", *arguments, "--out", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        wall = time.perf_counter() - begun
        if done.returncode:
            raise SystemExit(f"bench run ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        results = [result for result in Run(Path(folder)).results() if result.metrics is not None]
    phases = dict(re.findall(r"(measuring|training and evaluating|starting and preparing) (\d+) s", done.stdout))
    if {result.cell.key for result in results} != {cell.key for cell in cells}:
        raise SystemExit("bench run did not run the cells of the loop")
    return {
        "wall": wall,
        "cells": sum(sum(result.seconds.get(name, 0.0) for name in ("train", "evaluate")) for result in results),
        "phases": {name.replace(" ", "_"): int(seconds) for name, seconds in phases.items()},
        "top1": statistics.fmean(result.metrics.top1 for result in results if result.metrics),
    }


def main(
    rounds: Annotated[int, typer.Option(help="Of the loop and of the command, one after the other.")] = 3,
    processes: Annotated[int, typer.Option(help="Of the loop; workers of the command.")] = os.cpu_count() or 1,
    backbones: Annotated[str, typer.Option(help="Comma list.")] = ",".join(Matrix().backbones),
    strategies: Annotated[str, typer.Option(help="Comma list.")] = ",".join(Matrix().strategies),
    out: Annotated[Path | None, typer.Option(help="CSV file.")] = None,
) -> None:
    """Print the command's time by the loop's, the median of the rounds' own ratios."""
    matrix = Matrix(backbones=tuple(backbones.split(",")), strategies=tuple(strategies.split(",")), device="cpu")
    cells = list(expand(matrix).cells)
    for name in {cell.dataset for cell in cells}:
        DATASETS.get(name)(None).prepare()
    arguments = ["--backbones", backbones, "--strategies", strategies, "--workers", str(processes), "--device", "cpu"]
    sides = [("loop", lambda: plain(cells, processes)), ("run", lambda: harness(cells, arguments))]
    rows = []
    for number in range(rounds):
        found = {name: side() for name, side in (sides if number % 2 == 0 else reversed(sides))}
        loop, run = found["loop"], found["run"]
        rows.append(
            {
                "round": number,
                "cells": len(cells),
                "processes": processes,
                "ratio": run["wall"] / loop["cells"],
                "ratio_started": run["wall"] / loop["wall"],
                "run_seconds": run["wall"],
                "loop_seconds": loop["cells"],
                "loop_reading_seconds": loop["reading"],
                "loop_started_seconds": loop["wall"],
                "run_train_evaluate_seconds": run["cells"] / processes,
                **{f"run_{name}_seconds": seconds for name, seconds in run["phases"].items()},
                "loop_top1": loop["top1"],
                "run_top1": run["top1"],
                "load": os.getloadavg()[2],
                **provenance("cpu"),
            }
        )
        typer.echo(", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items() if isinstance(value, float)))
        if out is not None:
            write_csv(out, rows)
    ratios = [float(row["ratio"]) for row in rows]
    typer.echo(f"bench run / plain loop: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    typer.run(main)
