"""The table as LaTeX, for a paper: booktabs, siunitx and threeparttable."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from bench.report.table import Column, ResultTable, Row

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≈": r"$\approx$",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}
_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?")
_HEADER = 10  # letters of a line of a column's header
_LAST_OF_FONTS = 0x17F  # Latin Extended-A: what LaTeX's usual encodings have letters for


def escape(text: str) -> str:
    """Return a text that LaTeX prints as it is; a letter that its fonts lack as its number, U+6A21."""
    return "".join(
        _SPECIAL.get(sign) or (sign if ord(sign) <= _LAST_OF_FONTS else f"U+{ord(sign):04X}") for sign in text
    )


def latex(table: ResultTable, caption: str = "", label: str = "") -> str:
    """Return the table as a float.

    The best value of a column is bold, the second underlined; numbers stand below each other by their points, intervals
    and deviations in a column of their own beside them.

    Args:
        table: any.
        caption: above it, where there is one.
        label: for \\ref, where there is one.
    """
    columns = [_Numbers(table, column) for column in table.columns]
    lines = [
        r"% needs \usepackage{booktabs,siunitx,threeparttable}",
        r"\begin{table}",
        r"  \centering",
        r"  \sisetup{detect-weight=true, mode=text, group-digits=none}",
        r"  \begin{threeparttable}",
        *([rf"    \caption{{{escape(caption)}}}"] if caption else []),
        *([rf"    \label{{{label}}}"] if label else []),
        rf"    \begin{{tabular}}{{{'l' * len(table.labels)}{''.join(column.kind for column in columns)}}}",
        r"      \toprule",
        _line([*(escape(label) for label in table.labels), *(column.header for column in columns)]),
        r"      \midrule",
        *_rows(table, columns),
        r"      \bottomrule",
        r"    \end{tabular}",
        *_notes(table),
        r"  \end{threeparttable}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    first, *others = cells
    # a bracket after the end of a line would be its space
    return f"      {'{}' * first.startswith('[')}{' & '.join([first, *others])} \\\\"


def _stacked(header: str) -> str:
    """A header on lines of a few letters, so that it makes its column no wider than its numbers need."""
    lines = textwrap.wrap(header, _HEADER, break_long_words=False, break_on_hyphens=False)
    stacked = r" \\ ".join(map(escape, lines))
    return escape(header) if len(lines) < 2 else rf"\shortstack{{{stacked}}}"


def _rows(table: ResultTable, columns: list[_Numbers]) -> Iterator[str]:
    before: Row | None = None
    for row in table.rows:
        if before is not None and row.published != before.published:
            yield r"      \midrule"
        elif before is not None and row.labels.get("backbone") != before.labels.get("backbone"):
            yield r"      \addlinespace"
        labels = {label: escape(row.labels[label]) for label in table.labels}
        if row.notes:
            labels[table.noted_label] += rf"\tnote{{{','.join(map(str, row.notes))}}}"
        yield _line([*labels.values(), *(column.cell(row) for column in columns)])
        before = row


def _notes(table: ResultTable) -> list[str]:
    items = [rf"      \item[] {escape(failure)}" for failure in table.failures]
    items += [rf"      \item[{number}] {escape(note)}" for number, note in enumerate(table.footnotes, start=1)]
    items += [rf"      \item[] {escape(line)}" for line in table.caption]
    return [r"    \begin{tablenotes}", r"      \footnotesize", *items, r"    \end{tablenotes}"] if items else []


class _Numbers:
    """A column: siunitx's S, which needs the most digits before and after the point.

    Attributes:
        kind: what `tabular` takes for it.
        header: its cell of the first line.
    """

    def __init__(self, table: ResultTable, column: Column) -> None:
        self._table, self._column = table, column
        parts = [found for row in table.rows if (found := _NUMBER.fullmatch(table.number(row, column)))]
        self._before = max((len(found[1] + found[2]) for found in parts), default=1)
        self._after = max((len(found[3] or "") for found in parts), default=0)
        self._beside = any(table.spread(row, column) or column.key in row.alike for row in table.rows)
        number = f"S[table-format={self._before}.{self._after}]" if column.numeric and parts else "l"
        self.kind = f" {number}" + "@{\\,}l" * self._beside
        title = _stacked(column.header)
        self.header = rf"\multicolumn{{2}}{{c}}{{{title}}}" if self._beside else f"{{{title}}}"

    def cell(self, row: Row) -> str:
        """Return a row's number, and in a cell of its own what stands beside it."""
        text = self._number(row)
        if not self._beside:
            return text
        beside = escape(self._table.spread(row, self._column))
        mark = r"\,$\approx$" * (self._column.key in row.alike)
        return f"{text} & " + (rf"{{\scriptsize {beside}{mark}}}" if beside or mark else "")

    def _number(self, row: Row) -> str:
        table, column = self._table, self._column
        text = table.number(row, column)
        found = _NUMBER.fullmatch(text)
        if not found:
            return "{--}" if text == "-" else f"{{{escape(text)}}}"
        if table.best(row, column):
            return rf"\bfseries {text}"
        if not table.second(row, column):
            return text
        # siunitx does not underline: a text as wide as the column's numbers
        before, after = self._before - len(found[1] + found[2]), self._after - len(found[3] or "")
        room = "0" * after if found[3] else "." * bool(after) + "0" * after
        left, right = (rf"\phantom{{{each}}}" if each else "" for each in ("0" * before, room))
        return rf"{{{left}\underline{{{text}}}{right}}}"
