"""`bench profile`: what a model costs, without training it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.choices import not_among
from bench.cli.options import assignments, scalar
from bench.cli.output import obstacles, print_table, say, tell, write
from bench.cli.progress import progress

if TYPE_CHECKING:
    from bench.run.profile import Plan
    from bench.run.profile_result import Profile

FORMATS = ("table", "json", "csv")
_SUFFIXES = (".csv", ".json")


def profile(
    backbones: Annotated[
        str | None,
        typer.Argument(
            help="Comma list of family[:model][@weights], such as vit or clip:ViT-L-14@none, or all.",
            metavar="BACKBONE",
            show_default=False,
        ),
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Argument(help="Comma list of strategies, or all.", metavar="STRATEGY", show_default=False),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--all",
            help="The table of every family's base model (or BACKBONE's) with every strategy (or STRATEGY's), in their "
            "published frames and views and with random weights, which change no speed; it goes on where it stopped.",
        ),
    ] = False,
    frames: Annotated[
        str | None, typer.Option(help="Comma list of frames a clip. [default: 8, a Swin's 32 with --all]")
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(help="Side of the frames in pixels. [default: each backbone's own]", metavar="PIXELS"),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Of the head. [default: 400]", metavar="INTEGER")] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="Views of a test, clips x crops. [default: 3x1, a Swin's 4x3 with --all]", metavar="CLIPSxCROPS"
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            help="A strategy's option, name=value, such as ratio=0.5; `bench list strategies` names them. Repeatable.",
        ),
    ] = None,
    timing: Annotated[
        bool,
        typer.Option(
            "--timing/--no-timing",
            help="Measure speed and memory too; without it no weights are loaded. [default: yes]",
            show_default=False,
        ),
    ] = True,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps. [default: auto]")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16. [default: auto]")] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="Clips of a timed step. [default: 8, on a CPU 1]", metavar="INTEGER")
    ] = None,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile", help="Compile the step with torch.compile. [default: no]", show_default=False
        ),
    ] = False,
    checkpoint_activations: Annotated[
        bool,
        typer.Option(
            "--checkpoint-activations/--no-checkpoint-activations",
            help="Compute each block once more for its gradients: less memory, more time. [default: no]",
            show_default=False,
        ),
    ] = False,
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
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="A Python file or module that registers backbones or strategies. Repeatable."),
    ] = None,
) -> None:
    """Count parameters and GMACs of a model part by part, and measure its speed and memory. Nothing is trained.

    A bare family name means its base model, as on real data. Several backbones, strategies or frames make a row each.
    """
    problems: list[str] = not_among("format", format_, FORMATS)
    if whole:
        from bench.run.profile_table import obstacles as table_obstacles

        problems += [] if out is None else table_obstacles(out)
        if not timing:
            problems.append("--no-timing with --all: expected one of the two, `bench profile all all` counts alone")
    elif out is not None:
        problems += obstacles("out", out)
        problems += (
            [] if out.suffix in _SUFFIXES else [f"out is {str(out)!r}: expected a file that ends in .csv or .json"]
        )
    for name, value in (("BACKBONE", backbones), ("STRATEGY", strategies)):
        if value is None and not whole:
            problems.append(f"{name} is missing: expected BACKBONE STRATEGY, such as clip joint, or --all")
    given: dict[str, Any] = {
        "backbones": backbones or ("all" if whole else "vit:tiny@none"),
        "strategies": strategies or ("all" if whole else "frozen"),
        "frames": frames,
        "input_size": input_size,
        "classes": None if classes is None else scalar(classes),
        "views": views,
        "options": assignments(option or (), "--option", problems),
        "device": device,
        "precision": precision,
        "batch_size": None if batch_size is None else scalar(batch_size),
        "compile": compile_,
        "checkpoint_activations": checkpoint_activations,
        "timing": timing or whole,
        "plugins": tuple(plugin) if plugin else None,
        "whole": whole,
    }

    from bench.run.profile import plan, request_of

    request = request_of({name: value for name, value in given.items() if value is not None}, problems)
    chosen = plan(request, problems)
    from bench.measure.placement import bf16_notes

    for note in bf16_notes(chosen.placement):
        tell(note, err=True)
    if whole:
        from bench.cli.profile_all import run

        rows = run(chosen, out)
    else:
        rows = _rows(chosen, out)
    if format_ == "table":
        from rich.text import Text

        from bench.report.profile import table

        print_table(*(Text(default, style="dim") for default in chosen.defaults), table(rows, whole))
    elif format_ == "csv":
        from bench.run.profile_columns import to_csv

        say(to_csv(rows))
    else:
        from bench.report.profile import to_json

        say(to_json(rows))
    if any(row.failed for row in rows):
        raise typer.Exit(1)


def _rows(chosen: Plan, out: Path | None) -> list[Profile]:
    """The profiles, and the file of them as far as they are there."""
    from bench.report.profile import to_json
    from bench.run.profile import profiles
    from bench.run.profile_columns import to_csv

    rows: list[Profile] = []
    total = len(chosen.subjects)
    with progress() as show:
        found = profiles(chosen, on_wait=lambda: tell("waiting for another command's measurements", err=True))
        for done, subject in enumerate(chosen.subjects):
            show("profiling", done, total, subject.label)
            rows.append(next(found))
            if out is not None:
                write("out", out, to_csv(rows) if out.suffix == ".csv" else to_json(rows))
    return rows
