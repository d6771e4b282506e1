"""Progress of `bench run` as it is shown: live in a terminal, as plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from adapters.base import STRATEGIES
from bench.cli.listeners import LiveListener, PlainListener
from bench.cli.output import print_table, tell
from bench.errors import UserError
from bench.run.engines.runner import Outcome
from bench.run.matrix import Plan
from bench.run.store import Run
from bench.spec import Recipe
from bench.text import counted, quantity


def listener(expansion: Plan) -> AbstractContextManager[LiveListener | PlainListener]:
    """The listener for where the output goes, with the defaults that were filled in already told."""
    for default in expansion.defaults:
        tell(default, style="dim")
    console = Console(highlight=False, markup=False, emoji=False)
    return LiveListener(console) if console.is_terminal else PlainListener(sys.stdout)


def print_summary(run: Run, expansion: Plan, outcome: Outcome) -> None:
    """The run's table, where its files are, and where the time went."""
    from bench.report.table import make_table
    from bench.report.terminal import TableView, render

    console = Console(highlight=False)
    wanted = {cell.key for cell in expansion.cells}
    try:
        results = [result for result in run.results() if result.cell.key in wanted]
    except UserError as error:  # the folder was removed or damaged while the cells ran
        tell("\n".join(error.problems), style="red")
        return
    if results:
        sheet = make_table(results)
        if console.is_terminal:
            console.print()
            console.print(TableView(sheet))
        else:
            sys.stdout.write("\n" + render(sheet))
    console.print()
    if outcome.skipped == len(expansion.cells):
        were = "1 cell was" if outcome.skipped == 1 else f"all {outcome.skipped:,} cells were"
        tell(f"{were} done before or by another process")
    for result in outcome.failures:
        if result.traceback:
            where = run.cell_folder(result.cell) / "result.json"
            tell(f"traceback of {result.cell.label} in {where}", style="red")
    if outcome.interrupted:
        tell("interrupted; the same command goes on where it stopped", style="yellow")
    for note in outcome.notes:
        tell(note, style="dim")
    if outcome.seconds:
        total = sum(outcome.seconds.values())
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in outcome.seconds.items())
        tell(f"{total:.0f} s: {parts}")
    if outcome.unwritten:
        tell(outcome.unwritten, style="red")
    elif results:
        tell(f"results in {run.csv}")


def print_plan(expansion: Plan, flags: Mapping[str, str], config: Path | None) -> None:
    """The cells and their counts, without training: parameters and GMACs of each model, with random weights.

    Then the values of the cells that are not the defaults of all recipes and options, and where each comes from.

    Args:
        expansion: the plan.
        flags: the flags that gave the command's fields: "recipe.lr" -> "--lr".
        config: the file that gave the others.
    """
    from bench.run.counts import counts

    for default in expansion.defaults:
        tell(default, style="dim")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("cell", "backbone", "strategy", "data set", "frames", "seed"):
        table.add_column(header, no_wrap=True)
    for header in ("epochs", "batch", "lr", "params M", "trained M", "GMACs a view"):
        table.add_column(header, justify="right")
    found = counts(expansion.cells)
    for cell in expansion.cells:
        parameters, trained, macs = found[cell]
        table.add_row(
            cell.key,
            cell.backbone_label,
            cell.strategy,
            cell.dataset,
            str(cell.frames),
            str(cell.seed),
            str(cell.recipe.epochs),
            str(cell.recipe.batch_size),
            f"{cell.recipe.lr:g}",
            quantity(parameters / 1e6, 2),
            quantity(trained / 1e6, 3),
            quantity(macs / 1e9, 3),
        )
    print_table(table)
    tell("")
    print_table(_origins(expansion, flags, config))
    tell("")
    device = expansion.placement
    tell(f"{counted(len(expansion.cells), 'cell')} on {device.type}, {device.precision}")


def _origins(expansion: Plan, flags: Mapping[str, str], config: Path | None) -> Table:
    """The values that are not the defaults, each with its source and the cells that have it from there."""
    plain = Recipe().model_dump()
    rows: dict[tuple[str, str, str], list[str]] = {}
    for cell, origins in zip(expansion.cells, expansion.origins, strict=True):
        own = STRATEGIES.get(cell.strategy).options().model_dump(mode="json")
        values: dict[str, Any] = {"frames": cell.frames, "views": cell.views}
        # what is not from an entry or the command, such as a family's tubelet, is told as a default of its own
        options = {f"options.{name}": value for name, value in cell.options.items() if value != own[name]}
        values |= {name: value for name, value in options.items() if name in origins}
        recipe = cell.recipe.model_dump()
        values |= {f"recipe.{name}": value for name, value in recipe.items() if value != plain[name]}
        for name, value in values.items():
            origin = origins.get(name, f"data set {cell.dataset}")
            if name in origins and ":" not in origin:  # a field of the command
                follows = "" if origin.split(".")[-1] == name.split(".")[-1] else ", in proportion"
                origin = flags.get(origin, f"--config {config}") + follows
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            rows.setdefault((name, shown, origin), []).append(cell.key)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("value", "", "from", "cells"):
        table.add_column(header, overflow="fold")
    for (name, shown, origin), keys in rows.items():
        table.add_row(name, shown, origin, "all" if len(keys) == len(expansion.cells) else ", ".join(keys))
    return table
