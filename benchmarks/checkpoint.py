"""Cost of a training's checkpoint: its size, the time to write it and to go on from it, beside a step of the training.

    python benchmarks/checkpoint.py --strategies joint,full --output results/checkpoint-cpu.csv

The share is what a checkpoint every ten minutes, the default, takes of a training's time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.families import build, resolve
from bench.measure.speed import synchronise
from bench.spec import Recipe
from bench.train.checkpoint import CheckpointFolder
from bench.train.trainer import Trainer
from benchmarks.record import provenance, write_csv

_INTERVAL = 600.0  # seconds, the default of --checkpoint-minutes


def trainer(model: str, strategy: str, device: torch.device) -> Trainer:
    """A trainer whose optimiser has its state: one step was taken."""
    torch.manual_seed(0)
    chosen = STRATEGIES.get(strategy)
    built = VideoClassifier(build(resolve(model, "base")), chosen, chosen.options(), classes=400, frames=8)
    found = Trainer(built, Recipe(batch_size=1), device, "fp32")
    size = built.backbone.input_size
    clips = torch.zeros(1, 8, 3, size, size, dtype=torch.uint8)
    found.step(clips, torch.zeros(1, dtype=torch.int64))
    return found


def seconds(call: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median over rounds."""
    taken = []
    for _ in range(rounds):
        synchronise(device)
        begun = time.perf_counter()
        call()
        synchronise(device)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def main(
    model: Annotated[str, typer.Option(help="The backbone.")] = "vit:vit_base_patch16_224@none",
    strategies: Annotated[str, typer.Option(help="Comma list.")] = "joint,full",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(help="Writes that are timed.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Disk to write to. [default: temporary files]")] = None,
    output: Annotated[Path | None, typer.Option(help="CSV file.")] = None,
) -> None:
    place = torch.device(device)
    rows: list[dict[str, Any]] = []
    for strategy in strategies.split(","):
        trained = trainer(model, strategy, place)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            kept = CheckpointFolder(Path(name) / "checkpoint", {"cell": "0"}, minutes=10)
            write = seconds(lambda: kept.write(trained.state_dict(), trained.steps), place, rounds)  # noqa: B023
            size = sum(file.stat().st_size for file in kept.folder.iterdir())
            resume = seconds(lambda: trained.load_state_dict(kept.read() or {}), place, rounds)  # noqa: B023
        row = {
            "model": model,
            "strategy": strategy,
            "trained_m": sum(parameter.numel() for _, parameter in trained.model.trained()) / 1e6,
            "checkpoint_mb": size / 1e6,
            "write_s": write,
            "resume_s": resume,
            "share_percent": 100 * write / _INTERVAL,
        }
        typer.echo("  ".join(f"{name} {v:.4g}" if isinstance(v, float) else f"{name} {v}" for name, v in row.items()))
        rows.append({**row, "rounds": rounds, **provenance(device)})
    if output is not None:
        write_csv(output, rows)


if __name__ == "__main__":
    typer.run(main)
