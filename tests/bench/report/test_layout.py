"""A run in the shape of a published table: which cells stand for which row, and what stands beside the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.papers.tables import find_table
from bench.report.formats import RENDERERS
from bench.report.layout import lay_out
from bench.report.report import Report
from bench.report.runs import Runs
from bench.report.table import ResultTable, Row, make_table
from bench.run.result import Counts, Result
from bench.run.store import Run
from bench.spec import Cell
from tests.bench import make
from tests.bench.command import Command, quotes

PUBLISHED = {"weights": "openai", "clips": 3, "crops": 1, "dataset": "k400"}
JOINT = {"ratio": 0.25, "blocks": "all", "temporal_adapters": 1, "tubelet": 1, "scale": 0.5}


def cell(backbone: str = "clip:ViT-B-16", **changes: Any) -> Cell:
    """A cell of Table 2."""
    return make.cell(backbone=backbone, **{"options": JOINT, **PUBLISHED, **changes})


def counted(of: Cell) -> Result:
    known = {"dataset": "", "stages": (), "classes": 400, "recipe": {}}
    counts = Counts(params=96_000_000, trained_params=10_966_672, macs_view=202_000_000_000)
    return Result(
        cell=of.model_copy(update=known | {"recipe": of.recipe}),
        status="done",
        counts=counts,
        provenance=make.provenance(batch_size=None, micro_batch=None),
    )


def laid_out(name: str, *results: Result) -> ResultTable:
    return lay_out(find_table(f"paper/{name}", "layout"), results)


def row(table: ResultTable, **labels: str) -> Row:
    (found,) = [row for row in table.rows if labels.items() <= row.labels.items()]
    return found


def notes(table: ResultTable, of: Row) -> list[str]:
    return [table.footnotes[number - 1] for number in of.notes]


def test_rows_and_columns_are_the_papers() -> None:
    table = laid_out("table2")
    assert [(row.labels["backbone"], row.labels["views"]) for row in table.rows] == [
        (backbone, f"{frames}x3x1") for backbone in ("ViT-B/16", "ViT-L/14") for frames in (8, 16, 32)
    ]
    assert [column.key for column in table.columns] == [
        *(f"{part}{key}" for key in ("params_m", "trained_params_m", "gmacs_total") for part in ("", "published_")),
        *(f"{part}{key}" for key in ("top1", "top5") for part in ("", "published_", "difference_")),
    ]
    (first, *_) = table.rows
    shown = {column.key: table.text(first, column) for column in table.columns}
    assert shown["published_gmacs_total"] == "606" and shown["published_top1"] == "83.9"
    assert shown["published_params_m"] == "97" and shown["top1"] == shown["difference_top1"] == "-"
    keys = [column.key for column in laid_out("table6").columns]
    assert {"train_memory_gb", "published_train_memory_gb", "train_hours", "published_train_hours"} <= set(keys)
    assert "gmacs_total" not in keys


def test_a_rows_cells_stand_beside_its_figures_as_the_mean_over_seeds() -> None:
    runs = [make.done(cell(seed=seed), top1=top1, params=97_000_000) for seed, top1 in ((0, 84.0), (1, 84.4))]
    table = laid_out("table2", *runs, make.done(cell(frames=16), top1=80.5))
    found = row(table, backbone="ViT-B/16", views="8x3x1")
    assert found.values["top1"] == pytest.approx(84.2) and found.values["published_top1"] == 83.9
    assert found.values["difference_top1"] == pytest.approx(0.3) and found.seeds == (0, 1)
    assert found.values["params_m"] == 97 == found.values["published_params_m"]
    (difference,) = [column for column in table.columns if column.key == "difference_top1"]
    assert table.text(found, difference) == "+0.3"
    assert row(table, backbone="ViT-B/16", views="16x3x1").values["difference_top1"] == pytest.approx(-4.0)
    assert "top1" not in row(table, backbone="ViT-L/14", views="8x3x1").values
    assert not any(table.best(row, column) for row in table.rows for column in table.columns)


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {**JOINT, "scale": 1.0}},
        {"options": {**JOINT, "blocks": "top"}},
        {"strategy": "full", "options": {}},
        {"train_fraction": 0.1},
        {"head": "attentive"},
        {"frames": 4},
        {"backbone": "vit:vit_base_patch16_224"},
    ],
    ids=str,
)
def test_another_model_is_not_a_row(changes: dict[str, Any]) -> None:
    table = laid_out("table2", make.done(cell(**changes)))
    assert all("top1" not in row.values for row in table.rows)
    assert any(quotes(line, "1 row") for line in table.caption)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"clips": 1}, ("8x1x1", "8x3x1")),
        ({"weights": "laion2b_s34b_b88k"}, ("laion2b_s34b_b88k", "openai")),
        ({"dataset": "k600"}, ("k600", "k400")),
    ],
)
def test_what_is_not_as_published_is_told_and_not_compared(changes: dict[str, Any], told: tuple[str, ...]) -> None:
    table = laid_out("table2", make.done(cell(**changes), footnotes=("a note",)))
    found = row(table, backbone="ViT-B/16", views="8x3x1")
    assert "top1" in found.values and "difference_top1" not in found.values
    first, second = notes(table, found)
    assert quotes(first, *told) and second == "a note"


def test_speed_is_told_of_where_the_table_has_it() -> None:
    done = make.done(cell(), footnotes=("a note", "speed measured while 2.0 cores were busy with something else"))
    table = laid_out("table2", done)
    assert notes(table, row(table, backbone="ViT-B/16", views="8x3x1")) == ["a note"] == table.footnotes
    assert not any(line.startswith("speed and memory") for line in table.caption)
    assert any(line.startswith("speed and memory") for line in make_table([done]).caption)
    assert len(make_table([done]).footnotes) == 2


def test_a_replica_stands_for_the_rows_of_its_family() -> None:
    small = make.done(cell("clip:tiny", weights="bundled", dataset="motion", clips=1), top1=97.0)
    table = laid_out("table2", small)
    for backbone in ("ViT-B/16", "ViT-L/14"):
        found = row(table, backbone=backbone, views="8x3x1")
        assert found.values["top1"] == 97 and "difference_top1" not in found.values
        assert quotes(notes(table, found)[0], "clip:tiny@bundled", backbone)
    # beside the row's own cell it counts for nothing
    table = laid_out("table2", small, make.done(cell(), top1=84.0))
    assert row(table, backbone="ViT-B/16", views="8x3x1").values["top1"] == 84
    assert row(table, backbone="ViT-L/14", views="8x3x1").values["top1"] == 97


def test_a_replica_may_have_other_frames_where_it_has_none_of_the_rows() -> None:
    """A Swin's 32 are a data set's own 8 there; a model of the row's own size is another row's with other frames."""
    swin = {"weights": "bundled", "dataset": "motion", "clips": 1, "options": {**JOINT, "tubelet": 2}}
    table = laid_out("table6", make.done(cell("swin:tiny", **swin), top1=97.0))
    found = row(table, backbone="Swin-B", method="AIM")
    assert found.values["top1"] == 97 and quotes(notes(table, found)[0], "swin:tiny@bundled", "8x1x1")


def test_counts_alone_stand_beside_the_published_ones_until_a_cell_is_trained() -> None:
    table = laid_out("table2", counted(cell()))
    found = row(table, backbone="ViT-B/16", views="8x3x1")
    assert (found.values["trained_params_m"], found.values["published_trained_params_m"]) == (10.966672, 11)
    assert found.values["gmacs_total"] == 606 and "top1" not in found.values
    table = laid_out("table2", counted(cell()), make.done(cell(), top1=84.0))
    assert row(table, backbone="ViT-B/16", views="8x3x1").values["top1"] == 84


def test_counts_stand_for_every_share_of_the_training_videos() -> None:
    table = laid_out("figure3", counted(cell()))
    with_counts = [found.labels["method"] for found in table.rows if "params_m" in found.values]
    assert with_counts == [f"AIM {share}% of the training data" for share in (1, 10, 50)]
    trained = laid_out("figure3", make.done(cell(train_fraction=0.1), top1=70.0))
    assert [found.labels["method"] for found in trained.rows if "top1" in found.values] == [with_counts[1]]


def test_a_method_that_cannot_be_run_is_a_published_row() -> None:
    found = row(laid_out("table6"), method="VideoSwin-B")
    assert found.values["published_top1"] == 82.7 and found.failure is None


def test_cells_that_differ_in_what_the_paper_does_not_tell_are_rows_of_their_own() -> None:
    runs = [make.done(cell(recipe={"lr": lr}), top1=top1) for lr, top1 in ((1e-3, 80.0), (1e-4, 82.0))]
    table = laid_out("table2", *runs)
    twice = [found for found in table.rows if found.labels["views"] == "8x3x1" and "top1" in found.values]
    assert [found.values["top1"] for found in twice] == [80, 82]
    assert [quotes(notes(table, found)[0], "lr", lr) for found, lr in zip(twice, ("0.001", "0.0001"), strict=True)]


def test_a_failed_cell_is_told_in_its_row() -> None:
    table = laid_out("table2", make.failed(cell()))
    found = row(table, backbone="ViT-B/16", views="8x3x1")
    assert table.text(found, table.columns[0]) == "failed" and found.values["published_top1"] == 83.9
    assert any("no such luck" in failure for failure in table.failures)


@pytest.mark.parametrize("format_", ["terminal", "markdown"])
def test_the_formats_take_it(format_: str) -> None:
    results = [make.done(cell(), top1=84.0)]
    text = RENDERERS[format_](Report(Runs.__new__(Runs).only(results), laid_out("table2", *results)))
    (line,) = [line for line in text.splitlines() if "8x3x1" in line and "ViT-B/16" in line]
    assert quotes(line, "606", "84.0", "83.9", "+0.1")


def test_the_command_prints_it(bench: Command, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.open(make.matrix(), [cell()], "bench run", {})
    run.write(make.done(cell(), top1=84.0))
    said = bench("report", run.folder, "--layout", "paper/table2", "--format", "markdown")
    assert said.code == 0, said.err
    assert any(quotes(line, "ViT-B/16", "8x3x1", "84.0", "83.9") for line in said.out.splitlines())
