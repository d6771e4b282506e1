"""The table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from bench.report.table import Column, ResultTable, Row

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_GAP = 2


class TableView:
    """Something that rich prints: the table, its footnotes and its caption. Best values are bold and starred.

    Where the terminal is too narrow for the table in one piece, its headers are broken; where that is not enough, the
    columns follow each other in several tables, each with the labels. No text is cut off.
    """

    def __init__(self, table: ResultTable) -> None:
        self._table = table

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        whole = _width(self._table, self._table.columns, broken=False)
        return Measurement(min(whole, options.max_width), min(whole, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for index, (columns, broken) in enumerate(_parts(self._table, options.max_width)):
            if index:
                yield Text()
            yield _drawn(self._table, columns, broken, options.max_width)
        yield Text()
        yield from _below(self._table)


def width(table: ResultTable) -> int:
    """Columns of a terminal that the table fills in one piece."""
    return max(80, _width(table, table.columns, broken=False))


def render(table: ResultTable) -> str:
    """The table as plain text, in one piece."""
    console = Console(width=width(table), color_system=None, force_terminal=False, force_jupyter=False)
    with console.capture() as capture:
        console.print(TableView(table))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _header(column: Column, broken: bool) -> str:
    return column.header.replace(" ", "\n") if broken else column.header


def _cell(table: ResultTable, row: Row, column: Column) -> tuple[str, str]:
    """A number and its style, with room for the star of the best one so that the digits stand below each other."""
    text = table.text(row, column)
    if table.best(row, column):
        return f"{text}*", "bold green"
    return f"{text} ", "red" if row.failure is not None and text != "-" else ""


def _label_texts(table: ResultTable, index: int) -> list[str]:
    row = table.rows[index]
    marks = ",".join(map(str, row.notes)).translate(_SUPERSCRIPTS)
    backbone, strategy, *axes = (row.labels[label] for label in table.labels)
    return [backbone, strategy + marks, *axes]


def _label_widths(table: ResultTable) -> list[int]:
    texts = [table.labels, *(_label_texts(table, index) for index in range(len(table.rows)))]
    return [max(map(cell_len, column)) for column in zip(*texts, strict=True)]


def _number_width(table: ResultTable, column: Column, broken: bool) -> int:
    words = _header(column, broken).split("\n")
    return max(*map(cell_len, words), *(cell_len(_cell(table, row, column)[0]) for row in table.rows))


def _widths(table: ResultTable, columns: Sequence[Column], broken: bool) -> tuple[int, list[int]]:
    """Of the labels together, and of each column of numbers, the gaps included."""
    labels = sum(width + _GAP for width in _label_widths(table))
    return labels, [_number_width(table, column, broken) + _GAP for column in columns]


def _width(table: ResultTable, columns: Sequence[Column], broken: bool) -> int:
    labels, numbers = _widths(table, columns, broken)
    return labels + sum(numbers)


def _parts(table: ResultTable, room: int) -> Iterator[tuple[list[Column], bool]]:
    """The columns of each table, and whether its headers are broken."""
    if _width(table, table.columns, broken=False) <= room:
        yield table.columns, False
        return
    labels, numbers = _widths(table, table.columns, broken=True)
    part: list[Column] = []
    used = labels
    for column, needed in zip(table.columns, numbers, strict=True):
        if part and used + needed > room:
            yield part, True
            part, used = [], labels
        part.append(column)
        used += needed
    yield part, True


def _begins(table: ResultTable, index: int) -> bool:
    """Return whether another backbone begins with a row, so that a blank line stands before it."""
    return index > 0 and table.rows[index].labels["backbone"] != table.rows[index - 1].labels["backbone"]


def _drawn(table: ResultTable, columns: Sequence[Column], broken: bool, room: int) -> Table:
    """The table; where the terminal has not even room for the labels and one column, texts are folded."""
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    fits = _width(table, columns, broken) <= room
    # rich would take the room for a star away from what it justifies
    widths = [_number_width(table, column, broken) if fits else 0 for column in columns]
    for label in table.labels:
        drawn.add_column(Text(label), overflow="fold", vertical="bottom")
    for column, width in zip(columns, widths, strict=True):
        words = [word.rjust(width) for word in _header(column, broken).split("\n")]
        justify: JustifyMethod = "left" if fits else "right"
        drawn.add_column(Text("\n".join(words)), justify=justify, overflow="fold", vertical="bottom")
    for index, row in enumerate(table.rows):
        if _begins(table, index):
            drawn.add_row()
        numbers = (_cell(table, row, column) for column in columns)
        texts = [Text(text.rjust(width), style) for (text, style), width in zip(numbers, widths, strict=True)]
        drawn.add_row(*map(Text, _label_texts(table, index)), *texts)
    return drawn


def _below(table: ResultTable) -> Iterator[Text]:
    for failure in table.failures:
        yield Text(failure, style="red", overflow="fold")
    for number, note in enumerate(table.footnotes, start=1):
        yield Text(f"{str(number).translate(_SUPERSCRIPTS)} {note}", overflow="fold")
    for line in table.caption:
        yield Text(line, style="dim", overflow="fold")
    if any(table.best(row, column) for row in table.rows for column in table.columns):
        yield Text("* best of its column", style="dim")
