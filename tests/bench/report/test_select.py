"""Cells, columns and rows that are asked for: by `select`, as a pivot, and by the flags of `bench report`."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.report.pivot import pivot
from bench.report.runs import find_runs
from bench.report.select import ordered, where, with_columns
from bench.report.shape import Shape, shaped
from bench.report.table import ResultTable, make_table
from bench.run.columns import to_csv
from bench.run.result import Result
from bench.run.store import Run
from tests.bench import make
from tests.bench.command import Command, quotes


def results() -> list[Result]:
    """Two backbones, two strategies, two data sets, two seeds; LoRA of two ranks on one of them."""
    found = []
    for backbone in ("vit:tiny", "clip:tiny"):
        for dataset, base in (("motion", 60.0), ("few", 30.0)):
            for seed in (0, 1):
                for rank in (4, 8):
                    cell = make.cell(
                        backbone=backbone, strategy="lora", options={"rank": rank}, dataset=dataset, seed=seed
                    )
                    found.append(make.done(cell, top1=base + rank + seed, trained_params=1000 * rank))
                cell = make.cell(backbone=backbone, dataset=dataset, seed=seed, frames=16 if dataset == "few" else 8)
                found.append(make.done(cell, top1=base + seed + len(backbone)))
    return found


def names(found: list[Result]) -> set[tuple[str, str, str]]:
    return {(each.cell.backbone, each.cell.strategy, each.cell.dataset) for each in found}


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        (["strategy=lora"], 16),
        (["strategy=lora,joint"], 24),
        (["strategy=lora", "rank=8"], 8),
        (["rank=8.0", "backbone=vit"], 4),  # a number is one however it is written, a backbone has a family
        (["backbone=vit:tiny@none", "seed=1", "dataset=motion"], 3),
        (["data set=few"], 12),
        (["device=Some CPU"], 24),
        (["device=cpu", "frames=16"], 4),
        (["top1=72"], 0),
    ],
)
def test_cells_by_what_they_are(conditions: list[str], count: int) -> None:
    if not count:
        with pytest.raises(UserError):
            where(results(), conditions)
        return
    found = where(results(), conditions)
    assert len(found) == count
    assert [each for each in results() if each in found] == found  # in their order


def test_conditions_together_and_values_that_hold_a_comma() -> None:
    one = make.done()
    known = one.provenance.model_copy(update={"device": "AMD EPYC, 2 cores"})
    other = make.done(make.cell(seed=1)).model_copy(update={"provenance": known})
    assert where([one, other], ["device=AMD EPYC, 2 cores"]) == [other]
    assert where([one, other], []) == [one, other]


@pytest.mark.parametrize(
    ("conditions", "quoted"),
    [
        (["strateg=joint"], [("strateg=joint", "strategy")]),
        (["strategy=jiont"], [("jiont", "joint")]),
        (["strategy"], [("strategy",)]),
        (["strategy="], [("strategy=",)]),
        (["strategy=x", "rnk=8"], [("'x'",), ("rnk=8", "rank")]),
        (["strategy=joint", "rank=8"], [("strategy=joint", "rank=8")]),
    ],
)
def test_conditions_that_nothing_meets_are_told_all_at_once(
    conditions: list[str], quoted: list[tuple[str, ...]]
) -> None:
    with pytest.raises(UserError) as found:
        where(results(), conditions)
    assert len(found.value.problems) == len(quoted)
    for problem, values in zip(found.value.problems, quoted, strict=True):
        assert all(value in problem for value in values)


def texts(sheet: ResultTable) -> list[list[str]]:
    return [[sheet.text(row, column) for column in sheet.columns] for row in sheet.rows]


def test_columns_of_results_csv_in_the_order_that_is_asked_for() -> None:
    listed = where(results(), ["strategy=joint", "dataset=motion"])
    sheet = with_columns(make_table(listed), ["batch_size", "top1", "seed", "device", "lr", "backbone", "top5"])
    assert [column.key for column in sheet.columns] == ["batch_size", "top1", "seed", "device", "lr", "top5"]
    assert texts(sheet)[0] == ["16", "68.5 ± 0.7", "0, 1", "Some CPU", "0.0003", "97.5"]
    assert not any(line.startswith(("speed", "loaded")) for line in sheet.caption)
    with pytest.raises(UserError) as found:
        with_columns(sheet, ["top1", "top_1", "gmac_view"])
    assert [quotes(each, name) for each, name in zip(found.value.problems, ("top_1", "gmac_view"), strict=True)]
    assert "'top1'" in found.value.problems[0] and "'gmacs_view'" in found.value.problems[1]


def test_rows_in_order_of_a_column_or_a_label_those_without_last() -> None:
    failed = make.failed(make.cell(strategy="full", options={}))
    listed = [failed, *where(results(), ["dataset=motion", "backbone=vit"])]
    sheet = make_table(listed)

    def order(name: str) -> list[str]:
        return [row.labels["strategy"] + row.labels["rank"].strip("-") for row in ordered(sheet, name).rows]

    # 64.5, 68.5, 68.5: equal ones as they stood
    assert order("top1") == ["lora4", "lora8", "joint", "full"]
    assert order("-top1") == ["lora8", "joint", "lora4", "full"]
    assert order("strategy") == ["full", "joint", "lora4", "lora8"]
    assert order("-trained_params_m")[0] == "joint" and order("gmacs_view")[-1] == "full"
    with pytest.raises(UserError) as found:
        ordered(sheet, "-top_1")
    assert quotes(found.value.problems[0], "-top_1", "'top1'")


def test_a_pivot_has_a_column_for_each_value_and_means_over_seeds_alone() -> None:
    sheet = pivot(results(), "dataset", rows=["backbone", "strategy", "rank"])
    assert sheet.labels == ["backbone", "strategy", "rank"]
    assert [column.header for column in sheet.columns] == ["motion", "few"]
    found = {tuple(row.labels.values()): row for row in sheet.rows}
    assert len(found) == 6
    row = found["vit:tiny@none", "lora", "8"]
    assert list(row.values.values()) == [statistics.mean([68, 69]), statistics.mean([38, 39])]
    assert list(row.spreads.values()) == pytest.approx([statistics.stdev([0, 1])] * 2)
    assert [len(row.behind(column)) for column in sheet.columns] == [2, 2]
    best = {key for key, row in found.items() for column in sheet.columns if sheet.best(row, column)}
    assert best == {("clip:tiny@none", "joint", "-")}  # 69.5 and 39.5
    assert any("top-1" in line and "data set" in line for line in sheet.caption)


def test_rows_of_a_pivot_are_all_that_differs_but_its_columns() -> None:
    sheet = pivot(results(), "data set", ["top1", "trained_params_m"])
    assert "data set" not in sheet.labels and {"backbone", "strategy", "rank"} <= {*sheet.labels}
    assert len(sheet.columns) == 4 and len({column.header for column in sheet.columns}) == 4
    by_frames = pivot(where(results(), ["strategy=joint"]), "frames", rows=["backbone"])
    assert [[row.labels["backbone"], *row.values.values()] for row in by_frames.rows] == [
        ["vit:tiny@none", 68.5, 38.5],
        ["clip:tiny@none", 69.5, 39.5],
    ]


def test_a_pivot_averages_over_nothing_but_seeds() -> None:
    with pytest.raises(UserError) as found:
        pivot(results(), "dataset", rows=["backbone", "strategy"])
    assert all("rank" in each and "4, 8" in each for each in found.value.problems)
    with pytest.raises(UserError) as found:
        pivot(results(), "dataset", rows=["rank"])
    assert all("backbone" in each for each in found.value.problems)


def test_what_is_wrong_with_a_pivot_is_told_all_at_once() -> None:
    with pytest.raises(UserError) as found:
        pivot(results(), "datset", ["top_1", "device"], ["bckbone"])
    told = found.value.problems
    assert len(told) == 4
    assert all(any(a in each and b in each for each in told) for a, b in (("datset", "dataset"), ("top_1", "top1")))
    assert any("'device'" in each for each in told) and any("'backbone'" in each for each in told)


def test_a_failed_cell_of_a_pivot_stands_in_its_column() -> None:
    done = make.done()
    sheet = pivot([done, make.failed(make.cell(dataset="few"), "oom", "no room")], "dataset")
    (row,) = sheet.rows
    assert [sheet.number(row, column) for column in sheet.columns] == ["61.2", "oom"]
    assert "no room" in sheet.footnotes[row.notes[-1] - 1]


def test_a_number_whose_other_seed_failed_stands_in_a_pivot_all_the_same() -> None:
    sheet = pivot([make.done(), make.failed(make.cell(seed=1))], "dataset")
    assert [sheet.number(row, sheet.columns[0]) for row in sheet.rows] == ["61.2"]
    assert any("seed 1" in sheet.footnotes[note - 1] for note in sheet.rows[0].notes)


@pytest.mark.parametrize(("by", "rows"), [("seed", ["strategy"]), ("dataset", ["seed"])])
def test_seeds_are_no_columns_nor_rows_of_a_pivot(by: str, rows: list[str]) -> None:
    with pytest.raises(UserError) as found:
        pivot(results(), by, rows=rows)
    assert "'seed'" in found.value.problems[0] and "0, 1" in found.value.problems[0]


# --- the verb ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of which `second` has a cell of `first` again, done in the first alone."""
    monkeypatch.chdir(tmp_path)
    every = results()
    again = make.failed(every[0].cell)
    for name, listed in (("first", every[:12]), ("second", [again, *every[12:]])):
        run = Run(tmp_path / "results" / name)
        run.open(make.matrix(), [each.cell for each in listed], "bench run", {})
        for each in listed:
            run.put(each)
    return tmp_path


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_runs_are_joined_and_the_same_cell_counts_once(folder: Path, bench: Command) -> None:
    said = bench("report", "second", "first", "--format", "csv")
    assert said.code == 0, said.err
    lines = rows_of(said.out)
    assert len(lines) == len(results()) and {line["status"] for line in lines} == {"done"}
    assert sorted(said.out.splitlines()) == sorted(to_csv(results()).splitlines())
    both = bench("report", "first", "second", "--format", "markdown").out
    assert both.count("| vit:tiny@none |") == both.count("| clip:tiny@none |") == 6
    assert bench("report", "first", "frist", "secnd").problems and bench("report", "first", "frist", "secnd").code == 2
    assert len(bench("report", "first", "frist", "secnd").problems) == 2


def test_rows_of_two_runs_that_look_the_same_name_their_run(folder: Path, bench: Command) -> None:
    for name, split in (("one", "val"), ("other", "test")):
        run = Run(folder / "results" / name)
        cell = make.cell(split=split)
        run.open(make.matrix(), [cell], "bench run", {})
        run.put(make.done(cell))
    lines = rows_of(bench("report", "one", "other", "--columns", "top1,split", "--format", "csv").out)
    assert [(line["run"], line["split"]) for line in lines] == [("one", "val"), ("other", "test")]
    assert "run" not in bench("report", "first", "second", "--format", "markdown").out.splitlines()[0].split()


@pytest.mark.parametrize("format_", ["terminal", "markdown", "csv", "json", "latex"])
def test_every_format_has_the_same_rows_and_columns(folder: Path, bench: Command, format_: str) -> None:
    flags = ("--where", "strategy=lora", "--where", "dataset=few", "--columns", "top1,trained_params_m")
    said = bench("report", "first", "second", *flags, "--sort", "-top1", "--no-intervals", "--format", format_)
    assert said.code == 0, said.err
    assert "joint" not in said.out and "top5" not in said.out and "top-5" not in said.out
    assert all(number in said.out for number in ("38.5", "34.5", "0.004", "0.008"))
    assert said.out.index("38.5") < said.out.index("34.5")
    if format_ == "csv":
        assert [line["top1"] for line in rows_of(said.out)] == ["38.5", "38.5", "34.5", "34.5"]
        assert {line["seeds"] for line in rows_of(said.out)} == {"0 1"}
    if format_ == "json":
        assert [each["values"]["trained_params_m"] for each in json.loads(said.out)] == [0.008, 0.008, 0.004, 0.004]


def test_csv_of_chosen_cells_is_results_csv(folder: Path, bench: Command) -> None:
    said = bench("report", "first", "--format", "csv", "--where", "rank=4", "--best", "none")
    assert said.out == to_csv(where(results()[:12], ["rank=4"]))


def test_json_without_wishes_has_all_that_cells_have(folder: Path, bench: Command) -> None:
    found = json.loads(bench("report", "first", "--format", "json").out)
    cells = [cell for row in found for cell in row["cells"]]
    assert len(cells) == 12 and len(found) == 6
    assert all(cell["provenance"]["commit"] and cell["top1"] and cell["measured"]["threads"] == 2 for cell in cells)


@pytest.mark.parametrize("mark", ["**", "<u>"])
def test_nothing_is_marked_where_that_is_not_asked_for(folder: Path, bench: Command, mark: str) -> None:
    flags = ("report", "first", "--where", "dataset=motion", "--format", "markdown")
    assert mark in bench(*flags).out and mark not in bench(*flags, "--best", "none").out


@pytest.mark.parametrize(
    ("flags", "quoted"),
    [
        (("--columns", "top1,top_1"), ["'top_1'"]),
        (("--rows", "backbone"), ["'backbone'", "--by"]),
        (("--by", "dataset", "--columns", "top1"), ["top1", "--metric"]),
        (("--by", "dataset", "--metric", "top_1"), ["'top_1'"]),
        (("--best", "bald"), ["'bald'", "bold"]),
        (("--sort", "-tip1"), ["-tip1", "top1"]),
        (("--caption", "x"), ["'x'", "latex"]),
        (("--format", "latex", "--label", "tab:x"), ["tab:x", "--caption"]),
        (("--format", "latex", "--caption", "x", "--label", "{"), ["'{'"]),
    ],
)
def test_mistakes(folder: Path, bench: Command, flags: tuple[str, ...], quoted: list[str]) -> None:
    said = bench("report", "first", *flags)
    assert (said.code, said.out) == (2, "")
    assert len(said.problems) == 1
    assert all(value in said.problems[0] for value in quoted)


def test_mistakes_that_the_results_tell_come_with_the_others(folder: Path, bench: Command) -> None:
    said = bench(
        "report", "first", "--where", "strategy=jont", "--sort", "tip1", "--columns", "top_1,top1",
        "--published", "no.csv", "--format", "tex",
    )  # fmt: skip
    assert (said.code, said.out) == (2, "")
    fields = ("format", "columns", "published", "where", "sort")
    assert [each.startswith(field) for each, field in zip(said.problems, fields, strict=True)] == [True] * 5
    values = ("'tex'", "'top_1'", "'no.csv'", "'jont'", "'tip1'")
    assert [value in each for each, value in zip(said.problems, values, strict=True)] == [True] * 5
    # a label that published figures bring
    assert bench("report", "first", "--published", "--sort", "figures").code == 0
    pivoted = bench("report", "first", "--by", "datset", "--metric", "top_1")
    assert [("'top_1'" in each, "'datset'" in each) for each in pivoted.problems] == [(True, False), (False, True)]


def test_a_message_lists_ten_cells_and_their_number() -> None:
    many = [make.done(make.cell(recipe={"lr": rate / 1000})) for rate in range(1, 112)]
    with pytest.raises(UserError) as found:
        pivot(many, "dataset", rows=["backbone", "strategy"])
    (problem,) = found.value.problems
    shown = [rate for rate in range(1, 112) if f" {rate / 1000:g}," in problem]
    assert shown == list(range(1, 11)) and "111" in problem
    with pytest.raises(UserError) as found:
        where(many, ["lr=7"])
    assert "0.01," in found.value.problems[0] and "0.011" not in found.value.problems[0]


def test_the_page_of_chosen_cells_has_no_others(folder: Path) -> None:
    runs = find_runs(["first"])
    made = shaped(runs, Shape(where=("strategy=joint",)))
    strategies = [{result.cell.strategy for result in each.results} for each in (made.runs, runs)]
    assert strategies[0] == {"joint"} < strategies[1]
    assert made.runs.results == [result for row in made.table.rows for result in row.results]


def test_mistakes_of_several_kinds_at_once(folder: Path, bench: Command) -> None:
    said = bench("report", "frist", "--format", "tex", "--columns", "tip1", "--rows", "backbone", "--best", "x")
    assert len(said.problems) == 5
