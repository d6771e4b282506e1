"""The gain of each row by tuning, and the part of the gaps between rows that it made."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from bench.report.table import make_table
from bench.report.tuning import gaps, tuned_rows
from bench.run.store import Run
from bench.tune.trials import studies
from bench.tune.tuner import TrialTuner
from tests.bench import make
from tests.bench.command import quotes
from tests.bench.tune.rows import diverged, done, matrix, planned

ACCURACIES = {"joint": (40.0, 62.5, 50.0), "lora": (30.0, None, 42.5), "frozen": (20.0, 10.0, 15.0)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose trials have these accuracies, of which one diverged."""
    found = Run(tmp_path)
    tuner = TrialTuner(studies(matrix(3), planned(tuple(ACCURACIES))))
    found.open(make.matrix(), (), "bench run", {}, trials=tuner.every_trial)
    tuner.open(found)
    for trial in tuner.every_trial:
        assert trial.trial is not None
        top1 = ACCURACIES[trial.strategy][trial.trial.number]
        result = diverged(trial) if top1 is None else done(trial, top1)
        found.put(result)
        tuner.ended(found, result)
    return found


def test_each_row_has_its_trials(run: Run) -> None:
    rows = {row.labels["strategy"]: row for row in tuned_rows(run)}
    assert list(rows) == list(ACCURACIES)
    for strategy, row in rows.items():
        known = {number: value for number, value in enumerate(ACCURACIES[strategy]) if value is not None}
        assert row.accuracies == known and len(row.results) == 3
        assert (row.untuned, row.best) == (known[0], max(known.values()))
        assert row.record.tuning is not None


def test_the_gap_that_tuning_made_is_the_difference_of_the_gaps(run: Run) -> None:
    found = {(gap.row.labels["strategy"], gap.other.labels["strategy"]): gap for gap in gaps(tuned_rows(run))}
    assert found.keys() == {("joint", "lora"), ("joint", "frozen"), ("lora", "frozen")}
    gap = found["joint", "lora"]
    assert (gap.untuned, gap.tuned, gap.made) == (10.0, 20.0, 10.0)
    assert found["lora", "frozen"].made == pytest.approx((42.5 - 20) - (30 - 20))


def test_the_numbers_stand_in_the_text(run: Run) -> None:
    from bench.report.tuning import TUNING_RENDERERS

    text = TUNING_RENDERERS["terminal"](tuned_rows(run))
    (line,) = [line for line in text.splitlines() if "joint" in line and "1:" in line]
    spread = statistics.stdev((40.0, 62.5, 50.0))
    assert quotes(line, 3, 0, "40.0", "40.0", "50.0", f"{spread:.1f}", "62.5")


def test_rows_that_are_tuned_and_rows_that_are_not_are_told_apart() -> None:
    (study,) = studies(matrix(2), planned(("joint",)))
    tuned = study.tuned(study.tuning(0))
    table = make_table([make.done(cell) for cell in (*tuned, *study.cells)])
    assert "trials" in table.labels and [row.labels["trials"] for row in table.rows] == ["2", "-"]
    assert any(quotes(line, "2 trials") for line in table.caption)
    assert any(quotes(line, "2 cells") for line in table.caption)
    alone = make_table([make.done(cell) for cell in tuned])
    assert "trials" not in alone.labels and len(alone.rows) == 1
    assert not any("trial" in line for line in make_table([make.done(cell) for cell in study.cells]).caption)


def test_a_row_that_was_searched_twice_is_told_apart_and_not_set_against_itself(tmp_path: Path) -> None:
    run = Run(tmp_path)
    tuners = [
        TrialTuner(studies(matrix(2, **changes), planned(("joint", "frozen"))))
        for changes in ({}, {"tune_epochs": 1}, {"tune_space": {"weight_decay": "fixed"}})
    ]
    run.open(make.matrix(), (), "bench run", {}, trials=[trial for tuner in tuners for trial in tuner.every_trial])
    for tuner in tuners:
        tuner.open(run)
        for trial in tuner.every_trial:
            result = done(trial, 50.0)
            run.put(result)
            tuner.ended(run, result)
    rows = tuned_rows(run)
    assert len({tuple(row.labels.items()) for row in rows}) == len(rows) == 6
    for gap in gaps(rows):
        assert gap.row.labels["strategy"] != gap.other.labels["strategy"]
        assert gap.row.record.budget.epochs == gap.other.record.budget.epochs
