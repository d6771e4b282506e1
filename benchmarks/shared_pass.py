"""Trials of a frozen probe that train from one forward pass a batch, against one trial alone.

    python -m benchmarks.shared_pass --out results/shared-pass-cpu.csv
    python -m benchmarks.shared_pass --backbone clip:ViT-L-14 --frames 8 --batch-size 32 --videos 40 --device cuda

A trial is what `bench run --tune` makes of the strategy: it trains on a part of `motion`, its frames made as large as
the backbone's, and is evaluated on the validation videos. Trials differ in learning rate and weight decay. In each
round one trial is executed alone, then all of them together, in this process; both build the backbone, load, train,
evaluate and write. Seconds are of the whole, and of the training; the processor's seconds, over all threads, tell of a
machine that does other things as well.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.data.dataset import register_dataset
from bench.data.decode_pool import Reading
from bench.data.motion.dataset import Motion
from bench.run.cell import execute
from bench.run.context import WorkerContext
from bench.run.matrix import expand
from bench.run.repeatable import in_this_process
from bench.run.result import Result
from bench.run.together import Member, execute_together
from bench.spec import Cell, Matrix, Trial
from bench.spec.source import DataSource
from benchmarks.record import provenance, write_csv


def trials(matrix: Matrix, count: int) -> list[Cell]:
    """Trials of the matrix's one cell, whose rates are a factor of 10 about its own."""
    (cell,) = expand(matrix).cells
    found = []
    for number in range(count):
        factor = 10 ** (2 * number / max(1, count - 1) - 1)
        changes = {"head_lr": cell.recipe.head_lr * factor, "weight_decay": cell.recipe.weight_decay / factor}
        found.append(
            cell.model_copy(
                update={
                    "recipe": cell.recipe.model_copy(update=changes),
                    "stages": ("train", "evaluate"),
                    "split": "val",
                    "clips": 1,
                    "crops": 1,
                    "order_test": False,
                    "trial": Trial(number=number, untuned={}),
                }
            )
        )
    return found


def run(cells: list[Cell], context: WorkerContext, folder: Path, threads: int) -> tuple[float, float, list[Result]]:
    """Seconds and processor seconds of cells, together where they are several, and their results.

    Raises what ends one of them.
    """
    members = []
    for cell in cells:
        (folder / cell.key).mkdir(parents=True)
        members.append(Member(cell, folder / cell.key))
    results = []

    def call() -> None:
        if len(cells) == 1:
            results.append(execute(cells[0], context, folder=members[0].folder))
            return
        for _, outcome in execute_together(members, context, lambda cell, event: None):
            if isinstance(outcome, Exception):
                raise outcome
            results.append(outcome)

    begun, worked = time.perf_counter(), time.process_time()
    in_this_process(context, threads, call)
    return time.perf_counter() - begun, time.process_time() - worked, results


def main(
    backbone: Annotated[str, typer.Option(help="family:model@weights.")] = "vit:vit_base_patch16_224@none",
    strategy: Annotated[str, typer.Option(help="frozen or evl.")] = "frozen",
    head: Annotated[str, typer.Option(help="What scores the classes.")] = "linear",
    cells: Annotated[int, typer.Option(help="Trials that train together.")] = 12,
    frames: Annotated[int, typer.Option(help="Of a clip.")] = 2,
    batch_size: Annotated[int, typer.Option(help="Clips a step.")] = 4,
    videos: Annotated[
        int, typer.Option(help="Training videos of each of 10 classes; a tenth as many to validate.")
    ] = 2,
    epochs: Annotated[int, typer.Option(help="Of a trial.")] = 1,
    rounds: Annotated[int, typer.Option(help="Of one alone and all together.")] = 3,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    threads: Annotated[int, typer.Option(help="Of the CPU.")] = torch.get_num_threads(),
    out: Annotated[Path | None, typer.Option(help="Also write the rounds as CSV.")] = None,
) -> None:
    """Print what trials cost together, in trials alone."""

    @register_dataset("part")
    class Part(Motion):
        name = "part"
        summary = "motion with fewer videos"
        recipes: ClassVar = {"part": {"recipe": {"warmup_epochs": 0.0}}}

        def __init__(self, source: DataSource | None = None) -> None:
            super().__init__(source, train=videos, val=max(1, videos // 10), test=1)

    Part(None).prepare()
    matrix = Matrix(
        backbones=(backbone,),
        strategies=(strategy,),
        heads=(head,),
        datasets=("part",),
        frames=(frames,),
        recipe={"epochs": epochs, "batch_size": batch_size},
        device=device,
        precision=precision,
    )
    chosen = trials(matrix, cells)
    about = {
        "backbone": backbone, "strategy": strategy, "head": head, "cells": cells, "frames": frames,
        "batch_size": batch_size, "train_videos": 10 * videos, "epochs": epochs, "precision": precision,
        "threads": threads, **provenance(device),
    }  # fmt: skip
    console = Console(width=120)
    console.print(f"{about['device']}, torch {about['torch']}, {threads} threads, commit {about['commit']}")
    context = WorkerContext(torch.device(device), Reading(), "benchmarks.shared_pass")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="aim-bench-shared-") as folder:
        run(chosen[:1], context, Path(folder) / "first", threads)  # pays for what a process loads once
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="aim-bench-shared-") as folder:
            alone, alone_cpu, (one,) = run(chosen[:1], context, Path(folder) / "alone", threads)
            together, together_cpu, all_of_them = run(chosen, context, Path(folder) / "together", threads)
        trained = max(result.training.train_seconds for result in all_of_them if result.training is not None)
        assert one.training is not None
        rows.append(
            {
                "round": number,
                "alone_seconds": alone,
                "together_seconds": together,
                "ratio": together / alone,
                "alone_cpu_seconds": alone_cpu,
                "together_cpu_seconds": together_cpu,
                "cpu_ratio": together_cpu / alone_cpu,
                "alone_train_seconds": one.training.train_seconds,
                "together_train_seconds": trained,
                "train_ratio": trained / one.training.train_seconds,
                **about,
            }
        )
        if out is not None:
            write_csv(out, rows)
        console.print(
            f"round {number}: one alone {alone:.1f} s, {cells} together {together:.1f} s, ratio {together / alone:.2f} "
            f"({together_cpu / alone_cpu:.2f} of processor seconds; training "
            f"{trained / one.training.train_seconds:.2f})"
        )
    for name, of in (("ratio", "time"), ("cpu_ratio", "processor time")):
        ratios = [row[name] for row in rows]
        console.print(
            f"{cells} trials of {strategy}+{head} on {backbone} cost {statistics.median(ratios):.2f} times the {of} "
            f"of one ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    typer.run(main)
