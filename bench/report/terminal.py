"""The table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from bench.report.table import Column, ResultTable, Row

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_GAP = 2


class TableView:
    """Something that rich prints: the table, its footnotes and its caption.

    Best values are bold and starred, the second best are underlined where the terminal has that. Where the terminal is
    too narrow for the table in one piece, its headers are broken; where that is not enough, the columns follow each
    other in several tables, each with the labels. No text is cut off.
    """

    def __init__(self, table: ResultTable) -> None:
        self._table = table
        self._texts = _Texts(table)

    @property
    def width(self) -> int:
        """Columns of a terminal that the table fills in one piece."""
        return self._texts.width(self._table.columns, broken=False)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        whole = self.width
        return Measurement(min(whole, options.max_width), min(whole, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for index, (columns, broken) in enumerate(self._texts.parts(options.max_width)):
            if index:
                yield Text()
            if self._texts.width(columns, broken) <= options.max_width:
                yield from _lines(self._texts, columns, broken, console)
            else:
                yield _folded(self._texts, columns, broken)
        yield Text()
        yield from _below(self._table)


def render(table: ResultTable) -> str:
    """The table as plain text, in one piece."""
    view = TableView(table)
    console = Console(width=max(80, view.width), color_system=None, force_terminal=False, force_jupyter=False)
    with console.capture() as capture:
        console.print(view)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _header(column: Column, broken: bool) -> str:
    return column.header.replace(" ", "\n") if broken else column.header


class _Texts:
    """Texts of a table's rows, each made once, and the room that they need.

    Attributes:
        table: the table.
        labels: of each row.
        label_widths: of each leading column.
    """

    def __init__(self, table: ResultTable) -> None:
        self.table = table
        self.labels = [self._labels(row) for row in table.rows]
        every = zip(table.labels, *self.labels, strict=True)
        self.label_widths = [max(map(cell_len, column)) for column in every]
        self._cells: dict[str, list[tuple[str, str]]] = {}
        self._number_widths: dict[str, int] = {}  # without the headers

    def _labels(self, row: Row) -> list[str]:
        marks = ",".join(map(str, row.notes)).translate(_SUPERSCRIPTS)
        return [row.labels[label] + marks * (label == self.table.noted_label) for label in self.table.labels]

    def cells(self, column: Column) -> list[tuple[str, str]]:
        """Return the number of each row and its style.

        There is room for the star of the best one, and intervals are equally wide, so that digits stand below each
        other.
        """
        if column.key not in self._cells:
            rows = self.table.rows
            found = [row.intervals.get(column.key) for row in rows]
            ends = [(column.text(each.low), column.text(each.high)) if each else ("", "") for each in found]
            low, high = (max(map(len, side)) for side in zip(*ends, strict=True)) if any(found) else (0, 0)
            marked = any(column.key in row.alike for row in rows)
            texts = []
            for row, (least, most) in zip(rows, ends, strict=True):
                text, beside = self.table.number(row, column), self.table.spread(row, column)
                if low:
                    beside = f"[{least:>{low}}, {most:>{high}}]" if most else beside.ljust(low + high + 4)
                text += f" {beside}" * bool(beside)
                text += (" ≈" if column.key in row.alike else "  ") * marked
                texts.append(self._styled(row, column, text))
            self._cells[column.key] = texts
        return self._cells[column.key]

    def _styled(self, row: Row, column: Column, text: str) -> tuple[str, str]:
        if self.table.best(row, column):
            return f"{text}*", "bold green"
        if self.table.second(row, column):
            return f"{text} ", "underline"
        return f"{text} ", "red" if row.failure is not None and text.strip() != "-" else ""

    def number_width(self, column: Column, broken: bool) -> int:
        words = _header(column, broken).split("\n")
        if column.key not in self._number_widths:
            self._number_widths[column.key] = max((cell_len(text) for text, _ in self.cells(column)), default=0)
        return max(*map(cell_len, words), self._number_widths[column.key])

    def _widths(self, columns: Sequence[Column], broken: bool) -> tuple[int, list[int]]:
        """Of the labels together, and of each column of numbers, the gaps included."""
        labels = sum(width + _GAP for width in self.label_widths)
        return labels, [self.number_width(column, broken) + _GAP for column in columns]

    def width(self, columns: Sequence[Column], broken: bool) -> int:
        """Return the room that labels and columns need side by side."""
        labels, numbers = self._widths(columns, broken)
        return labels + sum(numbers)

    def parts(self, room: int) -> Iterator[tuple[list[Column], bool]]:
        """Yield the columns of each table, and whether its headers are broken."""
        columns = self.table.columns
        if self.width(columns, broken=False) <= room:
            yield columns, False
            return
        labels, numbers = self._widths(columns, broken=True)
        part: list[Column] = []
        used = labels
        for column, needed in zip(columns, numbers, strict=True):
            if part and used + needed > room:
                yield part, True
                part, used = [], labels
            part.append(column)
            used += needed
        yield part, True


def _begins(table: ResultTable, index: int) -> bool:
    """Return whether a blank line stands before a row, as another backbone or published figures begin with it."""
    if index == 0:
        return False
    row, before = table.rows[index], table.rows[index - 1]
    if row.published or before.published:
        return row.published != before.published
    return row.labels.get("backbone") != before.labels.get("backbone")


def _lines(texts: _Texts, columns: Sequence[Column], broken: bool, console: Console) -> Iterator[Segment]:
    """The table line by line: rich's own tables take three times as long as all else of a report of 1,000 rows."""
    widths = [texts.number_width(column, broken) for column in columns]
    words = [_header(column, broken).split("\n") for column in columns]
    height, bold = max(map(len, words)), console.get_style("bold")
    gap = " " * _GAP
    for line in range(height):
        labels = texts.table.labels if line == height - 1 else [""] * len(texts.table.labels)
        shown = [_left(label, width) for label, width in zip(labels, texts.label_widths, strict=True)]
        for each, width in zip(words, widths, strict=True):
            at = line - height + len(each)  # they stand on the last line
            shown.append((each[at] if at >= 0 else "").rjust(width))
        yield Segment(gap.join(shown), bold)
        yield Segment.line()
    styles = {style: console.get_style(style) for style in ("bold green", "underline", "red")}
    cells = [texts.cells(column) for column in columns]
    for index, of_row in enumerate(texts.labels):
        if _begins(texts.table, index):
            yield Segment.line()
        plain = gap.join(map(_left, of_row, texts.label_widths))
        for column, width in zip(cells, widths, strict=True):
            text, style = column[index]
            plain += gap + " " * (width - cell_len(text))
            if style:
                # the blanks around a number have no style, which may be a line
                number = text.rstrip()
                yield Segment(plain)
                yield Segment(number, styles[style])
                plain = " " * (len(text) - len(number))
            else:
                plain += text
        yield Segment(plain)
        yield Segment.line()


def _left(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _folded(texts: _Texts, columns: Sequence[Column], broken: bool) -> Table:
    """The table where the terminal has not even room for the labels and one column: texts go on in the next line."""
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for label in texts.table.labels:
        drawn.add_column(Text(label), overflow="fold", vertical="bottom")
    for column in columns:
        drawn.add_column(Text(_header(column, broken)), justify="right", overflow="fold", vertical="bottom")
    cells = [texts.cells(column) for column in columns]
    for index, labels in enumerate(texts.labels):
        if _begins(texts.table, index):
            drawn.add_row()
        drawn.add_row(*map(Text, labels), *(Text(*column[index]) for column in cells))
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
