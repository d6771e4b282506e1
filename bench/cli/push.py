"""`bench push`: a cell's adapter, with a model card, on the Hugging Face Hub."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import UserError

if TYPE_CHECKING:
    from bench.run.model_files.adapter_file import AdapterFile
    from bench.run.result import Result

_FOLDER = "hub"  # in the cell's, of a dry run


def push(
    cell: Annotated[str, typer.Argument(help="RUN/CELL, or the cell's folder.", metavar="RUN/CELL")],
    name: Annotated[str, typer.Argument(help="The repository, which is made if need be.", metavar="USER/NAME")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, which is made if need be. [default: main]", metavar="BRANCH")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder and upload nothing.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files that are uploaded. [default: none; of a dry run, hub in the cell's]"),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="A Python file or module that registers backbones or data sets. Repeatable."),
    ] = None,
) -> None:
    """Write a model card for a cell and upload it with adapter.safetensors and cell.json.

    The card says what was trained on what, its accuracy and its footnotes; it states no license.
    """
    import os
    import tempfile

    from bench.cli.output import tell
    from bench.plugins import load as load_plugins
    from bench.run.hub import repo_problems, token_problems, upload

    problems = repo_problems(name)
    if not dry_run:
        problems += token_problems()
    found = None
    try:
        load_plugins(plugin or ())
        found = _trained(cell)
    except UserError as error:
        problems += error.problems
    if problems or found is None:
        raise UserError(problems)
    file, result = found
    with tempfile.TemporaryDirectory(prefix="aim-bench-push-") as temporary:
        kept = file.file.parent / _FOLDER if dry_run else Path(temporary)
        folder = kept if out is None else Path(os.path.expanduser(out))
        _write(folder, file, result, name, revision)
        if dry_run:
            tell(str(folder))
            return
        message = f"{result.cell.label} on {result.cell.dataset}"
        tell(upload(folder, name, private=private, revision=revision, message=message))


def _trained(text: str) -> tuple[AdapterFile, Result]:
    """The adapter file and the result of a cell. Raises UserError where it is not one that is done."""
    from bench.run.model_files.adapter_file import AdapterFile
    from bench.run.model_files.base import find
    from bench.run.model_files.open import open_model_file
    from bench.run.result import Result

    file = open_model_file(find(text))
    beside = file.file.parent / "result.json"
    result: Result | None = None
    with contextlib.suppress(OSError, ValueError):
        result = Result.model_validate_json(beside.read_text(encoding="utf-8"))
    if not isinstance(file, AdapterFile) or result is None or result.status != "done":
        raise UserError([f"checkpoint {text!r}: it is not in the folder of a cell that is done, expected one"])
    return file, result


def _write(folder: Path, file: AdapterFile, result: Result, name: str, revision: str | None) -> None:
    """Write the folder that is uploaded. Raises UserError where it holds something else, or cannot be written."""
    import shutil

    from bench.files import reason, write_atomically, write_text
    from bench.report.model_card import model_card
    from bench.run.store import ADAPTER

    size = file.file.stat().st_size
    try:
        if folder.exists() and (
            others := {each.name for each in folder.iterdir()} - {"README.md", ADAPTER, "cell.json"}
        ):
            told = f"out is {str(folder)!r}: the folder holds something else ({min(others)})"
            raise UserError([f"{told}, expected a new folder"])
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ADAPTER, lambda path: shutil.copyfile(file.file, path))
        write_text(folder / "cell.json", result.cell.model_dump_json(indent=2))
        write_text(folder / "README.md", model_card(result, file.class_names or (), name, revision, size))
    except OSError as error:
        raise UserError([f"out is {str(folder)!r}: cannot be written ({reason(error)})"]) from error
