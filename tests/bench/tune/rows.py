"""Rows that are tuned, and results of their trials, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.run.result import Result
from bench.spec import Cell, Matrix
from bench.tune.trials import Study, studies
from tests.bench import make

OPTIONS: dict[str, dict[str, Any]] = {
    "frozen": {},
    "lora": {"rank": 16, "alpha": 16.0, "projections": "query,value", "dropout": 0.1},
    "joint": {"ratio": 0.25, "blocks": "all", "temporal_adapters": 1, "tubelet": 1, "scale": 0.5},
}


def planned(strategies: Sequence[str] = ("joint",), seeds: Sequence[int] = (0, 1), **changes: Any) -> list[Cell]:
    """The table's cells of strategies on a tiny model."""
    return [
        make.cell(strategy=name, options=OPTIONS[name], seed=seed, **changes) for name in strategies for seed in seeds
    ]


def matrix(trials: int = 4, seeds: Sequence[int] = (0, 1), **changes: Any) -> Matrix:
    return Matrix(tune=trials, seeds=tuple(seeds), **changes)


def study(trials: int = 4, strategy: str = "joint", cell: Mapping[str, Any] | None = None, **changes: Any) -> Study:
    """The search of one row; `changes` are of the matrix, those of the recipe and so on in `cell`."""
    (found,) = studies(matrix(trials, **changes), planned((strategy,), **(cell or {})))
    return found


def done(trial: Cell, top1: float) -> Result:
    """A trial that is done."""
    return make.done(trial, top1=top1)


def diverged(trial: Cell) -> Result:
    return make.failed(trial, error="Diverged: the loss is nan at step 3")
