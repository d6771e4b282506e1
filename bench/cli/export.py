"""`bench export`: a cell's model as AIM's released code has it, merged, or as peft has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.errors import UserError

Layout = Literal["released", "peft"]
# what a file of each layout ends in; peft's is a folder
SUFFIXES = {"released": (".pth", ".pt"), "merged": (".safetensors",), "peft": ()}


def export(
    checkpoint: Annotated[
        str, typer.Argument(help="RUN/CELL, the cell's folder or its adapter.safetensors.", metavar="RUN/CELL")
    ],
    out: Annotated[
        Path, typer.Option(help="What to write: a .pth file; merged a .safetensors file; for peft a folder.")
    ],
    format: Annotated[
        Layout, typer.Option(help="released: as AIM's released code has it; peft: a LoRA's update in peft's format.")
    ] = "released",
    merged: Annotated[
        bool, typer.Option("--merged", help="Write the whole model as it is deployed, for `bench eval`.")
    ] = False,
    backbone: Annotated[
        str | None, typer.Option(help="Where the cell's backbone lies now. [default: where it was]")
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="A Python file or module that registers backbones or data sets. Repeatable."),
    ] = None,
) -> None:
    """Write a cell's trained model for others.

    As released: a state dict, its backbone included, that AIM's released code loads; families clip, vit and swin,
    strategies joint, temporal, spatial, frozen and full. `bench eval` takes each of the three, peft's folder too.
    """
    from bench.cli.output import obstacles, tell
    from bench.files import reason

    out = Path(os.path.expanduser(out))
    problems = [] if format == "peft" and os.path.isdir(out) else obstacles("out", out)
    if format == "peft" and os.path.isfile(out):
        problems.append(f"out is {str(out)!r}: it is a file, expected a folder")
    suffixes = SUFFIXES["merged" if merged else format]
    if suffixes and out.suffix not in suffixes:
        problems.append(f"out is {str(out)!r}: expected a file that ends in {' or '.join(suffixes)}")
    if merged and format == "peft":
        problems.append("format is peft: expected without --merged, as peft's files hold what merging removes")

    from bench.plugins import load as load_plugins
    from bench.run.model_files import adapter_file, peft, released
    from bench.run.model_files.base import find
    from bench.run.model_files.open import open_model_file

    found = None
    try:
        load_plugins(plugin or ())
        found = open_model_file(find(checkpoint), backbone)
        if not isinstance(found, adapter_file.AdapterFile):
            problems.append(
                f"checkpoint {checkpoint!r} has the released layout already: expected a cell of `bench run`"
            )
    except UserError as error:
        problems += error.problems
    if problems or not isinstance(found, adapter_file.AdapterFile):
        raise UserError(problems)
    write = adapter_file.write_merged if merged else peft.export if format == "peft" else released.export
    try:
        notes = write(found, out)
    except OSError as error:
        raise UserError([f"out is {str(out)!r}: cannot be written ({reason(error)})"]) from error
    tell(str(out))
    for note in notes:
        tell(f"note: {note}", err=True)
