"""Rows and cells that a user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from backbones.registry import did_you_mean
from bench.errors import UserError
from bench.report.plots.rows import PlotRow
from bench.report.row_name import FORM, RowName
from bench.run.result import Result
from bench.spec import Cell
from bench.text import counted


@dataclass(frozen=True)
class Chosen:
    """A row, or a single cell of one.

    Attributes:
        label: for people.
        results: of its cells, which differ in the seed alone.
    """

    label: str
    results: tuple[Result, ...]

    @property
    def cell(self) -> Cell:
        """The first of its cells."""
        return self.results[0].cell


def chosen_row(name: str, rows: Sequence[PlotRow]) -> Chosen:
    """Return the row of a name, see `RowName`. Raises UserError unless it is one row."""
    found = [row for row in rows if RowName(name).matches(row.cell)]
    if len(found) == 1:
        return Chosen(found[0].label, found[0].results)
    if found:
        told = "; ".join(row.label for row in found[:6])
        raise UserError([f"rows is {name!r}: {counted(len(found), 'row')} are that ({told}), expected one"])
    names = list(dict.fromkeys(f"{row.cell.backbone}/{row.cell.method}" for row in rows))
    raise UserError(
        [
            f"rows is {name!r}: expected {FORM} of a row that is done, such as "
            f"{', '.join(names[:6])}{did_you_mean(name.partition(' ')[0], names)}"
        ]
    )


def chosen_cell(name: str, rows: Sequence[PlotRow]) -> Chosen:
    """Return the cell of a key, of a folder's name or of a label. Raises UserError."""
    results = [result for row in rows for result in row.results]
    for result in results:
        cell = result.cell
        if name in (cell.key, cell.label) or PurePath(name).name == cell.folder:
            return Chosen(cell.label, (result,))
    names = [text for result in results for text in (result.cell.key, result.cell.folder, result.cell.label)]
    told = ", ".join(result.cell.key for result in results[:6])
    raise UserError(
        [
            f"cells is {name!r}: expected the key, the folder or the label of a cell that is done, such as {told}"
            f"{did_you_mean(name, names)}"
        ]
    )
