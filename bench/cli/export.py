"""`bench export`: a cell's model as AIM's released code has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UserError

SUFFIXES = (".pth", ".pt")


def export(
    checkpoint: Annotated[
        str, typer.Argument(help="RUN/CELL, the cell's folder or its adapter.safetensors.", metavar="RUN/CELL")
    ],
    out: Annotated[Path, typer.Option(help="The file to write, .pth.")],
    backbone: Annotated[
        str | None, typer.Option(help="Where the cell's backbone lies now. [default: where it was]")
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="A Python file or module that registers backbones or data sets. Repeatable."),
    ] = None,
) -> None:
    """Write a cell's trained model, its backbone included, as a state dict that AIM's released code loads.

    Families clip, vit and swin; strategies joint, temporal, spatial, frozen and full. `bench eval` takes the file, too.
    """
    from bench.cli.output import obstacles, tell
    from bench.files import reason

    out = Path(os.path.expanduser(out))
    problems = obstacles("out", out)
    if out.suffix not in SUFFIXES:
        problems.append(f"out is {str(out)!r}: expected a file that ends in {' or '.join(SUFFIXES)}")

    from bench.plugins import load as load_plugins
    from bench.run.model_files.adapter_file import AdapterFile
    from bench.run.model_files.base import find
    from bench.run.model_files.open import open_model_file
    from bench.run.model_files.released import export as write

    found = None
    try:
        load_plugins(plugin or ())
        found = open_model_file(find(checkpoint), backbone)
        if not isinstance(found, AdapterFile):
            problems.append(
                f"checkpoint {checkpoint!r} has the released layout already: expected a cell of `bench run`"
            )
    except UserError as error:
        problems += error.problems
    if problems or not isinstance(found, AdapterFile):
        raise UserError(problems)
    try:
        notes = write(found, out)
    except OSError as error:
        raise UserError([f"out is {str(out)!r}: cannot be written ({reason(error)})"]) from error
    tell(str(out))
    for note in notes:
        tell(f"note: {note}", err=True)
