"""`bench status` and `bench cancel`: the cells of a run, and an end to those that run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import not_among
from bench.cli.output import say, tell
from bench.errors import UserError
from bench.text import counted, one_line

if TYPE_CHECKING:
    from bench.run.status import CellStatus

FORMATS = ("table", "json")
_RUN = typer.Argument(help="A run's folder, or its name under results/. [default: the latest run]")


def status(
    run: Annotated[str | None, _RUN] = None,
    all_: Annotated[bool, typer.Option("--all", help="Show the cells that are done, too.")] = False,
    format_: Annotated[
        str, typer.Option("--format", help=f"How to print it: {', '.join(FORMATS)}.", metavar="FORMAT")
    ] = "table",
) -> None:
    """Show the cells of a run: waiting, running (where, how far), done or failed, from the run directory alone."""
    from bench.run.find import find
    from bench.run.status import STATES
    from bench.run.status import status as states
    from bench.run.store import RESULTS
    from bench.tune.record import records as studies

    problems = not_among("format", format_, FORMATS)
    cells: list[CellStatus] = []
    try:
        where = find(run, RESULTS)
        cells = states(where)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    if format_ == "json":
        records = [{**asdict(cell), "job": None if cell.job is None else cell.job.model_dump()} for cell in cells]
        say(json.dumps(records, indent=2) + "\n")
        return
    shown = [cell for cell in cells if all_ or cell.state != "done"]
    width = max((len(cell.label) for cell in shown), default=0)
    for cell in sorted(shown, key=lambda each: STATES.index(each.state)):
        tell(f"{cell.state:<11} {cell.label:<{width}}  {_told(cell)}".rstrip())
    for noun, alike in (("trial", [cell for cell in cells if cell.trial]), ("cell", [c for c in cells if not c.trial])):
        found = Counter(cell.state for cell in alike)
        states_of = ", ".join(f"{found[state]:,} {state}" for state in STATES if found[state])
        if alike or noun == "cell":
            tell(f"{counted(len(alike), noun)}: {states_of}".rstrip(": "))
    if rows := sum(study.tuning is None for study in studies(where)):
        tell(f"the cells of {counted(rows, 'row')} wait for `bench run` to choose their recipes")


def _told(cell: CellStatus) -> str:
    """Return what there is to say of a cell beside its state."""
    if cell.state == "done":
        return "" if cell.top1 is None else f"{'validation ' * cell.trial}top-1 {cell.top1:.1f} %"
    parts = []
    if (job := cell.job) is not None:
        where = f"{job.engine} {job.id}" if job.id else f"{job.engine}, process {job.pid}"
        parts.append(f"{where} on {job.host}" if job.host else where)  # in a queue it is on no machine yet
        if cell.state == "running":
            parts.append(f"{job.stage} {100 * job.done:.0f} %")
            parts += [] if job.epoch is None else [f"epoch {job.epoch:.1f}"]
            parts += [] if job.loss is None else [f"loss {job.loss:.3g}"]
            parts += [] if job.clips_per_s is None else [f"{job.clips_per_s:.3g} clips/s"]
            parts += [] if job.seconds_left is None else [f"about {_span(job.seconds_left)} left"]
        parts.append(f"told {job.updated}")
    parts += [] if cell.step is None else [f"checkpoint at step {cell.step:,}"]
    parts += [] if cell.error is None else [one_line(cell.error)]
    return "; ".join(parts)


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def cancel(run: Annotated[str | None, _RUN] = None) -> None:
    """Stop what runs of a run, on whatever machine: every training writes a checkpoint and ends. What is done stays."""
    from bench.run.find import find
    from bench.run.status import cancel
    from bench.run.store import RESULTS

    found = find(run, RESULTS)
    try:
        running = cancel(found)
    except OSError as error:
        raise UserError([f"the run {str(found.folder)!r} cannot be written: {error.strerror or error}"]) from error
    told = counted(len(running), "cell")
    tell(f"asked the processes of {told} to stop; the same `bench run` goes on" if running else "no cell runs")
