"""Intervals beside accuracies, and the mark of those that are not told apart from the best of their column."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bench.report.pivot import pivot
from bench.report.runs import Runs
from bench.report.table import ResultTable, make_table
from bench.report.terminal import render
from bench.report.uncertainty import with_uncertainty
from bench.run.store import PREDICTIONS, Run
from bench.spec import Cell
from bench.stats.bootstrap import accuracy
from tests.bench import make
from tests.bench.command import Command
from tests.bench.report.predictions import NAMES, VIDEOS, first, run_of, write

RIGHT = (30, 45, 50, 52, 55, 57)


def lora(rank: int, **changes: object) -> Cell:
    return make.cell(strategy="lora", options={"rank": rank}, **changes)


def shown(run: Run, tested: bool = True) -> ResultTable:
    runs = Runs([run])
    return with_uncertainty(make_table(runs.results, deviations=False), runs, tested)


def marked(sheet: ResultTable, key: str = "top1") -> list[str]:
    return [row.labels["rank"] for row in sheet.rows if key in row.alike]


def told(sheet: ResultTable, *values: object) -> bool:
    return any(all(str(value) in line for value in values) for line in sheet.caption)


def test_of_one_seed_each_row_has_mcnemar_s_test_with_holm_s_correction(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    rights = {rank: generator.permutation(VIDEOS) < RIGHT[rank] for rank in range(len(RIGHT))}
    sheet = shown(run_of(tmp_path / "run", {lora(rank): right for rank, right in rights.items()}))
    best = rights[5]
    p = [
        stats.binomtest(int((right & ~best).sum()), int((right != best).sum()), 0.5).pvalue
        for rank, right in rights.items()
        if rank != 5
    ]
    apart = multipletests(p, alpha=0.05, method="holm")[0]
    assert {*apart} == {True, False}  # else the test is of nothing
    assert marked(sheet) == [str(rank) for rank in range(5) if not apart[rank]]
    for row, right in zip(sheet.rows, rights.values(), strict=True):
        found = row.intervals["top1"]
        expected = accuracy(right[None])
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert row.intervals["top1_reversed"].low == 0 and "params_m" not in row.intervals
    assert told(sheet, "95 %", "interval") and told(sheet, "≈", "5 %") and told(sheet, "one seed")


def test_several_seeds_are_tested_over_seeds_and_videos(tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    rights = {
        lora(rank, seed=seed): generator.permutation(VIDEOS) < count + seed
        for rank, count in ((1, 30), (2, 48), (3, 50))
        for seed in (0, 1, 2)
    }
    sheet = shown(run_of(tmp_path / "run", rights))
    of = {rank: np.stack([rights[lora(rank, seed=seed)] for seed in (0, 1, 2)]).astype(float) for rank in (1, 2, 3)}
    p = []
    for rank in (1, 2):
        gap = of[rank] - of[3]
        by_video, by_seed = gap.mean(axis=0).var() / VIDEOS, gap.mean(axis=1).var(ddof=1) / 3
        freedom = (by_video + by_seed) ** 2 / (by_video**2 / (VIDEOS - 1) + by_seed**2 / 2)
        p.append(2 * stats.t.sf(abs(gap.mean()) / np.sqrt(by_video + by_seed), freedom))
    apart = multipletests(p, alpha=0.05, method="holm")[0]
    assert apart.tolist() == [True, False] and marked(sheet) == ["2"]
    assert not told(sheet, "one seed") and not told(sheet, "standard deviation")
    assert sheet.text(sheet.rows[0], sheet.columns[0]).startswith("51.7 [")


def test_what_is_shown_as_the_best_is_not_marked_beside_it(tmp_path: Path) -> None:
    rows = {lora(1): first(50), lora(2): first(50)[::-1].copy(), lora(3): first(49), lora(4): first(20)}
    sheet = shown(run_of(tmp_path / "run", rows))
    assert marked(sheet) == ["3"]
    assert [sheet.best(row, sheet.columns[0]) for row in sheet.rows] == [True, True, False, False]
    untested = shown(Run(tmp_path / "run"), tested=False)
    assert marked(untested) == [] and not told(untested, "≈") and untested.rows[0].intervals


def test_rows_that_read_other_videos_are_tested_on_those_that_both_have(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {lora(1): first(50), lora(2): first(40), lora(3): first(30)})
    write(run, lora(2), first(40, 55), NAMES[:55])
    sheet = shown(run)
    assert told(sheet, "5 of the test videos", "1 row")
    write(run, lora(3), first(2, 5), [f"other{index}" for index in range(5)])
    sheet = shown(run)
    assert told(sheet, "not tested", "1 row", "no test video in common")
    assert "3" not in marked(sheet)


def test_rows_of_other_data_sets_are_not_tested_against_each_other(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {lora(1): first(50), lora(2): first(49), lora(3, dataset="few"): first(50)})
    write(run, lora(3, dataset="few"), first(8, 10), [f"few{index}" for index in range(10)])
    assert told(shown(run), "not tested", "no test video in common")


def test_rows_without_predictions_are_counted_and_keep_their_deviations(tmp_path: Path) -> None:
    rows = {lora(rank, seed=seed): first(40 + 5 * seed) for rank in (1, 2, 3) for seed in (0, 1)}
    run = run_of(tmp_path / "run", rows)
    (run.cell_folder(lora(1)) / PREDICTIONS).unlink()
    (run.cell_folder(lora(2)) / PREDICTIONS).write_bytes(b"PK")
    sheet = shown(run)
    top1 = sheet.columns[0]
    assert ["±" in sheet.text(row, top1) for row in sheet.rows] == [True, True, False]
    assert told(sheet, "1 row", "not there") and told(sheet, "1 row", "damaged") and told(sheet, "±", "2 accuracies")


def test_each_column_of_a_pivot_has_tests_of_its_own(tmp_path: Path) -> None:
    rows = {
        lora(rank, dataset=dataset): first(count)
        for dataset, counts in (("motion", (50, 48, 20)), ("few", (20, 48, 50)))
        for rank, count in enumerate(counts)
    }
    runs = Runs([run_of(tmp_path / "run", rows)])
    sheet = with_uncertainty(pivot(runs.results, "dataset", rows=["rank"]), runs)
    assert [sorted(row.alike) for row in sheet.rows] == [[], ["top1[few]", "top1[motion]"], []]
    assert sheet.rows[0].intervals["top1[few]"].high < 50 < sheet.rows[0].intervals["top1[motion]"].low


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return run_of(tmp_path / "results" / "one", {lora(1): first(50), lora(2): first(49), lora(3): first(4)})


def test_intervals_are_there_without_being_asked_for_but_not_in_csv(run: Run, bench: Command) -> None:
    for format_ in ("terminal", "markdown", "latex"):
        said = bench("report", "--format", format_)
        assert said.code == 0, said.err
        interval = accuracy(first(50)[None])
        assert f"[{interval.low:.1f}, {interval.high:.1f}]" in said.out
        assert ("\\approx" if format_ == "latex" else "≈") in said.out
        without = bench("report", "--format", format_, "--no-intervals").out
        assert "[" not in without.replace("S[", "").replace("\\item[", "") and "≈" not in without
    assert "top1_low" not in bench("report", "--format", "csv").out
    header, line, *_ = bench("report", "--format", "csv", "--intervals", "--columns", "top1").out.splitlines()
    assert "top1,top1_low,top1_high" in header
    found = dict(zip(header.split(","), line.split(","), strict=True))
    assert float(found["top1_low"]) == pytest.approx(interval.low) and "top1_std" not in found
    records = json.loads(bench("report", "--format", "json").out)
    assert records[0]["intervals"]["top1"] == pytest.approx([interval.low, interval.high])
    assert ["top1" in record["not_told_apart_from_best"] for record in records] == [False, True, False]
    assert ["top1" in record["best"] for record in records] == [True, False, False]


def test_digits_of_intervals_stand_below_each_other(run: Run) -> None:
    header, *lines = render(shown(run)).splitlines()[:4]
    places = [[line.index(sign, header.index("top-1")) for sign in "[,]"] for line in lines]
    assert places[0] == places[1] == places[2]
    assert lines[1].index("≈") == places[1][2] + 2 and lines[0].index("*") == places[0][2] + 3


def test_the_caption_names_the_test_that_was_made(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {lora(rank): first(30 + 3 * rank) for rank in range(3)})
    runs = Runs([run])
    top1 = with_uncertainty(make_table(runs.results, deviations=False), runs)
    assert told(top1, "McNemar") and not told(top1, "Student")
    means = with_uncertainty(pivot(runs.results, "dataset", ("mean_class",), rows=("rank",)), runs)
    assert told(means, "Student") and not told(means, "McNemar") and told(means, "one seed")
