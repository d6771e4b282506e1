"""The table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from bench.report.sheet import Column, Sheet

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_GAP = 2


class SheetView:
    """Something that rich prints: the table, its footnotes and its caption. Best values are bold and starred.

    Where the terminal is too narrow for the table in one piece, its headers are broken; where that is not enough, the
    columns follow each other in several tables, each with the labels. No text is cut off.
    """

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        whole = _width(self._sheet, self._sheet.columns, broken=False)
        return Measurement(min(whole, options.max_width), min(whole, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for index, (columns, broken) in enumerate(_parts(self._sheet, options.max_width)):
            if index:
                yield Text()
            yield _drawn(self._sheet, columns, broken)
        yield Text()
        yield from _below(self._sheet)


def table(sheet: Sheet) -> SheetView:
    """The table for rich to print, as wide as the terminal allows."""
    return SheetView(sheet)


def width(sheet: Sheet) -> int:
    """Columns of a terminal that the table fills in one piece."""
    return max(80, _width(sheet, sheet.columns, broken=False))


def render(sheet: Sheet) -> str:
    """The table as plain text, in one piece."""
    console = Console(width=width(sheet), color_system=None, force_terminal=False, force_jupyter=False)
    with console.capture() as capture:
        console.print(table(sheet))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _header(column: Column, broken: bool) -> str:
    return column.header.replace(" ", "\n") if broken else column.header


def _cell(sheet: Sheet, index: int, column: Column) -> Text:
    """A number, with room for the star of the best one so that the digits stand below each other."""
    row = sheet.rows[index]
    if sheet.best(row, column):
        return Text(f"{sheet.text(row, column)}*", style="bold green")
    failed = row.failure is not None and sheet.text(row, column) != "-"
    return Text(f"{sheet.text(row, column)} ", style="red" if failed else "")


def _label_texts(sheet: Sheet, index: int) -> list[str]:
    row = sheet.rows[index]
    marks = ",".join(map(str, row.notes)).translate(_SUPERSCRIPTS)
    backbone, strategy, *axes = (row.labels[label] for label in sheet.labels)
    return [backbone, strategy + marks, *axes]


def _widths(sheet: Sheet, columns: Sequence[Column], broken: bool) -> tuple[int, list[int]]:
    """Of the labels together, and of each column of numbers, the gaps included."""
    texts = [sheet.labels, *(_label_texts(sheet, index) for index in range(len(sheet.rows)))]
    labels = sum(max(map(len, column)) + _GAP for column in zip(*texts, strict=True))
    numbers = [
        _GAP
        + max(
            *(len(word) for word in _header(column, broken).split("\n")),
            *(len(_cell(sheet, index, column)) for index in range(len(sheet.rows))),
        )
        for column in columns
    ]
    return labels, numbers


def _width(sheet: Sheet, columns: Sequence[Column], broken: bool) -> int:
    labels, numbers = _widths(sheet, columns, broken)
    return labels + sum(numbers)


def _parts(sheet: Sheet, room: int) -> Iterator[tuple[list[Column], bool]]:
    """The columns of each table, and whether its headers are broken."""
    if _width(sheet, sheet.columns, broken=False) <= room:
        yield sheet.columns, False
        return
    labels, numbers = _widths(sheet, sheet.columns, broken=True)
    part: list[Column] = []
    used = labels
    for column, needed in zip(sheet.columns, numbers, strict=True):
        if part and used + needed > room:
            yield part, True
            part, used = [], labels
        part.append(column)
        used += needed
    yield part, True


def _drawn(sheet: Sheet, columns: list[Column], broken: bool) -> Table:
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for label in sheet.labels:
        drawn.add_column(Text(label), overflow="fold")
    for column in columns:
        drawn.add_column(Text(_header(column, broken)), justify="right", vertical="top", overflow="fold")
    for index, row in enumerate(sheet.rows):
        if index and row.labels["backbone"] != sheet.rows[index - 1].labels["backbone"]:
            drawn.add_row()
        labels = [Text(text) for text in _label_texts(sheet, index)]
        drawn.add_row(*labels, *(_cell(sheet, index, column) for column in columns))
    return drawn


def _below(sheet: Sheet) -> Iterator[Text]:
    for failure in sheet.failures:
        yield Text(failure, style="red", overflow="fold")
    for number, note in enumerate(sheet.footnotes, start=1):
        yield Text(f"{str(number).translate(_SUPERSCRIPTS)} {note}", overflow="fold")
    for line in sheet.caption:
        yield Text(line, style="dim", overflow="fold")
    if any(sheet.best(row, column) for row in sheet.rows for column in sheet.columns):
        yield Text("* best of its column", style="dim")
