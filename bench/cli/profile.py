"""`bench profile`: what a model costs, without training it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.choices import not_among
from bench.cli.output import obstacles, say, write
from bench.cli.request import assignments, scalar

FORMATS = ("table", "json", "csv")
_SUFFIXES = (".csv", ".json")


def profile(
    backbones: Annotated[
        str,
        typer.Argument(
            help="Comma list of family[:model][@weights], such as vit or clip:ViT-L-14@none, or all.",
            metavar="BACKBONE",
        ),
    ],
    strategies: Annotated[str, typer.Argument(help="Comma list of strategies, or all.", metavar="STRATEGY")],
    frames: Annotated[str | None, typer.Option(help="Comma list of frames a clip. [default: 8]")] = None,
    classes: Annotated[str | None, typer.Option(help="Of the head. [default: 400]", metavar="INTEGER")] = None,
    views: Annotated[
        str | None, typer.Option(help="Views of a test, clips x crops. [default: 3x1]", metavar="CLIPSxCROPS")
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
    format_: Annotated[
        str, typer.Option("--format", help=f"How to print it: {', '.join(FORMATS)}.", metavar="FORMAT")
    ] = "table",
    out: Annotated[
        Path | None, typer.Option(help="Also write it to this file, which ends in .csv or .json, a row a model.")
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
    if out is not None:
        problems += obstacles("out", out)
        problems += (
            [] if out.suffix in _SUFFIXES else [f"out is {str(out)!r}: expected a file that ends in .csv or .json"]
        )
    given: dict[str, Any] = {
        "backbones": backbones,
        "strategies": strategies,
        "frames": frames,
        "classes": None if classes is None else scalar(classes),
        "views": views,
        "options": assignments(option or (), "--option", problems),
        "device": device,
        "precision": precision,
        "batch_size": None if batch_size is None else scalar(batch_size),
        "timing": timing,
        "plugins": tuple(plugin) if plugin else None,
    }

    from bench.runner.profile import plan, profiles, request_of

    # torch's profiler, which measures memory, talks to the terminal while it looks for devices
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    request = request_of({name: value for name, value in given.items() if value is not None}, problems)
    chosen = plan(request, problems)

    from rich.console import Console

    from bench.report import profile as report

    rows = []
    with Console(stderr=True).status("profiling") as status:
        found = profiles(chosen)
        for number, subject in enumerate(chosen.subjects, start=1):
            status.update(f"profiling {number} of {len(chosen.subjects)}: {subject.label}".replace("[", "\\["))
            rows.append(next(found))
            if out is not None:
                write("out", out, report.to_csv(rows) if out.suffix == ".csv" else report.to_json(rows))
    if format_ == "table":
        _print(rows, chosen.defaults)
    else:
        say(report.to_csv(rows) if format_ == "csv" else report.to_json(rows))
    if any(row.failed for row in rows):
        raise typer.Exit(1)


def _print(rows: list[Any], defaults: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.text import Text

    from bench.report.profile import table

    console = Console(highlight=False)
    wide = console if console.is_terminal else Console(width=240, highlight=False, color_system=None)
    with wide.capture() as capture:
        for default in defaults:
            wide.print(Text(default, style="dim"))
        wide.print(table(rows))
    text = capture.get()
    if not console.is_terminal:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    say(text)
