"""How `bench run` shows itself: live in a terminal, as plain lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager

from rich.console import Console
from rich.table import Table

from bench.cli.live import LiveListener
from bench.cli.plain import PlainListener
from bench.errors import UserError
from bench.matrix import Expansion
from bench.runner.local import Outcome
from bench.store import Run


def listener(expansion: Expansion) -> AbstractContextManager[LiveListener | PlainListener]:
    """The listener for where the output goes, with the defaults that were filled in already told."""
    console = Console(highlight=False)
    for default in expansion.defaults:
        console.print(default, style="dim", markup=False)
    return LiveListener(console) if console.is_terminal else PlainListener(sys.stdout)


def print_summary(run: Run, expansion: Expansion, outcome: Outcome) -> None:
    """The run's table, where its files are, and where the time went."""
    from bench.report.sheet import make_sheet
    from bench.report.terminal import render, table

    console = Console(highlight=False)
    wanted = {cell.key for cell in expansion.cells}
    try:
        results = [result for result in run.results() if result.cell.key in wanted]
    except UserError as error:  # the folder was removed or damaged while the cells ran
        console.print("\n".join(error.problems), style="red", markup=False, soft_wrap=True)
        return
    if results:
        sheet = make_sheet(results)
        if console.is_terminal:
            console.print()
            console.print(table(sheet))
        else:
            sys.stdout.write("\n" + render(sheet))
    console.print()
    if outcome.skipped == len(expansion.cells):
        console.print(f"all {outcome.skipped} cells were done before or by another process", markup=False)
    for result in outcome.failures:
        if result.traceback:
            where = run.cell_folder(result.cell) / "result.json"
            console.print(f"traceback of {result.cell.label} in {where}", style="red", markup=False, soft_wrap=True)
    if outcome.interrupted:
        console.print("interrupted; the same command goes on where it stopped", style="yellow")
    for note in outcome.notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)
    if outcome.seconds:
        total = sum(outcome.seconds.values())
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in outcome.seconds.items())
        console.print(f"{total:.0f} s: {parts}", markup=False, soft_wrap=True)
    if outcome.unwritten:
        console.print(outcome.unwritten, style="red", markup=False, soft_wrap=True)
    elif results:
        console.print(f"results in {run.csv}", markup=False, soft_wrap=True)


def print_plan(expansion: Expansion) -> None:
    """The cells and their counts, without training: parameters and GMACs of each model, with random weights."""
    from bench.counts import counts

    console = Console(highlight=False)
    for default in expansion.defaults:
        console.print(default, style="dim", markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("cell", "backbone", "strategy", "data set", "frames", "seed"):
        table.add_column(header, no_wrap=True)
    for header in ("epochs", "batch", "rate", "params M", "trained M", "GMACs a view"):
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
            f"{parameters / 1e6:.2f}",
            f"{trained / 1e6:.3f}",
            f"{macs / 1e9:.3f}",
        )
    wide = console if console.is_terminal else Console(width=160, highlight=False)
    wide.print(table)
    device = expansion.placement
    console.print(f"{len(expansion.cells)} cells on {device.type}, {device.precision}")
