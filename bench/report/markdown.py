"""The table as Markdown, for a README or an issue."""

from __future__ import annotations

from bench.report.table import ResultTable


def _escape(text: str) -> str:
    """A text that Markdown shows as it is: no cell ends in it, no tag or emphasis begins."""
    for mark in ("\\", "`", "*", "|"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("<", "&lt;").split())


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def render(table: ResultTable) -> str:
    """A pipe table; the best value of a column is bold, footnotes and caption follow."""
    lines = [
        _line([*map(_escape, table.labels), *(column.header for column in table.columns)]),
        _line([*(":--" for _ in table.labels), *("--:" for _ in table.columns)]),
    ]
    for row in table.rows:
        labels = [_escape(row.labels[label]) for label in table.labels]
        if row.notes:
            labels[1] += f" <sup>{','.join(map(str, row.notes))}</sup>"
        numbers = [
            f"**{table.text(row, column)}**" if table.best(row, column) else table.text(row, column)
            for column in table.columns
        ]
        lines.append(_line([*labels, *numbers]))
    if table.failures:
        lines += ["", *(f"- {_escape(failure)}" for failure in table.failures)]
    lines += ["", *(f"<sup>{i}</sup> {_escape(note)}  " for i, note in enumerate(table.footnotes, start=1))]
    lines += [f"{_escape(line)}  " for line in table.caption]
    return "\n".join(lines).rstrip() + "\n"
