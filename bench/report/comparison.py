"""Rows of a table against a baseline: which rows are compared with which, and the table of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from backbones.registry import did_you_mean
from bench.errors import UserError
from bench.report.axes import axes_of
from bench.report.row_name import FORM, RowName
from bench.report.table import NUMBERS, groups
from bench.run.result import Result
from bench.spec import Cell
from bench.stats.compare import Comparison, compare, holm
from bench.stats.outcomes import METRICS, CellFolders, Metric, Outcomes, outcomes, predicted
from bench.text import counted, listed, one_line

METRIC_NAMES = {column.key: column.header for column in NUMBERS if column.key in METRICS}


@dataclass(frozen=True)
class ComparedRow:
    """A row with what became of its comparison.

    Attributes:
        labels: its texts by header: backbone, strategy and what tells rows apart.
        against: the baseline's name.
        comparison: None where there is none, or the row is the baseline itself.
        lacking: why there is none.
    """

    labels: dict[str, str]
    against: str
    comparison: Comparison | None
    lacking: str | None = None


class _Baseline(RowName):
    """The rows that are baselines."""

    def setting(self, cell: Cell) -> tuple[object, ...]:
        """Return what rows must share with their baseline; another backbone's is asked for by its name."""
        shared = (cell.dataset, cell.data, cell.protocol, cell.split, cell.train_fraction)
        return shared if self.backbone else (cell.backbone_label, *shared)


def compared(run: CellFolders, results: Sequence[Result], baseline: str, metric: Metric) -> list[ComparedRow]:
    """Return every row of a run against its baseline, with Holm's correction over all comparisons.

    Raises:
        UserError: no row is such a baseline, or several are in one setting.
    """
    wanted = _Baseline(baseline)
    rows = [group for group in groups(results) if group[0].status == "done" and group[0].metrics is not None]
    chosen: dict[tuple[object, ...], list[int]] = {}
    for index, group in enumerate(rows):
        if wanted.matches(group[0].cell):
            chosen.setdefault(wanted.setting(group[0].cell), []).append(index)
    _check(wanted, [group[0].cell for group in rows], chosen)
    axes = axes_of([group[0].cell for group in rows])
    found: list[Outcomes | str] = [_outcomes(run, group, metric) for group in rows]
    table = []
    for index, group in enumerate(rows):
        cell = group[0].cell
        texts = {name: one_line(values[index]) for name, values in axes.items()}
        labels = {"backbone": cell.backbone_label, "strategy": cell.method, **texts}
        others = chosen.get(wanted.setting(cell))
        comparison, lacking = None, None if others else "no baseline"
        if others and index != others[0]:
            one, other = found[index], found[others[0]]
            try:
                if isinstance(one, str) or isinstance(other, str):
                    raise ValueError(one if isinstance(one, str) else f"of the baseline: {other}")
                comparison = compare(one, other)
            except ValueError as error:
                lacking = str(error)
        against = f"{(base := rows[others[0]][0].cell).backbone_label} {base.method}" if others else ""
        table.append(ComparedRow(labels, against, comparison, lacking))
    adjusted = iter(holm([row.comparison for row in table if row.comparison is not None]))
    return [
        row if row.comparison is None else ComparedRow(row.labels, row.against, next(adjusted), None) for row in table
    ]


def _outcomes(run: CellFolders, group: Sequence[Result], metric: Metric) -> Outcomes | str:
    """The outcomes of a row, or why there are none."""
    try:
        found = outcomes(predicted(run, group), [result.cell.seed for result in group], metric)
    except FileNotFoundError:
        return "its predictions.npz is not there"
    except (OSError, ValueError) as error:
        return str(error)
    return f"it has no {METRIC_NAMES[metric].removesuffix(' %')} accuracy" if found is None else found


def _check(wanted: _Baseline, cells: Sequence[Cell], chosen: dict[tuple[object, ...], list[int]]) -> None:
    if not cells:
        raise UserError(["the run has no cell that is done and has accuracies: there is nothing to compare"])
    if not chosen:
        names = list(dict.fromkeys(cell.method for cell in cells))
        raise UserError(
            [
                f"baseline is {wanted.text!r}: expected {FORM} of a row, with one of "
                f"{listed(names)}{did_you_mean(wanted.method, names)}"
            ]
        )
    for rows in chosen.values():
        if len(rows) > 1:
            differing = axes_of([cells[row] for row in rows])
            told = "; ".join(f"{name}: {listed(texts)}" for name, texts in differing.items())
            raise UserError(
                [
                    f"baseline is {wanted.text!r}: {counted(len(rows), 'row')} of {cells[rows[0]].backbone_label} are "
                    f"that, expected one; name an option as well ({told or 'they differ in their sources'})"
                ]
            )


# --- as a table ---


def _texts(rows: Sequence[ComparedRow], metric: Metric) -> tuple[list[str], list[list[str]]]:
    """The headers and the lines."""
    labels = list(dict.fromkeys(name for row in rows for name in row.labels))
    headers = [*labels, METRIC_NAMES[metric], "baseline %", "difference", "95 % interval", "p (Holm)", "h", "test"]
    lines = []
    for row in rows:
        found = row.comparison
        line = [row.labels.get(name, "-") for name in labels]
        if found is None:
            lines.append([*line, *["-"] * 6, row.lacking or "the baseline"])
            continue
        gap = found.difference
        mark = "" if found.significant else " ≈"
        lines.append(
            [
                *line,
                f"{found.accuracy:.1f}",
                f"{found.baseline:.1f}",
                f"{gap.value:+.1f}{mark}",
                f"{gap.low:+.1f} to {gap.high:+.1f}",
                _probability(found.p if found.adjusted is None else found.adjusted),
                f"{found.effect:+.2f}",
                found.test,
            ]
        )
    return headers, lines


def _probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _below(rows: Sequence[ComparedRow], notes: Sequence[str]) -> list[str]:
    """Return what a reader of the table must know, the runs' notes last."""
    found = list(dict.fromkeys(note for row in rows if row.comparison for note in row.comparison.notes))
    against = list(dict.fromkeys(row.against for row in rows if row.against))
    made = sum(row.comparison is not None for row in rows)
    return [
        *found,
        f"against {', '.join(against)}, on the same test videos; ≈ not told apart at 5 %",
        f"interval of the difference: bootstrap over videos and seeds; p with Holm's correction over "
        f"{counted(made, 'comparison')}; h: Cohen's effect size (0.2 small, 0.5 medium, 0.8 large)",
        *map(one_line, notes),
    ]


def _terminal(rows: Sequence[ComparedRow], metric: Metric, notes: Sequence[str]) -> str:
    from bench.report.formats import text_table

    headers, lines = _texts(rows, metric)
    return text_table(headers, lines, len(headers) - 7) + "".join(f"{line}\n" for line in ("", *_below(rows, notes)))


def _markdown(rows: Sequence[ComparedRow], metric: Metric, notes: Sequence[str]) -> str:
    from bench.report.formats import pipe_table

    headers, lines = _texts(rows, metric)
    return pipe_table(headers, lines, len(headers) - 7) + "\n" + "".join(f"{line}  \n" for line in _below(rows, notes))


def _records(rows: Sequence[ComparedRow], metric: Metric) -> list[dict[str, object]]:
    found = []
    for row in rows:
        record: dict[str, object] = {**row.labels, "metric": metric, "against": row.against, "lacking": row.lacking}
        if row.comparison is not None:
            values = asdict(row.comparison)
            gap = values.pop("difference")
            record |= values | {"difference": gap["value"], "low": gap["low"], "high": gap["high"]}
            record |= {"significant": row.comparison.significant}
        found.append(record)
    return found


def _csv(rows: Sequence[ComparedRow], metric: Metric, _: Sequence[str]) -> str:
    records = _records(rows, metric)
    names = list(dict.fromkeys(name for record in records for name in record))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: "; ".join(map(str, v)) if isinstance(v, tuple) else v for k, v in record.items()})
    return file.getvalue()


# of rows, what they are compared in, and sentences on their runs
COMPARISON_RENDERERS: dict[str, Callable[[Sequence[ComparedRow], Metric, Sequence[str]], str]] = {
    "terminal": _terminal,
    "markdown": _markdown,
    "csv": _csv,
    "json": lambda rows, metric, _: json.dumps(_records(rows, metric), indent=2) + "\n",
}
