"""Tables of AIM's paper as matrices: a cell for each row that can be run, with the recipe of the released code."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from adapters.base import STRATEGIES
from bench.cli.options import Given
from bench.cli.run import planned
from bench.data.dataset import DATASETS
from bench.errors import UserError
from bench.papers.figures import AIM_FIGURES
from bench.papers.tables import find_table, tables
from bench.run.matrices import expand_all
from bench.run.matrix import Plan
from bench.spec import Cell, Matrix, Request
from tests.bench.command import Command, quotes
from tests.bench.test_published import BACKBONES, TABLES, Row, _model, _rows

# without the video Swin, which no strategy makes: methods x backbones x frames or options or shares
COUNTS = {
    "table1": 6 + 1,
    "table2": 2 * 3,
    "table3": 2 * 3,
    "table4": 2,
    "table5": 2,
    "table6": 2 + 3,
    "table7": 4,
    "table8": 4,
    "figure3": 2 * 3,
}
# of the released configurations: epochs, and the rates of ViT-B, ViT-L and Swin-B with those of their heads
EPOCHS = {"k400": 30, "k700": 30, "ssv2": 50, "diving48": 50}
RATES = {
    ("k400", "ViT-B/16"): (3e-4, 3e-4),
    ("k400", "ViT-L/14"): (3e-5, 3e-4),
    ("k400", "Swin-B"): (1e-4, 1e-3),
    ("k700", "ViT-B/16"): (3e-4, 3e-4),
    ("k700", "ViT-L/14"): (3e-4, 3e-4),
    ("ssv2", "ViT-B/16"): (3e-4, 3e-4),
    ("ssv2", "ViT-L/14"): (3e-5, 3e-4),
    ("diving48", "ViT-B/16"): (3e-4, 3e-4),
    ("diving48", "ViT-L/14"): (3e-4, 3e-4),
}
WEIGHTS = {"CLIP": "openai", "IN-21K": ("augreg_in21k", "ms_in22k")}


@cache
def cells(name: str) -> tuple[Cell, ...]:
    """The cells of a table on its own data set, which need not lie anywhere."""
    return expand_all(find_table(f"paper/{name}", "config").matrix, data=False).cells


def rows_of(name: str) -> list[Row]:
    """The rows of aim_paper.csv that can be run."""
    return [row for row in _rows() if row["source"].replace("AIM ", "").replace(" ", "").lower() == name]


def fraction(row: Row) -> float:
    """The share of the training videos that a method's name tells."""
    found = [word for word in row["method"].split() if word.endswith("%")]
    return float(found[0][:-1]) / 100 if found else 1.0


def is_of(cell: Cell, row: Row) -> bool:
    """Test that a cell is the one of a printed row, as the tests of the published counts read it."""
    name, strategy, options = _model(row)
    return (
        f"{cell.backbone}@none" == name
        and cell.strategy == strategy
        and cell.frames == int(row["frames"])
        and cell.train_fraction == fraction(row)
        and {"blocks": "all", "ratio": 0.25, **dict(options)}.items()
        <= {"blocks": "all", "ratio": 0.25, **cell.options}.items()
    )


def flags(**values: Any) -> Given[Request]:
    return Given(Request, {"device": "cpu", **values}, {}, [])


def plan(config: str, profile_only: bool = False, **values: Any) -> Plan:
    return planned(flags(**values), Path(config), profile_only)[1]


def test_the_figures_are_those_of_the_results() -> None:
    assert AIM_FIGURES.read_bytes() == TABLES.read_bytes()


def test_every_table_is_there_and_lists_its_cells_and_rows(bench: Command) -> None:
    with TABLES.open(encoding="utf-8") as file:
        sources = {row["source"] for row in csv.DictReader(file)}
    assert {f"AIM {table.title}" for table in tables()} == sources
    said = bench("list", "papers")
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.startswith("paper/")}
    assert said.code == 0 and list(lines) == [f"paper/{name}" for name in COUNTS]
    for name, count in COUNTS.items():
        table = find_table(f"paper/{name}", "config")
        assert table.summary and table.cells == count
        assert len(table.rows) == count + (name == "table6")  # the video Swin
        assert quotes(lines[table.name], *table.matrix.datasets, count, len(table.rows))


@pytest.mark.parametrize("name", COUNTS)
def test_each_row_has_one_cell_with_the_published_recipe(name: str) -> None:
    rows, found = rows_of(name), list(cells(name))
    assert len(rows) == len(found) == COUNTS[name]
    for row in rows:
        (cell,) = [cell for cell in found if is_of(cell, row)]
        found.remove(cell)
        recipe, large, swin = cell.recipe, row["backbone"] == "ViT-L/14", row["backbone"] == "Swin-B"
        assert cell.weights in WEIGHTS[row["pretrain"]]
        assert cell.dataset == row["dataset"]
        assert (cell.clips, cell.crops) == (int(row["temporal_views"]), int(row["spatial_views"]))
        assert (recipe.epochs, recipe.batch_size) == (EPOCHS[row["dataset"]], 64)
        assert (recipe.lr, recipe.head_lr) == RATES[row["dataset"], row["backbone"]]
        assert (recipe.weight_decay, recipe.betas, recipe.dropout) == (0.05, (0.9, 0.999), 0.5)
        assert (recipe.warmup_epochs, recipe.warmup_start, recipe.schedule) == (2.5, 0.1, "epoch")
        assert recipe.drop_path == (0.1 if cell.strategy in ("full", "timesformer") else 0.2)
        assert recipe.pca_noise == (0.1 if large and row["dataset"] == "k400" else 0)
        directed = (recipe.flip, recipe.label_smoothing, recipe.rand_augment, recipe.erase)
        assert directed == ((False, 0.1, (4, 7), 0.25) if row["dataset"] == "ssv2" else (True, 0, None, 0))
        if "temporal_adapters" in cell.options:
            assert cell.options["temporal_adapters"] == (2 if row["dataset"] == "ssv2" else 1)
        if "scale" in cell.options:
            assert cell.options["scale"] == (1 if row["dataset"] == "ssv2" else 0.5)
        assert cell.options.get("tubelet", 1) == (2 if swin else 1)


@pytest.mark.parametrize("name", COUNTS)
def test_a_table_on_motion_is_a_replica_with_tiny_models_and_motions_recipe(name: str) -> None:
    """Models of two sizes become one; strategies, options, frames and shares stay."""
    found = plan(f"paper/{name}", datasets="motion").cells
    own: dict[tuple[str, str], Any] = {}
    expected = set()
    for cell in cells(name):
        family = cell.backbone_name.family
        frames = DATASETS.get("motion")().frames if name == "table6" else cell.frames  # a data set's own there
        expected.add((family, cell.strategy, frames, cell.train_fraction, tuple(sorted(cell.options.items(), key=str))))
        matrix = Matrix(backbones=(family,), strategies=(cell.strategy,), device="cpu")
        own[family, cell.strategy] = own.get((family, cell.strategy)) or expand_all(matrix).cells[0]
    assert len(found) == len(expected)
    for cell in found:
        family = cell.backbone_name.family
        alike = own[family, cell.strategy]
        assert (cell.backbone, cell.dataset, cell.recipe) == (f"{family}:tiny", "motion", alike.recipe)
        assert cell.views == alike.views
        options = tuple(sorted(cell.options.items(), key=str))
        expected.remove((family, cell.strategy, cell.frames, cell.train_fraction, options))


def test_flags_win_over_a_table(tmp_path: Path) -> None:
    found = plan("paper/table1", datasets="motion", seeds="3,4", recipe={"epochs": 1}, options={"scale": 0.25})
    assert len(found.cells) == 2 * COUNTS["table1"]
    assert {(cell.seed, cell.recipe.epochs) for cell in found.cells} == {(3, 1), (4, 1)}
    # an option is for those that take it, over the table's own
    assert {cell.options["scale"] for cell in found.cells if cell.strategy == "joint"} == {0.25}
    assert {cell.options["temporal_adapters"] for cell in found.cells if cell.strategy == "joint"} == {2}
    named = plan("paper/table1", datasets="motion", backbones="vit:tiny@none", strategies="joint")
    assert [cell.weights for cell in named.cells] == ["none"] * len(named.cells)
    joint = STRATEGIES.get("joint").options().model_dump()
    assert {cell.options["temporal_adapters"] for cell in named.cells} == {joint["temporal_adapters"], 2}


def test_a_table_on_its_own_data_set_asks_where_that_is() -> None:
    with pytest.raises(UserError) as error:
        plan("paper/table2")
    assert any(quotes(problem, "k400", "data_root") for problem in error.value.problems)


@pytest.mark.parametrize(
    "command", [("run", "--dry-run", "--config"), ("report", "--layout")], ids=["config", "layout"]
)
def test_an_unknown_table_comes_with_the_nearest(bench: Command, command: tuple[str, ...]) -> None:
    said = bench(*command, "paper/tabel7")
    assert said.code == 2
    assert any(quotes(problem, command[-1][2:], "paper/tabel7", "paper/table7'?") for problem in said.problems)


def test_a_file_goes_before_a_table_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "table1").write_text("backbones: vit:tiny@none\nstrategies: frozen\n")
    assert [cell.strategy for cell in plan("paper/table1").cells] == ["frozen"]


# --- several matrices in a file of one's own ---


def of_file(tmp_path: Path, text: str, **values: Any) -> tuple[Cell, ...]:
    file = tmp_path / "several.yaml"
    file.write_text(text, encoding="utf-8")
    return plan(str(file), **values).cells


SEVERAL = """
backbones: vit:tiny@none
strategies: joint
options: {ratio: 0.5, scale: 1}
epochs: 3
matrices:
  top: {options: {blocks: top, scale: 0.5}}
  bare: {strategies: frozen, epochs: 1, seed: 0}
  again: {option: {blocks: top, scale: 0.5}}
"""


def test_a_file_may_hold_several_matrices(tmp_path: Path) -> None:
    """Each over the fields beside it, mappings laid over mappings; the same cell once; flags over all."""
    text = SEVERAL.replace(", seed: 0", "")
    top, bare = of_file(tmp_path, text)
    assert (top.strategy, top.recipe.epochs, bare.strategy, bare.recipe.epochs) == ("joint", 3, "frozen", 1)
    assert {"blocks": "top", "scale": 0.5, "ratio": 0.5}.items() <= top.options.items()
    top, bare = of_file(tmp_path, text, recipe={"epochs": 2}, options={"ratio": 1})
    assert (top.options["ratio"], top.options["scale"], top.recipe.epochs, bare.recipe.epochs) == (1, 0.5, 2, 2)


def test_what_is_wrong_in_a_matrix_of_several_is_told_with_its_name(tmp_path: Path) -> None:
    text = SEVERAL.replace("seed: 0", "seed: 0, workers: 2")
    with pytest.raises(UserError) as error:
        of_file(tmp_path, f"{text}  third: 3\n  fourth: {{seeds: x}}\n")
    told = " ".join(error.value.problems)
    assert "matrices.bare.seed" in told and "'seeds'?" in told
    assert "matrices.bare.workers" in told
    assert quotes(told, "matrices.third is 3") and quotes(told, "matrices.fourth.seeds holds 'x'")


def test_an_option_that_no_matrix_takes_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        of_file(tmp_path, SEVERAL.replace(", seed: 0", ""), options={"raito": 1})
    (problem,) = error.value.problems
    assert quotes(problem, "raito", "ratio'?")


def test_the_backbones_of_the_tables_are_those_that_the_counts_are_checked_of() -> None:
    from bench.papers.tables import BACKBONES as NAMED

    assert set(NAMED) == set(BACKBONES)
