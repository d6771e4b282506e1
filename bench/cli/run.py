"""`bench run`: train and measure a matrix."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from adapters.base import STRATEGIES
from adapters.heads import HEADS
from bench.cli.options import Given, takes
from bench.cli.output import print_table, tell
from bench.errors import UserError
from bench.papers.tables import PREFIX, find_table, replica
from bench.spec import Recipe, Request
from bench.spec.fields import RUNNING
from bench.spec.recipe_entries import read_entries
from bench.text import counted, quantity

if TYPE_CHECKING:
    from bench.cli.listeners import LiveListener, PlainListener
    from bench.run.matrix import Plan
    from bench.run.outcome import Outcome
    from bench.run.store import Run


REQUEUE = 75  # sysexits' EX_TEMPFAIL: the same command should be tried again


@takes(Request)
def run(
    given: Given[Request],
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with any of these, or a table of AIM's paper, such as paper/table1; flags win.",
            metavar="PATH",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    profile_only: Annotated[
        bool,
        typer.Option(
            "--profile-only",
            help="Count the parameters and GMACs of every cell, without data, weights or training.",
            rich_help_panel=RUNNING,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the cells, their counts and where their values come from, run nothing.",
            rich_help_panel=RUNNING,
        ),
    ] = False,
) -> None:
    """Train and measure every cell of a matrix: backbones x strategies x frames x seeds.

    A cell that is done is not run again: the same command goes on where it was stopped.
    """
    request, plan = planned(given, config, profile_only)

    from bench.processes import StopRequested, raise_on_stop_signals
    from bench.run.engines.base import WorkerFailed
    from bench.run.provenance import command
    from bench.run.start import execute

    if dry_run:
        _print_plan(plan, given.flags, config)
        return
    if profile_only:
        _count(request, plan, command())
        return
    raise_on_stop_signals()
    try:
        with _listener(plan) as shown:
            finished, outcome = execute(request, plan, command(), shown)
    except KeyboardInterrupt as stop:  # before the first cell began, or more than once
        tell("interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(REQUEUE if isinstance(stop, StopRequested) else 130) from None
    except WorkerFailed as error:
        tell(f"bench: {error}; what was done is kept, and the same command goes on from there", err=True)
        tell(error.printed.expandtabs(), err=True)
        raise typer.Exit(1) from None
    _print_summary(finished, plan, outcome)
    if outcome.interrupted:
        raise typer.Exit(REQUEUE if outcome.requeue else 130)
    if outcome.failures or outcome.unwritten or outcome.untuned:
        raise typer.Exit(1)


def _count(request: Request, plan: Plan, command: str) -> None:
    """Count the cells and print their table. Raises typer.Exit: 1, where one of them cannot be counted."""
    from bench.cli.progress import progress
    from bench.run.counting import execute

    for default in plan.defaults:
        tell(default, style="dim")
    try:
        with progress() as show:
            finished, outcome = execute(
                request, plan, command, lambda done, cell: show("counting", done, len(plan.cells), cell.label)
            )
    except KeyboardInterrupt:
        tell("interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None
    _print_summary(finished, plan, outcome)
    if outcome.failures:
        raise typer.Exit(1)


def planned(given: Given[Request], config: Path | None, profile_only: bool = False) -> tuple[Request, Plan]:
    """Return the request of the flags that were given and, below them, of the YAML file, and its cells.

    Args:
        config: the file, or the name of a table of AIM's paper.
        profile_only: of cells that are counted alone.

    Raises:
        UserError: everything wrong with either, and everything that stands in the way of running the request. Nothing
            was written.
    """
    problems = list(given.problems)
    fields: dict[str, Any] = {}
    if config is not None:
        fields = _read(given, config, problems)
    request = given.request(fields, problems) or Request()

    try:
        found = _plan(request, profile_only)
    except UserError as error:
        raise UserError([*problems, *error.problems]) from None
    if problems:
        raise UserError(problems)
    return request, found


def _plan(request: Request, profile_only: bool) -> Plan:
    """Return the cells of a request; mistakes in it are told without torch. Raises UserError."""
    if profile_only:
        from bench.run.counting import plan as counted_alone

        return counted_alone(request)
    from bench.run.start import plan

    if not request.tune:
        return plan(request)
    from bench.tune.trials import space_problems
    from bench.tune.tuner import tuned

    try:
        return plan(request, tuned)
    except UserError as error:  # which may have kept the space from being looked at
        looked = any(problem.startswith("tune") for problem in error.problems)
        loaded = not any(problem.startswith("plugin ") for problem in error.problems)
        raise UserError([*error.problems, *([] if looked else space_problems(request, loaded))]) from None


def _read(given: Given[Request], config: Path, problems: list[str]) -> dict[str, Any]:
    """Return the fields of a configuration file, or of a table of the paper, that no flag gives."""
    file, name = config, config.as_posix()
    if name.startswith(PREFIX) and not config.exists():
        try:
            file = find_table(name, "config").file
        except UserError as error:
            problems += error.problems
            return {}
    fields = _laid_out(given, given.read(file, problems), str(config), problems)
    matrices: dict[str, Any] = {}
    for part, changes in fields.get("matrices", {}).items():
        if not isinstance(changes, dict):
            problems.append(f"matrices.{part} is {changes!r}: expected names and values")
            continue
        where = f"matrices.{part}"
        inner = _laid_out(given, given.fields(changes, problems, where), f"{config}:{where}", problems)
        matrices[part] = {
            field: {key: each for key, each in value.items() if key not in given.values.get(field, {})}
            if isinstance(value, dict)
            else value
            for field, value in inner.items()
            if isinstance(value, dict) or field not in given.values
        }
    if "matrices" in fields:
        fields["matrices"] = matrices
    return replica(fields, given.values.get("datasets")) if file is not config else fields


def _laid_out(given: Given[Request], fields: dict[str, Any], where: str, problems: list[str]) -> dict[str, Any]:
    """Return the fields of a file with their entries of recipes read."""
    found = dict(fields)
    if "recipes" in found:
        found["recipes"] = read_entries(found["recipes"], f"{where}:recipes", problems)
    if "recipe_by_strategy" in found:
        found["recipe_by_strategy"] = _by_strategy(found, given.values.get("recipe", {}), problems)
    return found


def _by_strategy(fields: dict[str, Any], given: dict[str, Any], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Return the changes to the recipe of single strategies, without what a flag says of all of them."""
    kept = {}
    for strategy, changes in fields.get("recipe_by_strategy", {}).items():
        if isinstance(changes, dict):
            kept[strategy] = {name: value for name, value in changes.items() if name not in given}
        elif changes is not None:
            problems.append(f"recipe_by_strategy.{strategy} is {changes!r}: expected names and values")
    return kept


def _listener(plan: Plan) -> AbstractContextManager[LiveListener | PlainListener]:
    """Tell the defaults that were filled in; return the view of the run for where the output goes."""
    from bench.cli.listeners import LiveListener, PlainListener

    for line in (*plan.defaults, *(plan.tuner.told if plan.tuner else ())):
        tell(line, style="dim")
    console = Console(highlight=False, markup=False, emoji=False)
    return LiveListener(console) if console.is_terminal else PlainListener(sys.stdout)


def _print_summary(run: Run, plan: Plan, outcome: Outcome) -> None:
    """Print the run's table, the folder of its files, and the time that its stages took."""
    from bench.report.table import make_table
    from bench.report.terminal import TableView, render

    console = Console(highlight=False)
    wanted = {cell.key for cell in outcome.cells}
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
    tried = len(plan.tuner.trials) if plan.tuner else 0
    if not tried and outcome.skipped == len(outcome.cells):
        were = "1 cell was" if outcome.skipped == 1 else f"all {outcome.skipped:,} cells were"
        tell(f"{were} done before or by another process")
    for result in outcome.failures:
        if result.traceback:
            where = run.cell_folder(result.cell) / "result.json"
            tell(f"traceback of {result.cell.label} in {where}", style="red")
    for sentence in outcome.untuned:
        tell(sentence, style="red")
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


def _print_plan(plan: Plan, flags: Mapping[str, str], config: Path | None) -> None:
    """Print the cells and their counts: parameters and GMACs of each model, with random weights.

    Then the values of the cells that are not the defaults of all recipes and options, and where each comes from.

    Args:
        plan: the plan.
        flags: the flags that gave the command's fields: "recipe.lr" -> "--lr".
        config: the file that gave the others.
    """
    from bench.run.counts import counts

    for default in plan.defaults:
        tell(default, style="dim")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    parts = any(cell.train_fraction != 1 for cell in plan.cells)
    for header in ("cell", "backbone", "strategy", "data set", *(["training videos"] * parts), "frames", "seed"):
        table.add_column(header, no_wrap=True)
    trained = any("train" in cell.stages for cell in plan.cells)
    for header in (*(("epochs", "batch", "lr") * trained), "params M", "trained M", "GMACs a view"):
        table.add_column(header, justify="right")
    found = counts(plan.cells)
    for cell in plan.cells:
        parameters, tuned, macs = found[cell]
        recipe = (str(cell.recipe.epochs), str(cell.recipe.batch_size), f"{cell.recipe.lr:g}")
        table.add_row(
            cell.key,
            cell.backbone_label,
            cell.method,
            cell.dataset,
            *([cell.train_percent] * parts),
            str(cell.frames),
            str(cell.seed),
            *(recipe * trained),
            quantity(parameters / 1e6, 2),
            quantity(tuned / 1e6, 3),
            quantity(macs / 1e9, 3),
        )
    print_table(table)
    tell("")
    print_table(_origins(plan, flags, config))
    tell("")
    device = plan.placement
    tell(f"{counted(len(plan.cells), 'cell')} on {device.type}, {device.precision}")
    for line in plan.tuner.told if plan.tuner else ():
        tell(line)


def _origins(plan: Plan, flags: Mapping[str, str], config: Path | None) -> Table:
    """Return the values that are not the defaults, each with its source and the cells that have it from there."""
    plain = Recipe().model_dump()
    rows: dict[tuple[str, str, str], list[str]] = {}
    for cell, origins in zip(plan.cells, plan.origins, strict=True):
        own = STRATEGIES.get(cell.strategy).options().model_dump(mode="json")
        of_head = HEADS.get(cell.head).options().model_dump(mode="json")
        values: dict[str, Any] = {"frames": cell.frames, "views": cell.views}
        # what is not from an entry or the command, such as a family's tubelet, is told as a default of its own
        options = {f"options.{name}": value for name, value in cell.options.items() if value != own[name]}
        options |= {
            f"head_options.{name}": value for name, value in cell.head_options.items() if value != of_head[name]
        }
        values |= {name: value for name, value in options.items() if name in origins}
        recipe = cell.recipe.model_dump()
        values |= {f"recipe.{name}": value for name, value in recipe.items() if value != plain[name]}
        for name, value in values.items():
            origin = origins.get(name, f"data set {cell.dataset}".strip())
            if name in origins and ":" not in origin:  # a field of the command
                follows = "" if origin.split(".")[-1] == name.split(".")[-1] else ", in proportion"
                origin = flags.get(origin, f"--config {config}") + follows
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            rows.setdefault((name, shown, origin), []).append(cell.key)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("value", "", "from", "cells"):
        table.add_column(header, overflow="fold")
    for (name, shown, origin), keys in rows.items():
        table.add_row(name, shown, origin, "all" if len(keys) == len(plan.cells) else ", ".join(keys))
    return table
