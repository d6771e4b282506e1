"""`bench profile`: what a model costs, without training it; with --all the table of a device, row by row."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Given, not_among, takes
from bench.cli.output import obstacles, print_table, say, tell, write
from bench.cli.progress import TimeLeft, about, progress
from bench.errors import UserError
from bench.spec import ProfileRequest
from bench.text import counted

if TYPE_CHECKING:
    from bench.run.matrix import Plan
    from bench.run.result import Counts, Result
    from bench.spec import Cell

FORMATS = ("table", "json", "csv")
_SUFFIXES = (".csv", ".json")
# of a command that does not name them, so that its other mistakes can be told
_STAND_INS = {"backbones": "vit:tiny@none", "strategies": "frozen"}


@takes(ProfileRequest)
def profile(
    given: Given[ProfileRequest],
    format_: Annotated[
        str, typer.Option("--format", help=f"How to print it: {', '.join(FORMATS)}.", metavar="FORMAT")
    ] = "table",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write it to this file, which ends in .csv or .json, a row a model. [default with --all: "
            "results/DEVICE.csv]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Count parameters and GMACs of a model part by part, and measure its speed and memory. Nothing is trained.

    A bare family name means its base model, as on real data. Several backbones, strategies or frames make a row each.
    """
    whole = bool(given.values.get("whole"))
    problems = [*given.problems, *not_among("format", format_, FORMATS)]
    if whole:
        problems += [] if out is None else _table_obstacles(out)
        if given.values.get("timing") is False:
            problems.append("--no-timing with --all: expected one of the two, `bench profile all all` counts alone")
            given.values["timing"] = True
    elif out is not None:
        problems += obstacles("out", out)
        problems += (
            [] if out.suffix in _SUFFIXES else [f"out is {str(out)!r}: expected a file that ends in .csv or .json"]
        )
    for name, (field, stand_in) in zip(("BACKBONE", "STRATEGY"), _STAND_INS.items(), strict=True):
        if field not in given.values and not whole:
            problems.append(f"{name} is missing: expected BACKBONE STRATEGY, such as clip joint, or --all")
            given.values[field] = stand_in
    request = given.request({}, problems) or ProfileRequest()

    from bench.measure.placement import bf16_notes
    from bench.run.profile import plan

    planned = plan(request, problems)
    for note in bf16_notes(planned.placement):
        tell(note, err=True)
    results = _whole(request, planned, out) if whole else _results(planned, out)
    if format_ == "table":
        from rich.text import Text

        from bench.report.costs import table

        print_table(*(Text(default, style="dim") for default in planned.defaults), table(results, whole))
    else:
        say(_text(results, format_))
    if any(result.status != "done" for result in results):
        raise typer.Exit(1)


def _text(results: list[Result], format_: str) -> str:
    from bench.report.records import to_json
    from bench.run.columns import to_csv

    return to_csv(results) if format_ == "csv" else to_json(results)


def _results(planned: Plan, out: Path | None) -> list[Result]:
    """The results, and the file of them as far as they are there."""
    from bench.run.profile import counted as counted_models
    from bench.run.profile import execute

    results: list[Result] = []
    total = len(planned.cells)
    with progress() as show:
        show("profiling", 0, total, planned.cells[0].label)
        waiting = partial(tell, "waiting for another command's measurements", err=True)
        found = execute(planned, counted_models(planned), on_wait=waiting)
        for done, cell in enumerate(planned.cells):
            show("profiling", done, total, cell.label)
            results.append(next(found))
            if out is not None:
                write("out", out, _text(results, out.suffix[1:]))
    return results


def _whole(request: ProfileRequest, planned: Plan, out: Path | None) -> list[Result]:
    """The results of a whole table, kept as a run beside its file: `results/<device>.csv` and `results/<device>/`.

    Raises:
        UserError: file or folder cannot be read or written, or hold something else.
        typer.Exit: 130, interrupted.
    """
    from rich.console import Console

    from bench.files import reason
    from bench.measure.machine import describe
    from bench.run.profile import counted as counted_models
    from bench.run.profile import execute, incompatibility
    from bench.run.provenance import command
    from bench.run.store import Run

    file = out or _default_file(planned)
    if out is None and (problems := _table_obstacles(file)):
        raise UserError(problems)
    run = Run(file.with_suffix(""), file)
    there = _rows(file)
    run.check()
    stored = run.results() if (run.folder / "run.json").is_file() else []
    say_ = partial(tell, err=True)
    total = len(planned.cells)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is written stays
    results: list[Result] = []

    def known(cell: Cell) -> Result | None:
        found = run.result(cell)
        return found if found is not None and found.status == "done" else None

    try:
        with Console(stderr=True).status("counting") as status:
            counts = counted_models(planned, whole=True)
            anew = incompatibility(stored, planned)
            if not stored and there:
                anew = f"results that are not in {run.folder}"
            if anew:
                say_(f"{file} is made anew: it holds rows of {anew}")
            run.open(request, planned.cells, command(), describe(), "dropped" if anew else "last")
            old = [known(cell) is not None for cell in planned.cells]
            here = f"{sum(old)} of them are there already" if any(old) else "none is there yet"
            say_(f"{counted(total, 'model')} to {file}, {here}; measured on {_where(planned)}")
            left = _time_left(counts, old)
            found = execute(planned, counts, known, lambda: say_("waiting for another command's measurements"))
            for number, (cell, was_there) in enumerate(zip(planned.cells, old, strict=True), start=1):
                told = about(left.seconds())
                status.update(f"measuring {number} of {total}: {cell.label}; {told}".rstrip("; ").replace("[", "\\["))
                begun = time.monotonic()
                left.begin()
                results.append(result := next(found))
                if was_there:
                    continue
                run.write(result)
                seconds = time.monotonic() - begun
                left.at(number, 1.0)
                told = f"{number} of {total}: {cell.label}: {_outcome(result)}, {seconds:.0f} s"
                say_("; ".join(filter(None, (told, about(left.seconds())))))
    except KeyboardInterrupt:
        say_(f"interrupted after {len(results)} of {total}; the same command goes on where it stopped")
        raise typer.Exit(130) from None
    except OSError as error:
        raise UserError([f"out is {str(file)!r}: cannot be written ({reason(error)})"]) from error
    return results


def _time_left(counts: list[Counts | str], old: list[bool]) -> TimeLeft:
    """Each multiply-accumulate is taken to last as long as those of the models that were measured."""
    each = enumerate(zip(counts, old, strict=True), start=1)
    return TimeLeft({n: one.macs_view or 0 for n, (one, known) in each if not (known or isinstance(one, str))})


def _default_file(planned: Plan) -> Path:
    """`results/<device>.csv`."""
    from bench.measure.machine import device_name, slug

    return Path("results") / f"{slug(device_name(planned.placement.torch_name))}.csv"


def _table_obstacles(file: Path) -> list[str]:
    """Return why no table can be kept in a file row by row, in sentences; its folder is made where it is not there."""
    from bench.files import why_not_writable

    if file.is_dir():
        return [f"out is {str(file)!r}: it is a folder, expected a file"]
    if file.exists() and not file.is_file():
        return [f"out is {str(file)!r}: it is not a file, expected one that can be written row by row"]
    if file.suffix != ".csv":
        return [f"out is {str(file)!r}: expected a file that ends in .csv, which --all writes row by row"]
    why = why_not_writable(file.parent)
    return [f"out is {str(file)!r}: {why}"] if why else []


def _rows(file: Path) -> int:
    """Count the rows of a table of profiles. Raises UserError where the file holds something else."""
    import csv
    import io

    from bench.files import reason

    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "expected text in UTF-8"
        raise UserError([f"out is {str(file)!r}: cannot be read ({why})"]) from error
    reader = csv.DictReader(io.StringIO(text))
    rows = list(reader)
    ours = {"backbone", "strategy", "classes", "gmacs_view_head"} <= set(reader.fieldnames or ())
    if text.strip() and (not ours or any(row.get("dataset") for row in rows)):
        # somebody's own file, or a run's table, which nothing must replace
        raise UserError([f"out is {str(file)!r}: it holds something else than profiles, expected another file"])
    return len(rows)


def _where(planned: Plan) -> str:
    from bench.measure.machine import device_name
    from bench.version import commit

    device = device_name(planned.placement.torch_name)
    batch = planned.cells[0].recipe.batch_size
    changed = "; the code was changed since its commit: these rows will not be taken up again" if commit()[1] else ""
    return f"{device}, {planned.placement.precision}, batch {batch}{changed}"


def _outcome(result: Result) -> str:
    if result.measured is None:
        return str(result.error)
    train, infer = result.measured.train_clips_per_s, result.measured.infer_clips_per_s
    training = "nothing trains" if train is None else f"{train:.3g} clips/s in training"
    return f"{training}, {infer:.3g} in inference"
