"""`bench plot`: plots of runs as files."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.compare import METRICS
from bench.cli.options import not_among
from bench.cli.output import tell
from bench.cli.selecting import PLUGIN_HELP, WHERE_HELP, WHERE_METAVAR, plugin_problems
from bench.errors import UserError

KINDS = ("pareto", "fraction", "learning", "confusion", "order", "time")
FORMATS = ("png", "svg", "pdf")


def plot(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Runs' folders, or names under results/. [default: the latest run]"),
    ] = None,
    where: Annotated[list[str] | None, typer.Option(help=WHERE_HELP, metavar=WHERE_METAVAR)] = None,
    kind: Annotated[
        str,
        typer.Option(help=f"Comma list of what to draw: {', '.join(KINDS)}; all: what the runs have.", metavar="LIST"),
    ] = "all",
    metric: Annotated[
        str, typer.Option(help=f"Accuracy of pareto and fraction: {', '.join(METRICS)}.", metavar="METRIC")
    ] = "top1",
    against: Annotated[
        str | None,
        typer.Option(help="Comma list of costs for pareto: columns of results.csv. [default: all]", metavar="LIST"),
    ] = None,
    cells: Annotated[
        str | None,
        typer.Option(help="A cell for confusion, or two to compare: keys, folders or labels.", metavar="A[,B]"),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Likewise rows: [BACKBONE/]STRATEGY[ OPTION=VALUE ...]. [default: the best row]", metavar="A[,B]"
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(help="column (3.3 inches wide), page (6.9), or inches: 5x4.", metavar="SIZE")
    ] = "page",
    format_: Annotated[
        str, typer.Option("--format", help=f"Comma list of {', '.join(FORMATS)}.", metavar="LIST")
    ] = "png",
    output: Annotated[Path | None, typer.Option(help="Folder of the files. [default: RUN/plots]")] = None,
    plugin: Annotated[list[str] | None, typer.Option(help=PLUGIN_HELP)] = None,
) -> None:
    """Draw plots of runs for papers: KIND.png, .svg or .pdf, in colours that colour-blind readers tell apart."""
    from bench.report.plots import PlotRequest, Size, files, matplotlib_missing
    from bench.report.runs import find_runs
    from bench.report.select import where as meeting
    from bench.stats.outcomes import METRICS as KNOWN

    output = None if output is None else Path(os.path.expanduser(output))
    kinds, formats = _listed(kind), _listed(format_)
    every = kinds == ["all"]
    problems = [] if every else [line for each in kinds for line in not_among("kind", each, (*KINDS, "all"))]
    if "all" in kinds and not every:
        problems.append(f"kind is {kind!r}: expected all alone, or a list without it")
    problems += [line for each in formats for line in not_among("format", each, FORMATS)]
    problems += not_among("metric", metric, METRICS)
    for name, value, taker in (
        ("against", against, "pareto"),
        ("cells", cells, "confusion"),
        ("rows", rows, "confusion"),
    ):
        if value is not None and not every and taker not in kinds:
            problems.append(f"{name} is {value!r}: expected with the kind {taker}, which alone takes it")
    problems += [] if output is None else _obstacles(output)
    # without these, plots cannot be tried
    missing = matplotlib_missing() + plugin_problems(plugin or ())
    problems += missing
    inches, found = Size(), None
    try:
        inches = Size.parsed(size)
    except UserError as error:
        problems += error.problems
    try:
        all_rows = find_runs(runs or [])
        found = all_rows.only(meeting(all_rows.results, where or ()))
    except UserError as error:
        problems += error.problems
    if missing or found is None:
        raise UserError(problems)

    request = PlotRequest(
        next((each for each in KNOWN if each == metric), KNOWN[0]),
        tuple(_listed(against or "", empty=True)),
        tuple(_listed(cells or "", empty=True)),
        tuple(_listed(rows or "", empty=True)),
        inches,
    )
    wanted = [each for each in KINDS if every or each in kinds]
    contents, lacking = dict[str, bytes](), list[str]()
    try:
        # where something is wrong already, they are drawn for what else is
        contents, lacking = files(wanted, () if problems else formats, found, request)
    except UserError as error:
        problems += error.problems
    folder = output or found.folders[0] / "plots"
    problems += [] if output else _obstacles(folder)
    nothing = len({line.partition(":")[0] for line in lacking}) == len(wanted)
    problems += [f"kind is {line}" for line in lacking] if not every or nothing else []
    if problems:
        raise UserError(problems)
    for file in _written(folder, contents):
        tell(str(file))
    for line in (*found.notes, *(f"left out: {line}" for line in lacking)):
        tell(line, err=True)


def _listed(text: str, empty: bool = False) -> list[str]:
    """The parts of a comma list; of an empty one a single empty part, which is then told, unless it may be empty."""
    parts = [part for each in text.split(",") if (part := each.strip())]
    return list(dict.fromkeys(parts)) or ([] if empty else [text])


def _obstacles(folder: Path) -> list[str]:
    from bench.files import why_not_writable

    why = why_not_writable(folder)
    return [f"output is {str(folder)!r}: cannot be written ({why})"] if why else []


def _written(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    """Write files into a folder, each whole or not at all. Raises UserError."""
    from bench.files import reason, write_atomically

    found = []
    for name, data in contents.items():
        found.append(folder / name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(found[-1], partial(Path.write_bytes, data=data))
        except OSError as error:
            raise UserError([f"output is {str(found[-1])!r}: cannot be written ({reason(error)})"]) from error
    return found
