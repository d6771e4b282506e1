"""Intervals beside a table's accuracies, and marks on those that are not told apart from the best of their column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from bench.report.table import Column, ResultTable, Row
from bench.run.result import Result
from bench.stats.compare import ONE_SEED, Test, compare, probabilities, test_of, told_apart
from bench.stats.intervals import intervals_of, outcomes_of
from bench.stats.outcomes import METRICS, CellFolders, Metric, Outcomes
from bench.text import counted, one_line

_TESTS: dict[Test, str] = {
    "McNemar, exact": "McNemar's exact",
    "paired bootstrap": "Student's t of the paired bootstrap",
}
_METRICS: dict[str, Metric] = {metric: metric for metric in METRICS}
Found = dict[Metric, Outcomes]


def with_uncertainty(table: ResultTable, runs: CellFolders, tested: bool = True) -> ResultTable:
    """Return the table with the 95 % interval of each accuracy in place of deviations.

    An accuracy that is not told apart at 5 % from the best of its column, on the same videos, is marked `alike`; the
    caption says so, and what could not be compared.

    Args:
        table: any; published rows stay as they are.
        runs: where the predictions are.
        tested: False where best values are not to be marked, and so not to be tested.
    """
    columns = [column for column in table.columns if column.quantity in _METRICS]
    read = _Read(runs, list(dict.fromkeys(_METRICS[column.quantity] for column in columns)))
    places = [(row, column) for row in table.rows if row.failure is None for column in columns]
    there = [(row, column, found) for row, column in places if (found := read.outcomes(row, column)) is not None]
    for (row, column, _), interval in zip(there, intervals_of([found for *_, found in there]), strict=True):
        row.intervals[column.key] = interval
    caption = list(table.caption)
    if there:
        caption.append("[low, high]: 95 % interval over test videos and seeds (bootstrap)")
    left = [column.spread and column.key in row.spreads.keys() - row.intervals.keys() for row, column in places]
    if any(left):
        accuracies = counted(sum(left), "accuracy", "accuracies")
        caption.append(f"± standard deviation over seeds, of {accuracies} without an interval")
    if read.lacking:
        told = "; ".join(f"{counted(count, 'row')}: {reason}" for reason, count in read.lacking.items())
        caption.append(one_line(f"without an interval: {told}"))
    marked = _marked(columns) if tested else []
    tests = [_Tests(column, [(row, found) for row, other, found in there if other is column]) for column in marked]
    for row, column, _ in there:
        if table.best(row, column):  # as it is shown: a tie
            row.alike.discard(column.key)
    caption += _told([each for each in tests if each.made or each.lacking])
    return replace(table, caption=caption)


def _marked(columns: Sequence[Column]) -> list[Column]:
    """The columns whose best is tested. The mean over classes is drawn, which takes long: where top-1 is not shown."""
    found = [column for column in columns if column.better == "high"]
    alone = all(column.quantity == "mean_class" for column in found)
    return [column for column in found if alone or column.quantity != "mean_class"]


class _Read:
    """Outcomes of the cells behind rows, each file of predictions read once.

    Attributes:
        lacking: why rows have none -> how many have none for that reason.
    """

    def __init__(self, runs: CellFolders, metrics: Sequence[Metric]) -> None:
        self._runs, self._metrics = runs, metrics
        self._found: dict[tuple[int, ...], Found] = {}
        self.lacking: Counter[str] = Counter()

    def outcomes(self, row: Row, column: Column) -> Outcomes | None:
        results = row.behind(column)
        if column.key not in row.values or not results:
            return None
        key = tuple(map(id, results))  # a cell's key is a hash that is made anew each time
        if key not in self._found:
            self._found[key] = self._of(results)
        return self._found[key].get(_METRICS[column.quantity])

    def _of(self, results: Sequence[Result]) -> Found:
        try:
            return outcomes_of(self._runs, results, self._metrics)
        except FileNotFoundError:
            self.lacking["predictions.npz is not there"] += 1
        except (OSError, ValueError) as error:
            self.lacking[str(error)] += 1
        return {}


class _Tests:
    """Tests of a column's rows against its best one; rows that are not told apart are marked.

    Attributes:
        made: number of tests.
        names: of the tests that were made.
        one_seed: True where one of them is of a single seed.
        notes: what tests leave out -> how many do.
        lacking: why there was no test -> of how many rows.
    """

    def __init__(self, column: Column, rows: Sequence[tuple[Row, Outcomes]]) -> None:
        self.notes: Counter[str] = Counter()
        self.lacking: Counter[str] = Counter()
        self.names: set[Test] = set()
        self.one_seed = False
        best, found = max(rows, key=lambda each: each[0].values[column.key], default=(None, None))
        p: dict[int, float] = {}
        if found is not None:
            others = [(index, row) for index, (row, _) in enumerate(rows) if row is not best]
            same = [index for index, _ in others if _same(rows[index][1], found)]
            if same:
                p |= zip(same, probabilities([rows[index][1] for index in same], found), strict=True)
                self._note(test_of(found.seeds, found.by_class), found.seeds)
            for index in {index for index, _ in others} - {*same}:
                try:
                    made = compare(rows[index][1], found)
                except ValueError as error:
                    self.lacking[str(error)] += 1
                    continue
                p[index] = made.p
                self._note(made.test, made.seeds)
                self.notes.update(note for note in made.notes if note != ONE_SEED)
        for index, apart in zip(p, told_apart(list(p.values())), strict=True):
            if not apart:
                rows[index][0].alike.add(column.key)
        self.made = len(p)

    def _note(self, name: Test, seeds: Sequence[int]) -> None:
        self.names.add(name)
        self.one_seed |= len(seeds) == 1


def _same(one: Outcomes, other: Outcomes) -> bool:
    """Test that two rows were tested in the same seeds, on the same videos in the same order."""
    names = one.names is other.names or one.names == other.names
    left_out = one.partial or other.partial  # is told by `compare`
    return names and one.seeds == other.seeds and not left_out and bool((one.labels == other.labels).all())


def _told(tests: Sequence[_Tests]) -> list[str]:
    """Return what a reader of the marks must know."""
    if not tests:
        return []
    made = {name for each in tests for name in each.names}
    names = [text for name, text in _TESTS.items() if name in made]
    how = f"{' or '.join(names)}; " if names else ""
    lines = [
        f"≈ not told apart at 5 % from the best of its column, on the same test videos ({how}Holm's correction over "
        "the rows)"
    ]
    if any(each.one_seed for each in tests):
        lines.append("of one seed: tells trained models apart, not methods, whose trainings vary as well")
    for what, found in (("tested", "notes"), ("not tested against the best", "lacking")):
        most: Counter[str] = Counter()
        for each in tests:
            most |= getattr(each, found)
        lines += [one_line(f"{what}: {counted(count, 'row')}, {note}") for note, count in most.items()]
    return lines
