"""`bench list`: what there is to choose from."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from adapters.strategy import STRATEGIES
from backbones.families import FAMILIES
from bench.data.base import DATASETS
from bench.plugins import load as load_plugins


class What(StrEnum):
    backbones = "backbones"
    strategies = "strategies"
    datasets = "datasets"


def list_(
    what: Annotated[What, typer.Argument(help="What to list.")],
    plugin: Annotated[
        list[str] | None, typer.Option(help="A Python file or module that registers more. Repeatable.")
    ] = None,
) -> None:
    """List the backbones, strategies or data sets by name."""
    load_plugins(plugin or ())
    table = {What.backbones: _backbones, What.strategies: _strategies, What.datasets: _datasets}[what]()
    Console(highlight=False).print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    return table


def _backbones() -> Table:
    table = _table("backbone", "is", "bare name on real data", "on motion")
    for name in FAMILIES.names():
        family = FAMILIES.get(name)
        table.add_row(name, family.summary, f"{name}:{family.base}", f"{name}:tiny@{family.tiny_weights}")
    return table


def _strategies() -> Table:
    table = _table("strategy", "trains", "is", "options")
    for name in STRATEGIES.names():
        strategy = STRATEGIES.get(name)
        options = "\n".join(
            f"{option}={field.default}: {field.description}" for option, field in strategy.options.model_fields.items()
        )
        table.add_row(name, strategy.trains, strategy.summary, options or "none")
    return table


def _datasets() -> Table:
    table = _table("data set", "is", "frames", "sampling", "test clips x crops", "flip")
    for name in DATASETS.names():
        dataset = DATASETS.get(name)
        table.add_row(
            name,
            dataset.summary,
            str(dataset.frames),
            dataset.sampling,
            f"{dataset.clips}x{dataset.crops}",
            "yes" if dataset.flip else "no",
        )
    return table
