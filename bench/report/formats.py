"""Results as JSON and Markdown, one evaluation as text, and the formats of `bench report` by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.report import records, terminal
from bench.report.latex import latex
from bench.report.report import Report
from bench.report.table import Column, ResultTable, Row
from bench.run.columns import options_of, to_csv
from bench.run.result import Result
from bench.text import counted, one_line, quantity


def _page(report: Report) -> str:
    from bench.report.page.render import render_page  # with numpy and matplotlib, which other formats do without

    return render_page(report.runs, report.table)


RENDERERS: dict[str, Callable[[Report], str]] = {
    "terminal": lambda report: terminal.render(report.table),
    "markdown": lambda report: markdown(report.table),
    "csv": lambda report: records.table_to_csv(report.table) if report.table.shaped else to_csv(report.runs.results),
    "json": lambda report: records.table_to_json(report.table),
    "latex": lambda report: latex(report.table, report.table.title, report.table.reference),
    "html": _page,
}


def _escape(text: str) -> str:
    """A text that Markdown shows as it is: no cell ends in it, no tag or emphasis begins."""
    for mark in ("\\", "`", "*", "|"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("<", "&lt;").split())


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def pipe_table(headers: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    """A plain Markdown table.

    Args:
        left: leading columns, which hold texts.
    """
    marks = [":--"] * left + ["--:"] * (len(headers) - left)
    return "\n".join([_line(list(headers)), _line(marks), *(_line([*map(_escape, line)]) for line in lines)]) + "\n"


def text_table(headers: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    """A plain table for a terminal.

    Args:
        left: leading columns, which hold texts; the last one is a text, too.
    """
    widths = [max(map(len, column)) for column in zip(headers, *lines, strict=True)]
    return "".join(
        "  ".join(
            text.ljust(width) if index < left or index == len(line) - 1 else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in (headers, *lines)
    )


def markdown(table: ResultTable) -> str:
    """A pipe table; the best value of a column is bold, the second underlined; footnotes and caption follow."""
    lines = [
        _line([*map(_escape, table.labels), *(_escape(column.header) for column in table.columns)]),
        _line([*(":--" for _ in table.labels), *("--:" for _ in table.columns)]),
    ]
    for row in table.rows:
        labels = {label: _escape(row.labels[label]) for label in table.labels}
        if row.notes:
            labels[table.noted_label] += f" <sup>{','.join(map(str, row.notes))}</sup>"
        lines.append(_line([*labels.values(), *(_number(table, row, column) for column in table.columns)]))
    if table.failures:
        lines += ["", *(f"- {_escape(failure)}" for failure in table.failures)]
    lines += ["", *(f"<sup>{i}</sup> {_escape(note)}  " for i, note in enumerate(table.footnotes, start=1))]
    lines += [f"{_escape(line)}  " for line in table.caption]
    return "\n".join(lines).rstrip() + "\n"


def _number(table: ResultTable, row: Row, column: Column) -> str:
    text = _escape(table.text(row, column))
    if table.best(row, column):
        return f"**{text}**"
    return f"<u>{text}</u>" if table.second(row, column) else text


def render_evaluation(result: Result) -> str:
    """Names and values below each other: no terminal is too narrow for it."""
    cell, where, file, metrics = result.cell, result.provenance, result.cell.model_file, result.metrics
    if file is None or metrics is None or result.counts is None:
        raise ValueError(f"{cell.label} is not an evaluation that is done")
    counts = result.counts
    rows = {
        "checkpoint": f"{file.path} (SHA-256 {file.sha256[:12]}, {file.layout})",
        "backbone": f"{cell.backbone_label} (SHA-256 {str(where.weights_sha256)[:12]})",
        "strategy": f"{cell.strategy} {options_of(result)}".strip(),
        "params M": f"{quantity(counts.params / 1e6, 2)}, trained {quantity(counts.trained_params / 1e6, 3)}",
        "GMACs": _gmacs(result),
        "data set": f"{cell.dataset} {cell.split}, {metrics.evaluated} of {counted(metrics.listed, 'video')}",
        "views": f"{metrics.protocol} (frames x clips x crops), {cell.pixels} pixels",
        "top-1 %": f"{metrics.top1:.2f}",
        "top-5 %": "-" if metrics.top5 is None else f"{metrics.top5:.2f}",
        "mean class %": f"{metrics.mean_class:.2f}",
        "reversed %": None if metrics.top1_reversed is None else f"{metrics.top1_reversed:.2f}",
        "shuffled %": None if metrics.top1_shuffled is None else f"{metrics.top1_shuffled:.2f}",
        "device": f"{where.device}, {where.precision}, torch {where.versions['torch']}, {where.wall_seconds:.0f} s",
    }
    width = max(map(len, rows)) + 2
    lines = [f"{name:{width}}{one_line(value)}" for name, value in rows.items() if value is not None]
    return "\n".join([*lines, *(f"note: {one_line(note)}" for note in result.footnotes)])


def _gmacs(result: Result) -> str | None:
    if result.counts is None or result.counts.macs_view is None:
        return None
    one, views = result.counts.macs_view / 1e9, result.cell.clips * result.cell.crops
    return f"{quantity(one, 3)} a view" + (f", {quantity(one * views, 3)} all {views}" if views > 1 else "")
