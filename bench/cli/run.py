"""`bench run`: train and measure a matrix."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import Given, takes
from bench.errors import UserError
from bench.spec import Request
from bench.spec.fields import RUNNING
from bench.spec.recipe_entries import read_entries

if TYPE_CHECKING:
    from bench.run.matrix import Plan


@takes(Request)
def run(
    given: Given[Request],
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of these; flags win.", rich_help_panel=RUNNING)
    ] = None,
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
    request, expansion = planned(given, config)

    from bench.cli.output import tell
    from bench.cli.show import listener, print_plan, print_summary
    from bench.run.engines.base import WorkerFailed
    from bench.run.provenance import command
    from bench.run.start import execute

    if dry_run:
        print_plan(expansion, given.flags, config)
        return
    # a cluster that takes the machine back asks by SIGTERM: same as Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with listener(expansion) as shown:
            finished, outcome = execute(request, expansion, command(), shown)
    except KeyboardInterrupt:  # before the first cell began, or more than once
        tell("interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None
    except WorkerFailed as error:
        tell(f"bench: {error}; what was done is kept, and the same command goes on from there", err=True)
        tell(error.printed.expandtabs(), err=True)
        raise typer.Exit(1) from None
    print_summary(finished, expansion, outcome)
    if outcome.interrupted:
        raise typer.Exit(130)
    if outcome.failures or outcome.unwritten:
        raise typer.Exit(1)


def planned(given: Given[Request], config: Path | None) -> tuple[Request, Plan]:
    """Return the request of the flags that were given and, below them, of the YAML file, and its cells.

    Raises:
        UserError: everything wrong with either, and everything that stands in the way of running the request. Nothing
            was written.
    """
    problems = list(given.problems)
    fields: dict[str, Any] = {}
    if config is not None:
        fields = given.read(config, problems)
        fields["recipes"] = read_entries(fields.get("recipes", {}), f"{config}:recipes", problems)
        fields["recipe_by_strategy"] = _by_strategy(fields, given.values.get("recipe", {}), problems)
    request = given.request(fields, problems) or Request()

    from bench.run.start import plan

    try:
        expansion = plan(request)
    except UserError as error:
        raise UserError([*problems, *error.problems]) from None
    if problems:
        raise UserError(problems)
    return request, expansion


def _by_strategy(fields: dict[str, Any], given: dict[str, Any], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Return the changes to the recipe of single strategies, without what a flag says of all of them."""
    kept = {}
    for strategy, changes in fields.get("recipe_by_strategy", {}).items():
        if isinstance(changes, dict):
            kept[strategy] = {name: value for name, value in changes.items() if name not in given}
        elif changes is not None:
            problems.append(f"recipe_by_strategy.{strategy} is {changes!r}: expected names and values")
    return kept
