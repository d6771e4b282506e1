"""The table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from bench.report.sheet import Column, Row, Sheet

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
            if _width(self._sheet, columns, broken) <= options.max_width:
                yield from _lines(self._sheet, columns, broken)
            else:
                yield _folded(self._sheet, columns, broken)
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


def _cell(sheet: Sheet, row: Row, column: Column) -> tuple[str, str]:
    """A number and its style, with room for the star of the best one so that the digits stand below each other."""
    text = sheet.text(row, column)
    if sheet.best(row, column):
        return f"{text}*", "bold green"
    return f"{text} ", "red" if row.failure is not None and text != "-" else ""


def _label_texts(sheet: Sheet, index: int) -> list[str]:
    row = sheet.rows[index]
    marks = ",".join(map(str, row.notes)).translate(_SUPERSCRIPTS)
    backbone, strategy, *axes = (row.labels[label] for label in sheet.labels)
    return [backbone, strategy + marks, *axes]


def _label_widths(sheet: Sheet) -> list[int]:
    texts = [sheet.labels, *(_label_texts(sheet, index) for index in range(len(sheet.rows)))]
    return [max(map(cell_len, column)) for column in zip(*texts, strict=True)]


def _number_width(sheet: Sheet, column: Column, broken: bool) -> int:
    words = _header(column, broken).split("\n")
    return max(*map(cell_len, words), *(cell_len(_cell(sheet, row, column)[0]) for row in sheet.rows))


def _widths(sheet: Sheet, columns: Sequence[Column], broken: bool) -> tuple[int, list[int]]:
    """Of the labels together, and of each column of numbers, the gaps included."""
    labels = sum(width + _GAP for width in _label_widths(sheet))
    return labels, [_number_width(sheet, column, broken) + _GAP for column in columns]


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


def _begins(sheet: Sheet, index: int) -> bool:
    """Return whether another backbone begins with a row, so that a blank line stands before it."""
    return index > 0 and sheet.rows[index].labels["backbone"] != sheet.rows[index - 1].labels["backbone"]


def _lines(sheet: Sheet, columns: list[Column], broken: bool) -> Iterator[Text]:
    """The table, line by line, where the terminal has room for it. (A table of rich's own takes ten times as long.)"""
    labels = _label_widths(sheet)
    numbers = [_number_width(sheet, column, broken) for column in columns]

    def line(texts: Sequence[str], cells: Sequence[tuple[str, str]]) -> Text:
        found = Text(no_wrap=True, overflow="ignore", end="\n")
        for text, width in zip(texts, labels, strict=True):
            found.append(text + " " * (width - cell_len(text) + _GAP))
        for (text, style), width in zip(cells, numbers, strict=True):
            found.append(" " * (width - cell_len(text))).append(text, style).append(" " * _GAP)
        found.rstrip()
        return found

    words = [_header(column, broken).split("\n") for column in columns]
    height = max(map(len, words))
    for depth in range(height, 0, -1):  # lines of the header that are left; texts end in its last one
        heads = sheet.labels if depth == 1 else [""] * len(labels)
        header = line(heads, [(word[-depth] if depth <= len(word) else "", "") for word in words])
        header.stylize("bold")
        yield header
    for index, row in enumerate(sheet.rows):
        if _begins(sheet, index):
            yield Text()
        yield line(_label_texts(sheet, index), [_cell(sheet, row, column) for column in columns])


def _folded(sheet: Sheet, columns: list[Column], broken: bool) -> Table:
    """The table where the terminal has not even room for the labels and one column: texts are folded."""
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for label in sheet.labels:
        drawn.add_column(Text(label), overflow="fold")
    for column in columns:
        drawn.add_column(Text(_header(column, broken)), justify="right", vertical="top", overflow="fold")
    for index, row in enumerate(sheet.rows):
        if _begins(sheet, index):
            drawn.add_row()
        labels = [Text(text) for text in _label_texts(sheet, index)]
        drawn.add_row(*labels, *(Text(*_cell(sheet, row, column)) for column in columns))
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
