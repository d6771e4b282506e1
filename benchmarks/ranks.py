"""Efficiency of a training step on several processes against one, on one device or core each.

    python -m benchmarks.ranks --processes 2 --out results/ranks-cpu.csv

Rounds alternate in one run, so that what else the machine does hits both sides: rank 0 alone takes steps of the whole
batch, on one core and on as many as all ranks have; then all ranks take them together, each with its share and on its
core. On GPUs rank 0 has one and all ranks have one each. "plain" are rank 0's steps without what several processes
need, and "sums of one" its gradients summed with nobody's, which only copies them.

Times are medians over the rounds, with quartiles; speed-ups medians of the rounds' own ratios. CPU seconds are those of
all the processes that took part, threads that wait in a loop included.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as functional
import typer
from torch import Tensor
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.families import build, resolve
from bench.spec import Recipe
from bench.train.ranks import ALONE, Ranks
from bench.train.trainer import Trainer
from benchmarks.record import add_to_csv, provenance, write_csv


def timed(backbone: str, strategy: str, batch: int, frames: int, rounds: int, gpu: bool) -> list[dict[str, Any]]:
    """A rank's part; rank 0 returns the rows."""
    number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", number) if gpu else torch.device("cpu")
    if sys.platform == "linux":  # all are on this machine, whatever its name resolves to
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
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

    def plain() -> None:
        trainer.optimiser.zero_grad(set_to_none=True)
        logits = trainer.computation(clips, batch)
        functional.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing).backward()
        trainer.optimiser.step()

    def gradients() -> list[Tensor]:
        return [parameter.grad for _, parameter in model.trained() if parameter.grad is not None]

    def sums() -> None:
        ranks.sum(gradients())

    only_first = dist.new_group([0])

    def sums_of_one() -> None:
        with patch.object(dist, "all_reduce", partial(dist.all_reduce, group=only_first)):
            ranks.sum(gradients())

    ways: list[tuple[str, int, int, Callable[[], None]]] = [("one process", 1, 1, alone), ("plain", 1, 1, plain)]
    ways += [] if gpu else [("one process", 1, size, alone)]
    ways += [("ranks", size, 1, together), ("sums of gradients", size, 1, sums), ("sums of one", 1, 1, sums_of_one)]
    seconds: list[list[float]] = [[] for _ in ways]
    worked: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for way, (_, processes, threads, work) in enumerate(ways):
            ranks.any(False)  # the others wait here while rank 0 works alone
            torch.set_num_threads(threads)
            begun, before = time.perf_counter(), time.process_time()
            if processes > 1 or not number:
                work()
            if gpu:
                torch.cuda.synchronize()
            taken, used = time.perf_counter() - begun, time.process_time() - before
            used_by_all = sum(ranks.gather(used)) if processes > 1 else used
            if turn:  # the first one warms up
                seconds[way].append(taken)
                worked[way].append(used_by_all)
    dist.destroy_process_group()
    if number:
        return []
    rows = []
    for (what, processes, threads, _), found, used_in in zip(ways, seconds, worked, strict=True):
        step = not what.startswith("sums")
        speedups = [one / this for one, this in zip(seconds[0], found, strict=True)]
        works = [this / one for one, this in zip(worked[0], used_in, strict=True)]
        row: dict[str, Any] = {"backbone": backbone, "strategy": strategy, "batch": batch, "frames": frames}
        row |= {"what": what, "processes": processes, "threads": threads, "ms": 1e3 * statistics.median(found)}
        row |= {f"ms_{name}": 1e3 * value for name, value in quartiles(found).items()}
        row |= {"cpu_ms": 1e3 * statistics.median(used_in)}
        row |= {"speedup": statistics.median(speedups) if step else None}
        row |= {f"speedup_{name}": value if step else None for name, value in quartiles(speedups).items()}
        row |= {"cpu_ratio": statistics.median(works) if step else None}
        row |= {f"cpu_ratio_{name}": value if step else None for name, value in quartiles(works).items()}
        row |= {"rounds": rounds, "gradient_bytes": trainer.gradient_bytes if processes > 1 else None}
        rows.append(row)
    return rows


def quartiles(values: list[float]) -> dict[str, float]:
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"lower": lower, "upper": upper}


def _model(backbone: str, strategy: str, frames: int) -> VideoClassifier:
    chosen = STRATEGIES.get(strategy)
    return VideoClassifier(build(resolve(backbone, "base")), chosen, chosen.options(), classes=10, frames=frames)


def main(
    processes: int = 2,
    backbone: str = "vit:vit_base_patch16_224@none",
    strategy: str = "joint",
    batch: int = 2,
    frames: int = 4,
    rounds: int = 5,
    gpu: Annotated[bool, typer.Option("--gpu")] = False,
    append: Annotated[bool, typer.Option("--append", help="Below the rows of the file.")] = False,
    out: Path = Path("results/ranks-cpu.csv"),
) -> None:
    """Measure and print; write the CSV file."""
    about, load = provenance("cuda" if gpu else "cpu"), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="ranks", rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1", max_restarts=0, start_method="spawn",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )  # fmt: skip
        rows = elastic_launch(config, timed)(backbone, strategy, batch, frames, rounds, gpu)[0]
    for row in rows:
        row |= {"load": load, **about}
        ratios = (
            "" if row["speedup"] is None else f", {row['speedup']:.2f} x as fast, {row['cpu_ratio']:.2f} x the CPU's"
        )
        print(
            f"{row['what']}, {row['processes']} x {row['threads']} threads: {row['ms']:.0f} ms, "
            f"{row['cpu_ms']:.0f} of the CPU{ratios}"
        )
    (add_to_csv if append else write_csv)(out, rows)


if __name__ == "__main__":
    typer.run(main)
