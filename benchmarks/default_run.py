"""Wall time of the default run, by that of a plain loop of torch over the same trainings and evaluations.

    python -m benchmarks.default_run --out results/default-run-cpu.csv

The plain loop builds the same models, reads each video once with PyAV and keeps it in memory, trains with the same
steps of AdamW, and evaluates on the validation videos and, in the three orders of the frames, on the test videos. It
writes nothing, measures no speed and counts nothing. As many processes as `bench run` has workers share its cells, a
thread each, and one takes the next cell when it is done with the last. Both start with the embedded videos rendered.
`bench run` is the command as a user types it, its start, its measurements and its report included. Rounds alternate.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.multiprocessing as multiprocessing
import torch.nn.functional as F
import typer
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.data.dataset import DATASETS, Split, VideoDataset
from bench.run.build import classifier
from bench.run.matrix import expand
from bench.run.store import Run
from bench.spec import Cell, Matrix
from benchmarks.record import provenance, write_csv

ROOT = Path(__file__).resolve().parent.parent


def clips_of(dataset: VideoDataset, split: Split, frames: int) -> tuple[Tensor, Tensor]:
    """Clips (V, T, 3, H, W) float32 in 0..1, of frames spread evenly over each video, and labels (V,)."""
    import av

    clips, labels = [], []
    for video in dataset.videos(split):
        with av.open(str(video.path)) as container:
            shown = torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode()])
        places = torch.arange(frames) * len(shown) // frames + len(shown) // frames // 2
        clips.append(shown[places].permute(0, 3, 1, 2))
        labels.append(video.label)
    return torch.stack(clips).float() / 255, torch.tensor(labels)


def train_and_evaluate(cell: Cell, data: dict[Split, tuple[Tensor, Tensor]], classes: int) -> dict[str, float]:
    """Accuracies of a cell's model after its recipe's epochs, in percent."""
    torch.manual_seed(cell.seed)
    model = classifier(cell, classes)
    recipe = cell.recipe
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.backbone.mean, model.backbone.std))
    head = {id(parameter) for parameter in model.head.parameters()}
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for _, parameter in model.trained():
        groups.setdefault(recipe.head_lr if id(parameter) in head else recipe.lr, []).append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": group, "lr": lr} for lr, group in groups.items()],
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    clips, labels = data["train"]
    steps = -(-len(clips) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, list(groups), total_steps=recipe.epochs * steps, cycle_momentum=False
    )
    model.train()
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(clips)).split(recipe.batch_size):
            loss = F.cross_entropy(model((clips[batch] - mean) / std), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()

    @torch.inference_mode()
    def accuracy(clips: Tensor, labels: Tensor) -> float:
        right = 0
        for some, label in zip(clips.split(recipe.batch_size), labels.split(recipe.batch_size), strict=True):
            right += int((model((some - mean) / std).argmax(1) == label).sum())
        return 100 * right / len(labels)

    clips, labels = data["test"]
    return {
        "val": accuracy(*data["val"]),
        "top1": accuracy(clips, labels),
        "reversed": accuracy(clips.flip(1), labels),
        "shuffled": accuracy(clips[:, torch.randperm(clips.shape[1])], labels),
    }


def work(waiting: Any, found: Any) -> None:
    """Take cells until there are none."""
    torch.set_num_threads(1)
    data: dict[Split, tuple[Tensor, Tensor]] = {}
    while (cell := waiting.get()) is not None:
        dataset = DATASETS.get(cell.dataset)(cell.data)
        splits: tuple[Split, ...] = ("train", "val", "test")
        data = data or {split: clips_of(dataset, split, cell.frames) for split in splits}
        begun = time.perf_counter()
        accuracies = train_and_evaluate(cell, data, len(dataset.classes))
        found.put((cell.label, accuracies, time.perf_counter() - begun))


def plain(cells: list[Cell], processes: int) -> tuple[float, dict[str, float]]:
    """Seconds of the loop over all cells, the start of its processes included, and each cell's top-1 in percent."""
    context = multiprocessing.get_context("spawn")
    waiting, found = context.Queue(), context.Queue()
    for cell in [*cells, *[None] * processes]:
        waiting.put(cell)
    begun = time.perf_counter()
    workers = [context.Process(target=work, args=(waiting, found)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    told = [found.get() for _ in cells]
    for worker in workers:
        worker.join()
    return time.perf_counter() - begun, {label: accuracies["top1"] for label, accuracies, _ in told}


def main(
    rounds: Annotated[int, typer.Option(help="Of the loop and of the command, one after the other.")] = 3,
    processes: Annotated[int, typer.Option(help="Of the loop; workers of the command.")] = os.cpu_count() or 1,
    backbones: Annotated[str, typer.Option(help="Comma list.")] = "clip,vit",
    out: Annotated[Path | None, typer.Option(help="CSV file.")] = None,
) -> None:
    """Print the command's time by the loop's, the median of the rounds' own ratios."""
    cells = list(expand(Matrix(backbones=tuple(backbones.split(",")), device="cpu")).cells)
    for name in {cell.dataset for cell in cells}:
        DATASETS.get(name)(None).prepare()
    rows = []
    for number in range(rounds):
        loop, loop_top1 = plain(cells, processes)
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["--backbones", backbones, "--workers", str(processes), "--device", "cpu", "--out", folder]
            begun = time.perf_counter()
            command = [sys.executable, "-m", "bench.cli.main", "run", *arguments]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            took = time.perf_counter() - begun
            results = Run(Path(folder)).results()
        own = [sum(result.seconds.get(name, 0.0) for name in ("train", "evaluate")) for result in results]
        top1 = [result.metrics.top1 for result in results if result.metrics]
        rows.append(
            {
                "round": number,
                "cells": len(cells),
                "processes": processes,
                "plain_seconds": loop,
                "run_seconds": took,
                "ratio": took / loop,
                "run_train_evaluate_seconds": sum(own) / processes,
                "plain_top1": statistics.fmean(loop_top1.values()),
                "run_top1": statistics.fmean(top1),
                "load": os.getloadavg()[2],
                **provenance("cpu"),
            }
        )
        typer.echo(f"plain loop {loop:.1f} s, bench run {took:.1f} s: {took / loop:.3f}")
        if out is not None:
            write_csv(out, rows)
    ratios = [row["ratio"] for row in rows]
    typer.echo(f"bench run / plain loop: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    typer.run(main)
