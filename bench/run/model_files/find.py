"""From what a user names to a checkpoint."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from backbones.names import WEIGHT_SUFFIXES
from backbones.registry import did_you_mean
from bench.errors import UserError
from bench.files import did_you_mean_path, reason
from bench.run.store import ADAPTER, RESULTS


def find(text: str, root: Path = RESULTS) -> Path:
    """The file of a checkpoint.

    Args:
        text: a file, a cell's folder, or RUN/CELL. RUN is a run's folder or its name under `root`, CELL the name of the
            cell's folder or the cell's key.
        root: where runs lie.

    Raises:
        UserError: there is no such file.
    """
    given = Path(os.path.expanduser(text))
    if os.path.isfile(given):
        if given.suffix not in WEIGHT_SUFFIXES:
            raise UserError([f"checkpoint {text!r}: expected a file that ends in {', '.join(WEIGHT_SUFFIXES)}"])
        return given
    if given.suffix in WEIGHT_SUFFIXES and os.path.lexists(given):
        raise UserError([f"checkpoint {text!r}: it is not a regular file, or a link that leads to none"])
    if os.path.isfile(given / ADAPTER):
        return given / ADAPTER
    for run in (given, root / given):
        if os.path.isdir(run / "cells"):
            listed = ", ".join(_cells(run)) or "none"
            raise UserError([f"checkpoint {text!r} is a run: expected RUN/CELL, with one of its cells: {listed}"])
    for run in (given.parent, root / given.parent):
        if not os.path.isdir(run / "cells"):
            continue
        cells = _cells(run)
        for cell in cells:
            if given.name == cell or cell.endswith(f"-{given.name}"):
                if not os.path.isfile(run / "cells" / cell / ADAPTER):
                    raise UserError([f"checkpoint {text!r}: the cell has no {ADAPTER}, it did not come to its end"])
                return run / "cells" / cell / ADAPTER
        near = did_you_mean(given.name, cells)
        raise UserError([f"checkpoint {text!r}: the run has no such cell, expected one of {', '.join(cells)}{near}"])
    raise UserError(
        [f"checkpoint {text!r}: there is no such file, cell's folder or RUN/CELL{did_you_mean_path(given)}"]
    )


def _cells(run: Path) -> list[str]:
    return sorted(folder.name for folder in (run / "cells").iterdir() if folder.is_dir())


def sha256(file: Path) -> str:
    """Of a file's content. Raises UserError where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError([f"checkpoint {str(file)!r}: it cannot be read ({reason(error)})"]) from error
