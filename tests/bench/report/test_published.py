"""Published figures beside measured ones: told apart, as printed, never best, never tested."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.report.pivot import pivot
from bench.report.published import AIM, FIGURES, read_published, with_published
from bench.report.table import ResultTable, make_table
from bench.run.store import Run
from tests.bench import make
from tests.bench.command import Command

ROOT = Path(__file__).parents[3]


def ours(*datasets: str) -> ResultTable:
    return make_table([make.done(make.cell(dataset=name, frames=8, clips=3), top1=20.0) for name in datasets])


def test_the_paper_s_figures_are_those_of_results() -> None:
    inside = (ROOT / "bench" / "papers" / "aim_paper.csv").read_bytes()
    assert inside == (ROOT / "results" / "aim_paper.csv").read_bytes()
    assert len(read_published([AIM])) == inside.count(b"\n") - 1


def test_figures_of_the_table_s_data_set_stand_below_as_printed() -> None:
    sheet = with_published(ours("k400"), read_published([AIM]))
    assert {row.labels[FIGURES] for row in sheet.rows[:1]} == {"measured"}
    theirs = [row for row in sheet.rows if row.published]
    with (ROOT / "results" / "aim_paper.csv").open() as file:
        expected = [line for line in csv.DictReader(file) if line["dataset"] == "k400"]
    assert len(theirs) == len(expected) == len(sheet.rows) - 1
    columns = {column.key: column for column in sheet.columns}
    for row, line in zip(theirs, expected, strict=True):
        assert row.labels[FIGURES] == "published" and row.labels["strategy"] == line["method"]
        printed = [line[name] or "-" for name in ("params_m", "tunable_m", "gmacs_all_views", "top1", "top5")]
        keys = ("params_m", "trained_params_m", "gmacs_total", "top1", "top5")
        assert [sheet.number(row, columns[key]) for key in keys] == printed
        assert line["source"] in sheet.footnotes[row.notes[0] - 1]
        assert row.labels["frames"] == line["frames"]
    assert "data set" not in sheet.labels


def test_published_figures_are_never_best_nor_second() -> None:
    listed = [make.done(make.cell(strategy=name, options={}, dataset="k400"), top1=top1) for name, top1 in
              (("frozen", 20.0), ("joint", 30.0), ("full", 25.0))]  # fmt: skip
    sheet = with_published(make_table(listed), read_published([AIM]))
    top1 = sheet.columns[0]
    assert [sheet.best(row, top1) for row in sheet.rows[:3]] == [False, True, False]
    assert [sheet.second(row, top1) for row in sheet.rows[:3]] == [False, False, True]
    assert not any(sheet.best(row, top1) or sheet.second(row, top1) or row.alike for row in sheet.rows[3:])


def test_figures_of_other_data_sets_are_said_to_be_so() -> None:
    sheet = with_published(ours("motion"), read_published([AIM]))
    assert "data set" in sheet.labels and sheet.rows[0].labels["data set"] == "motion"
    assert sum(row.published for row in sheet.rows) == len(read_published([AIM]))
    assert "ssv2" in sheet.caption[-1]
    few = with_published(ours("k400"), read_published([AIM]), ["frames=16,32", "strategy=joint"])
    assert {row.labels["frames"] for row in few.rows if row.published} == {"16", "32"}


def test_in_a_pivot_they_stand_in_their_own_column() -> None:
    listed = [make.done(make.cell(dataset=name), top1=20.0) for name in ("k400", "ssv2")]
    sheet = with_published(pivot(listed, "dataset", rows=["backbone", "strategy"]), read_published([AIM]))
    large = [row for row in sheet.rows if row.labels["backbone"] == "ViT-L/14 CLIP" and row.labels["strategy"] == "AIM"]
    shown = [[sheet.number(row, column) for column in sheet.columns] for row in large]
    assert shown == [["86.8", "67.6"], ["87.3", "69.4"], ["87.5", "70.6"]]
    assert sheet.labels[-1] == FIGURES and "data set" not in sheet.labels
    other = pivot([make.done(make.cell(dataset=name)) for name in ("motion", "few")], "dataset")
    without = with_published(other, read_published([AIM]))
    assert FIGURES not in without.labels and len(without.rows) == len(other.rows)
    assert len(without.caption) == len(other.caption) + 1


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("backbone,strategy,dataset,views,frames,top1,gmacs_total\nvit:b,ours,motion,1x1,8,61.50,1.20\n")
    (row,) = [row for row in with_published(ours("motion"), read_published([str(file)])).rows if row.published]
    assert row.texts == {"top1": "61.50", "gmacs_total": "1.20"} and row.values["top1"] == 61.5


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("backbone,method,top_1\na,b,1\n", [["'top_1'", "'top1'"]]),
        ("backbone,method,top1,params_m\na,b,high,nan\n", [["'high'", "top1", "2"], ["'nan'", "params_m"]]),
        ("method,top1\nb,1\n", [["backbone"]]),
        ("", [["backbone"]]),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, quoted: list[list[str]]) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(UserError) as found:
        read_published([str(file), AIM])
    assert len(found.value.problems) == len(quoted)
    for problem, values in zip(found.value.problems, quoted, strict=True):
        assert all(value in problem for value in values) and str(file) in problem


def test_the_flag_may_stand_without_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: Command) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path / "results" / "one")
    cell = make.cell(dataset="diving48")
    run.open(make.matrix(), [cell], "bench run", {})
    run.put(make.done(cell))
    (tmp_path / "mine.csv").write_text("backbone,method,dataset,top1\nvit,mine,diving48,12.5\n")
    for flags in (["one", "--published"], ["--published", "--format", "csv"], ["one", "--published", "aim"]):
        said = bench("report", *flags)
        assert said.code == 0 and "90.6" in said.out and "mine" not in said.out
    said = bench("report", "--published", "mine.csv", "--published", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(said.out)))
    assert [line["status"] for line in lines] == ["done", *["published"] * 3]
    assert [line["top1"] for line in lines] == ["61.25", "12.5", "88.9", "90.6"]
    records = json.loads(bench("report", "one", "--published", "--format", "json").out)
    assert [record["published"] for record in records] == [False, True, True]
    assert bench("report", "--published", "nosuch.csv").code == 2
