"""The table as Markdown, for a README or an issue."""

from __future__ import annotations

from bench.report.sheet import Sheet


def _escape(text: str) -> str:
    """A text that Markdown shows as it is: no cell ends in it, no tag or emphasis begins."""
    for mark in ("\\", "`", "*", "|"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("<", "&lt;").split())


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def render(sheet: Sheet) -> str:
    """A pipe table; the best value of a column is bold, footnotes and caption follow."""
    lines = [
        _line([*map(_escape, sheet.labels), *(column.header for column in sheet.columns)]),
        _line([*(":--" for _ in sheet.labels), *("--:" for _ in sheet.columns)]),
    ]
    for row in sheet.rows:
        labels = [_escape(row.labels[label]) for label in sheet.labels]
        if row.notes:
            labels[1] += f" <sup>{','.join(map(str, row.notes))}</sup>"
        numbers = [
            f"**{sheet.text(row, column)}**" if sheet.best(row, column) else sheet.text(row, column)
            for column in sheet.columns
        ]
        lines.append(_line([*labels, *numbers]))
    if sheet.failures:
        lines += ["", *(f"- {_escape(failure)}" for failure in sheet.failures)]
    lines += ["", *(f"<sup>{i}</sup> {_escape(note)}  " for i, note in enumerate(sheet.footnotes, start=1))]
    lines += [f"{_escape(line)}  " for line in sheet.caption]
    return "\n".join(lines).rstrip() + "\n"
