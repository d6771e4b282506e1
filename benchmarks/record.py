"""Provenance of a benchmark's numbers, and the files that it leaves."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from bench.measure.machine import cores, device_name, versions
from bench.version import commit


def provenance(device: str) -> dict[str, Any]:
    """Columns of the machine and the code. Of a repository that was changed since its commit, `dirty` says so."""
    head, dirty = commit()
    return {
        "device": device_name(device),
        "cores": cores(),
        "python": versions()["python"],
        "torch": versions()["torch"],
        "commit": head,
        "dirty": dirty,
    }


def write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    """The rows, numbers to four significant digits."""
    columns = list(dict.fromkeys(name for row in rows for name in row))  # those of before may lack newer ones
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}
            )


def add_to_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows below those that the file holds: a benchmark that is stopped leaves what it had."""
    found: list[dict[str, Any]] = []
    if file.is_file():
        with file.open(newline="") as stream:
            found = list(csv.DictReader(stream))
    write_csv(file, found + rows)


def pyplot() -> Any:
    """matplotlib's pyplot, drawing into files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, file: Path, dpi: int = 80) -> None:
    """A figure as a PNG of few colours, which is small enough to lie in a repository."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, format="png")
    Image.open(drawn).convert("RGB").quantize(48).save(file, optimize=True)
