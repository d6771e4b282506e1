"""The table as Markdown, for a README or an issue."""

from __future__ import annotations

from bench.report.sheet import Sheet


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def render(sheet: Sheet) -> str:
    """A pipe table; the best value of a column is bold, footnotes and caption follow."""
    lines = [
        _line([*sheet.labels, *(column.header for column in sheet.columns)]),
        _line([*(":--" for _ in sheet.labels), *("--:" for _ in sheet.columns)]),
    ]
    failures = []
    for row in sheet.rows:
        labels = [_escape(row.labels[label]) for label in sheet.labels]
        if row.notes:
            labels[1] += f" <sup>{','.join(map(str, row.notes))}</sup>"
        if row.failure is not None:
            numbers = ["failed", *("-" for _ in sheet.columns[1:])] if sheet.columns else []
            failures.append(f"- {labels[0]} {row.labels['strategy']}: {_escape(row.failure)}")
        else:
            numbers = [
                f"**{sheet.text(row, column)}**" if sheet.best(row, column) else sheet.text(row, column)
                for column in sheet.columns
            ]
        lines.append(_line([*labels, *numbers]))
    lines += ["", *failures] if failures else []
    lines += ["", *(f"<sup>{i}</sup> {_escape(note)}  " for i, note in enumerate(sheet.footnotes, start=1))]
    lines += [f"{_escape(line)}  " for line in sheet.caption]
    return "\n".join(lines).rstrip() + "\n"
