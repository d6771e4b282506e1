"""The table in the terminal."""

from __future__ import annotations

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.report.sheet import Sheet

_SUPERSCRIPTS = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹˒")


def table(sheet: Sheet) -> Group:
    """Something that rich prints: the table, its footnotes and its caption. Best values are bold and starred."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for label in sheet.labels:
        drawn.add_column(label, no_wrap=True)
    for column in sheet.columns:
        drawn.add_column(column.header, justify="right", min_width=max(map(len, column.header.split())))
    failures = []
    previous = None
    for row in sheet.rows:
        if previous is not None and row.labels["backbone"] != previous:
            drawn.add_row()
        previous = row.labels["backbone"]
        marks = ",".join(map(str, row.notes)).translate(_SUPERSCRIPTS)
        labels = [escape(row.labels[label]) for label in sheet.labels]
        labels[1] += marks
        if row.failure is not None:
            drawn.add_row(*labels, *(["[red]failed[/red]"] + ["-"] * (len(sheet.columns) - 1) if sheet.columns else []))
            failures.append(f"{row.labels['backbone']} {row.labels['strategy']}: {row.failure}")
            continue
        drawn.add_row(
            *labels,
            *(
                f"[bold green]{sheet.text(row, column)}*[/]"
                if sheet.best(row, column)
                else sheet.text(row, column) + " "
                for column in sheet.columns
            ),
        )
    lines = [
        *(Text(line, style="red") for line in failures),
        *(Text(f"{str(index).translate(_SUPERSCRIPTS)} {note}") for index, note in enumerate(sheet.footnotes, start=1)),
        *(Text(line, style="dim") for line in sheet.caption),
    ]
    if any(sheet.best(row, column) for row in sheet.rows for column in sheet.columns):
        lines.append(Text("* best of its column", style="dim"))
    return Group(drawn, Text(), *lines)


def width(sheet: Sheet) -> int:
    """Columns of a terminal that the table fills without breaking a line."""
    console = Console(width=10_000)
    return max(80, console.measure(table(sheet)).maximum)


def render(sheet: Sheet) -> str:
    """The table as plain text."""
    console = Console(width=width(sheet), no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(table(sheet))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
