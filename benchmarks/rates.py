"""Settle learning rates on the validation videos: as many trainings for every strategy and backbone.

    python -m benchmarks.rates --factors 1,3,1/3 --seed 100 --output results/rates-motion.csv

Every rate of a cell's recipe is multiplied with a factor. A try is trained and looked at on the validation split alone:
the test split is never opened, and the seed is one that no table uses. What the file holds already is not run again,
the factors go in the order given, and the table at the end names the best factor of each strategy and backbone.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.data.decode_pool import Reading
from bench.run.cell import execute
from bench.run.context import WorkerContext
from bench.run.matrix import expand
from bench.run.store import LOG
from bench.spec import Cell, Matrix
from benchmarks.record import add_to_csv, provenance

_RATES = ("lr", "head_lr", "time_lr")


def with_rates(cell: Cell, factor: Fraction) -> Cell:
    """The cell's training alone, its rates multiplied."""
    recipe = cell.recipe
    changed = {name: float(f"{value * factor:.3g}") for name in _RATES if (value := getattr(recipe, name)) is not None}
    return cell.model_copy(update={"recipe": recipe.model_copy(update=changed), "stages": ("train",)})


def validation_accuracy(cell: Cell, context: WorkerContext) -> float:
    """Train a cell; its accuracy on the validation videos after the last epoch, in percent."""
    with tempfile.TemporaryDirectory() as folder:
        execute(cell, context, folder=Path(folder))
        lines = [json.loads(line) for line in (Path(folder) / LOG).read_text().splitlines()]
    return [line["val_top1"] for line in lines if "val_top1" in line][-1]


def best(rows: list[dict[str, str]]) -> dict[tuple[str, str], dict[str, str]]:
    """The row of the highest accuracy of every strategy and backbone; of equal ones the one nearest to factor 1."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["strategy"], row["backbone"]].append(row)

    def order(row: dict[str, str]) -> tuple[float, Fraction]:
        factor = Fraction(row["factor"])
        return float(row["val_top1"]), -max(factor, 1 / factor)

    return {group: max(found, key=order) for group, found in groups.items()}


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("backbone", "strategy", "factor", "seed"))


def main(
    backbones: Annotated[str, typer.Option(help="Comma list, or all.")] = "all",
    strategies: Annotated[str, typer.Option(help="Comma list; field: all.")] = "field",
    dataset: Annotated[str, typer.Option(help="Data set.")] = "motion",
    factors: Annotated[str, typer.Option(help="Comma list of factors of the rates.")] = "1,3,1/3",
    seed: Annotated[int, typer.Option(help="Seed of every try.")] = 100,
    part: Annotated[
        str, typer.Option(help="i/n: every n-th try from the i-th on, for processes side by side.")
    ] = "1/1",
    output: Annotated[Path, typer.Option(help="File of the rows; what it holds is not run again.")] = Path("rates.csv"),
) -> None:
    """Train every try that the file lacks, and print the best of each strategy and backbone."""
    torch.set_num_threads(1)
    cells = expand(
        Matrix(
            backbones=tuple(backbones.split(",")),
            strategies=tuple(strategies.split(",")),
            datasets=(dataset,),
            seeds=(seed,),
            device="cpu",
        )
    ).cells
    tries = [(factor, cell) for factor in factors.split(",") for cell in cells]
    index, count = map(int, part.split("/"))
    context = WorkerContext(torch.device("cpu"), Reading(), "benchmarks/rates.py")
    for factor, cell in tries[index - 1 :: count]:
        changed = with_rates(cell, Fraction(factor))
        row = {"backbone": cell.backbone_label, "strategy": cell.strategy, "factor": factor, "seed": str(seed)}
        done = list(csv.DictReader(output.open(newline=""))) if output.is_file() else []
        if _key(row) in {_key(one) for one in done}:
            continue
        accuracy = validation_accuracy(changed, context)
        rates = {name: getattr(changed.recipe, name) for name in _RATES}
        add_to_csv(output, [{**row, **rates, "val_top1": accuracy, "dataset": dataset, **provenance("cpu")}])
        typer.echo(f"{row['backbone']} {cell.strategy} x {factor}: {accuracy:.2f} % of the validation videos")
    with output.open(newline="") as stream:
        for (strategy, backbone), row in sorted(best(list(csv.DictReader(stream))).items()):
            typer.echo(f"{strategy} on {backbone}: x {row['factor']}, lr {row['lr']}, {row['val_top1']} %")


if __name__ == "__main__":
    typer.run(main)
