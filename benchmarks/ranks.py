"""Efficiency of a training step on several processes against one, on one device or core each.

    python -m benchmarks.ranks --processes 2 --out results/ranks-cpu.csv

Rounds alternate in one run, so that what else the machine does hits both sides: rank 0 alone takes steps of the whole
batch, on one core and on as many as all ranks have; then all ranks take them together, each with its share and on its
core. On GPUs rank 0 has one and all ranks have one each. Times are medians over the rounds.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.families import build, resolve
from bench.spec import Recipe
from bench.train.ranks import ALONE, Ranks
from bench.train.trainer import Trainer
from benchmarks.record import provenance, write_csv


def timed(backbone: str, strategy: str, batch: int, frames: int, rounds: int, gpu: bool) -> list[dict[str, Any]]:
    """A rank's part; rank 0 returns the rows."""
    number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", number) if gpu else torch.device("cpu")
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    ranks = Ranks(number, size)
    torch.manual_seed(0)
    model = _model(backbone, strategy, frames)
    recipe = Recipe(batch_size=batch, drop_path=0.0, dropout=0.0)
    trainer = Trainer(model, recipe, device, "fp32", ranks=ranks)
    trainer.expect(batch)
    side = model.backbone.input_size
    clips = torch.randint(256, (batch, frames, 3, side, side), dtype=torch.uint8)
    labels = torch.arange(batch) % 10
    own = list(ranks.share(batch))
    clips, labels, share, share_labels = (each.to(device) for each in (clips, labels, clips[own], labels[own]))

    def together() -> None:
        trainer.step(share, share_labels)

    def alone() -> None:
        trainer.ranks, trainer._agree, trainer.micro_batch = ALONE, ALONE.any, batch
        trainer.step(clips, labels)
        trainer.ranks, trainer._agree, trainer.micro_batch = ranks, ranks.any, trainer.share

    def sums() -> None:
        ranks.sum([parameter.grad for _, parameter in model.trained() if parameter.grad is not None])

    ways: list[tuple[str, int, int, Callable[[], None]]] = [("one process", 1, 1, alone)]
    ways += [] if gpu else [("one process", 1, size, alone)]
    ways += [("ranks", size, 1, together), ("sums of gradients", size, 1, sums)]
    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for (_, processes, threads, work), found in zip(ways, seconds, strict=True):
            ranks.any(False)  # the others wait here while rank 0 works alone
            torch.set_num_threads(threads)
            if processes == 1 and number:
                continue
            begun = time.perf_counter()
            work()
            if gpu:
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                found.append(time.perf_counter() - begun)
    dist.destroy_process_group()
    if number:
        return []
    first = statistics.median(seconds[0])
    return [
        {
            "backbone": backbone, "strategy": strategy, "batch": batch, "frames": frames, "what": what,
            "processes": processes, "threads": threads, "ms": 1e3 * statistics.median(found),
            "ms_least": 1e3 * min(found), "ms_most": 1e3 * max(found), "rounds": rounds,
            "speedup": first / statistics.median(found) if what != "sums of gradients" else None,
            "gradient_bytes": trainer.gradient_bytes if processes > 1 else None,
        }
        for (what, processes, threads, _), found in zip(ways, seconds, strict=True)
    ]  # fmt: skip


def _model(backbone: str, strategy: str, frames: int) -> VideoClassifier:
    chosen = STRATEGIES.get(strategy)
    return VideoClassifier(build(resolve(backbone, "base")), chosen, chosen.options(), classes=10, frames=frames)


def main(
    processes: int = 2,
    backbone: str = "vit:base@none",
    strategy: str = "joint",
    batch: int = 2,
    frames: int = 4,
    rounds: int = 5,
    gpu: Annotated[bool, typer.Option("--gpu")] = False,
    out: Path = Path("results/ranks-cpu.csv"),
) -> None:
    """Measure and print; write the CSV file."""
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="ranks", rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1", max_restarts=0, start_method="spawn",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )  # fmt: skip
        rows = elastic_launch(config, timed)(backbone, strategy, batch, frames, rounds, gpu)[0]
    for row in rows:
        row |= provenance("cuda" if gpu else "cpu")
        speedup = "" if row["speedup"] is None else f", {row['speedup']:.2f} x"
        print(f"{row['what']}, {row['processes']} x {row['threads']} threads: {row['ms']:.0f} ms{speedup}")
    write_csv(out, rows)


if __name__ == "__main__":
    typer.run(main)
