"""The other kinds of plots: fractions, learning curves, confusion, order, time, each against the numbers it shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from safetensors.numpy import save

from bench.data.motion.dataset import Motion
from bench.errors import UserError
from bench.report.plots import Lacking, PlotRequest, figure
from bench.report.plots.chosen import Chosen
from bench.report.plots.confusion import class_names, confusion, shares
from bench.report.plots.logs import BINS, epoch_curve, interval_curve, read_log
from bench.report.plots.time import WAIT
from bench.report.runs import Runs
from bench.run.store import ADAPTER, PREDICTIONS, Run
from bench.spec import Cell, Tuning
from bench.stats.bootstrap import accuracy
from tests.bench import make
from tests.bench.command import quotes
from tests.bench.report import plotted

# strategy and fraction -> videos that seeds 0 and 1 have right; reversed 12, shuffled 30
ROWS = {
    ("frozen", 0.05): (10, 14),
    ("frozen", 1.0): (28, 31),
    ("joint", 0.05): (20, 30),
    ("joint", 0.5): (45, 47),
    ("joint", 1.0): (55, 57),
}


def log(seed: int) -> list[dict[str, float]]:
    """Lines of two epochs of ten steps: seed 0 has one every two steps, seed 1 every five."""
    every = 5 if seed else 2
    lines: list[dict[str, float]] = [
        {"epoch": step / 10, "step": step, "loss": 3 - step / 10 + seed, "train_top1": 4.0 * step}
        for step in range(every, 21, every)
    ]
    return [*lines, {"epoch": 2.0, "val_top1": 50.0 + 10 * seed}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    cells = {
        make.cell(strategy=strategy, options={}, train_fraction=fraction, seed=seed): counts[seed]
        for (strategy, fraction), counts in ROWS.items()
        for seed in (0, 1)
    }
    found = plotted.opened(tmp_path_factory.mktemp("run"), [*cells])
    for cell, count in cells.items():
        plotted.add(found, cell, [count, 12, 30], log(cell.seed))
    return found


@pytest.fixture(scope="module")
def runs(run: Run) -> Runs:
    return Runs([run])


def interval(counts: tuple[int, ...]) -> Any:
    return accuracy(np.stack([plotted.right(count) for count in counts]))


# --- fractions ---


def test_a_line_a_strategy_over_the_fractions(runs: Runs) -> None:
    (axes,) = figure("fraction", runs).axes
    found = {container.get_label(): container for container in axes.containers}
    assert set(found) == {"vit:tiny@none frozen", "vit:tiny@none joint"}
    for label, (line, _, (bars,)) in found.items():
        rows = {fraction: interval(counts) for (name, fraction), counts in ROWS.items() if name == label.split()[1]}
        assert line.get_xydata() == pytest.approx(np.array([[100 * at, rows[at].value] for at in sorted(rows)]))
        ends = [[end[1] for end in segment] for segment in bars.get_segments()]
        assert ends == [pytest.approx([rows[at].low, rows[at].high]) for at in sorted(rows)]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "50", "100"]


# --- learning curves ---


def by_step(lines: list[dict[str, float]], name: str, bins: int) -> list[float]:
    """The mean of each bin, step by step: a step has the value of the line that is the next to be written."""
    steps = []
    for step in range(1, 21):
        steps.append(next(line[name] for line in lines if line.get("step", 0) >= step))
    each = 20 // bins
    return [sum(steps[bin_ * each : (bin_ + 1) * each]) / each for bin_ in range(bins)]


def test_intervals_are_brought_to_common_epochs() -> None:
    logs = [log(0), log(1)]
    found = interval_curve(logs, "loss")
    assert found is not None
    assert found.epochs == pytest.approx([0.25, 0.75, 1.25, 1.75])  # four lines in the shorter log
    expected = np.array([by_step(lines, "loss", 4) for lines in logs])
    assert found.values == pytest.approx(expected)
    assert found.mean == pytest.approx(expected.mean(axis=0))
    assert [found.low, found.high] == [pytest.approx(expected.min(axis=0)), pytest.approx(expected.max(axis=0))]
    assert interval_curve([log(0), []], "loss") is None and interval_curve(logs, "nothing") is None


def test_long_logs_are_shortened_and_keep_their_mean() -> None:
    generator = np.random.default_rng(0)
    epochs = np.cumsum(generator.uniform(0.01, 0.03, size=500))
    losses = generator.normal(size=500)
    found = interval_curve([[{"epoch": e, "loss": v} for e, v in zip(epochs, losses, strict=True)]], "loss")
    assert found is not None and found.values.shape == (1, BINS)
    widths = np.diff(np.concatenate([[0.0], epochs]))
    assert found.values.mean() == pytest.approx((losses * widths).sum() / epochs[-1])


def test_epochs_that_all_seeds_have() -> None:
    logs = [[{"epoch": e, "val_top1": 10 * e + seed} for e in (5.0, 10.0, 12.0)[seed:]] for seed in (0, 1)]
    found = epoch_curve(logs, "val_top1")
    assert found is not None
    assert found.epochs.tolist() == [10, 12] and found.values.tolist() == [[100, 120], [101, 121]]
    assert epoch_curve([logs[0], [{"epoch": 1.0, "val_top1": 3.0}]], "val_top1") is None


def test_lines_that_are_not_whole_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    good = {"epoch": 1.0, "loss": 2.0}
    file.write_text(f'{json.dumps(good)}\n[1]\n{{"loss": 1}}\n{{"epoch": NaN}}\n{{"epoch": 2.0, "lo', encoding="utf-8")
    assert read_log(file) == [good]


def test_learning_curves_are_drawn_with_their_range(runs: Runs) -> None:
    shown = figure("learning", runs)
    assert [axes.get_ylabel() for axes in shown.axes] == ["training loss", "training top-1 %", "validation top-1 %"]
    expected = interval_curve([log(0), log(1)], "loss")
    assert expected is not None
    loss, _, validation = shown.axes
    assert len(loss.lines) == len(ROWS)
    for line, area in zip(loss.lines, loss.collections, strict=True):
        assert line.get_xydata() == pytest.approx(np.stack([expected.epochs, expected.mean], axis=1))
        heights = area.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((expected.low.min(), expected.high.max()))
    assert {tuple(line.get_xydata()[0]) for line in validation.lines} == {(2.0, 55.0)}


# --- confusion ---


def matrix_of(files: list[Path]) -> np.ndarray:
    """Counts, video by video."""
    found = np.zeros((plotted.CLASSES, plotted.CLASSES), dtype=int)
    for file in files:
        with np.load(file) as arrays:
            for label, row in zip(arrays["labels"], arrays["probabilities"], strict=True):
                found[label, max(range(len(row)), key=lambda index: row[index])] += 1
    return found


def files_of(run: Run, strategy: str, fraction: float, seeds: tuple[int, ...] = (0, 1)) -> list[Path]:
    cells = [make.cell(strategy=strategy, options={}, train_fraction=fraction, seed=seed) for seed in seeds]
    return [run.cell_folder(cell) / PREDICTIONS for cell in cells]


def test_the_matrix_counts_every_prediction(run: Run, runs: Runs) -> None:
    (shown, _) = figure("confusion", runs).axes  # of the best row
    counts = matrix_of(files_of(run, "joint", 1.0))
    assert counts.sum() == 2 * plotted.VIDEOS and counts.trace() == 55 + 57
    (mesh,) = shown.collections
    assert np.asarray(mesh.get_array()) == pytest.approx(100 * counts / counts.sum(axis=1, keepdims=True))
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in shown.texts}
    assert texts == {
        (row, column): f"{100 * counts[row, column] / counts[row].sum():.0f}"
        for row, column in zip(*np.nonzero(counts), strict=True)
    }
    assert shown.get_title() == "vit:tiny@none joint (100 % of the videos)"
    assert [tick.get_text() for tick in shown.get_yticklabels()][:2] == ["move-right", "move-left"]
    assert shown.yaxis_inverted()  # the first class is at the top


def test_a_class_without_videos_is_blank() -> None:
    found = shares(np.array([[1, 3], [0, 0]]))
    assert found[0].tolist() == [25, 75] and np.isnan(found[1]).all()


@pytest.mark.parametrize("by", ["cells", "rows"])
def test_two_are_compared_class_by_class(run: Run, runs: Runs, by: str) -> None:
    one, other = ("joint", 0.05), ("frozen", 0.05)
    if by == "cells":
        names = [make.cell(strategy=s, options={}, train_fraction=f, seed=1) for s, f in (one, other)]
        request, seeds = PlotRequest(cells=(names[0].key, names[1].folder)), (1,)
    else:
        runs = Runs([run])
        runs.results = [result for result in runs.results if result.cell.train_fraction == 0.05]
        request, seeds = PlotRequest(rows=("vit/joint", "vit:tiny@none/frozen")), (0, 1)
    (axes,) = figure("confusion", runs, request).axes
    first, second = (matrix_of(files_of(run, *row, seeds)) for row in (one, other))
    gap = 100 * (np.diag(first) / first.sum(axis=1) - np.diag(second) / second.sum(axis=1))
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx(sorted(gap, reverse=True)) and widths[0] > 0
    names_of_classes = Motion().classes
    shown = [tick.get_text() for tick in axes.get_yticklabels()]
    assert [gap[names_of_classes.index(name)] for name in shown] == pytest.approx(widths)


def test_of_many_classes_the_ends_are_compared(tmp_path: Path) -> None:
    """The first row has all videos right, the second so many of a class wrong as its number is."""
    count = 50
    cells = [make.cell(strategy=strategy, options={}) for strategy in ("joint", "frozen")]
    run = plotted.opened(tmp_path, cells)
    labels = np.repeat(np.arange(count), count)
    wrong = np.tile(np.arange(count), count) < labels  # as many of a class as its number
    for cell, guess in zip(cells, (labels, np.where(wrong, (labels + 1) % count, labels)), strict=True):
        run.write(make.done(cell, top1=60))
        arrays = {"labels": labels, "probabilities": np.eye(count, dtype=np.float32)[guess]}
        np.savez(run.cell_folder(cell) / PREDICTIONS, names=[f"v{i}" for i in range(len(labels))], **arrays)
    runs = Runs([run])
    (axes,) = figure("confusion", runs, PlotRequest(rows=("joint", "frozen"))).axes
    kept = [*range(49, 29, -1), *range(19, -1, -1)]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [str(label) for label in kept]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([100 * label / count for label in kept])
    matrix = figure("confusion", runs, PlotRequest(rows=("frozen",))).axes[0].collections[0]
    assert matrix.get_rasterized() and np.asarray(matrix.get_array()).shape == (count, count)


def test_names_of_classes_come_from_the_adapter_file_or_the_data_set(tmp_path: Path) -> None:
    cell = make.cell()
    assert class_names(cell, tmp_path, 10) == list(Motion().classes)
    assert class_names(cell, tmp_path, 3) == ["0", "1", "2"]
    assert class_names(make.cell(dataset="gone"), tmp_path, 2) == ["0", "1"]
    content = save({"weight": np.zeros(1)}, metadata={"classes": json.dumps(["a\nb", "c", "d"])})
    (tmp_path / ADAPTER).write_bytes(content)
    assert class_names(cell, tmp_path, 3) == ["a b", "c", "d"]
    (tmp_path / ADAPTER).write_bytes(content[:20])
    assert class_names(cell, tmp_path, 3) == ["0", "1", "2"]


def test_names_that_are_not_there_are_told_at_once(runs: Runs) -> None:
    with pytest.raises(UserError) as told:
        figure("confusion", runs, PlotRequest(cells=("abc",), rows=("vit/jointt",)))
    cells, rows = told.value.problems
    assert quotes(cells, "'abc'") and quotes(rows, "'vit/jointt'", "did you mean", "'vit:tiny/joint'")
    with pytest.raises(UserError) as told:
        figure("confusion", runs, PlotRequest(rows=("joint",)))
    assert quotes(told.value, "'joint'", "3 rows")
    with pytest.raises(UserError) as told:
        figure("confusion", runs, PlotRequest(rows=("frozen", "joint", "full")))
    assert quotes(told.value, "frozen, joint, full", "at most two")


def test_predictions_that_are_gone_are_told(tmp_path: Path) -> None:
    run = plotted.opened(tmp_path, [make.cell()])
    run.write(make.done(make.cell()))
    runs = Runs([run])
    for content in (None, b"PK"):
        if content is not None:
            (run.cell_folder(make.cell()) / PREDICTIONS).write_bytes(content)
        with pytest.raises(Lacking) as told:
            confusion(runs, Chosen("some row", tuple(runs.results)))
        assert quotes(told.value, "some row", PREDICTIONS)


# --- order and time ---


def test_the_orders_of_a_row_have_their_intervals(runs: Runs) -> None:
    (axes,) = figure("order", runs).axes
    found = {container.get_label(): container for container in axes.containers}
    counts = {"forwards": ROWS.values(), "reversed": [(12, 12)] * len(ROWS), "shuffled": [(30, 30)] * len(ROWS)}
    assert list(found) == list(counts)
    for name, (line, _, (bars,)) in found.items():
        expected = [interval(each) for each in counts[name]]
        assert line.get_xdata() == pytest.approx([each.value for each in expected])
        assert line.get_ydata().tolist() == list(range(len(ROWS)))
        assert [segment[:, 0] for segment in bars.get_segments()] == [
            pytest.approx(np.array([each.low, each.high])) for each in expected
        ]
    assert axes.get_yticklabels()[0].get_text() == "vit:tiny@none frozen (5 % of the videos)"


def bars(shown: Figure) -> dict[str, list[tuple[float, float]]]:
    """Starts and lengths of bars, by stage."""
    (axes,) = shown.axes
    return {
        container.get_label(): [(bar.get_x(), bar.get_width()) for bar in container] for container in axes.containers
    }


def timed(folder: Path, seeds: int) -> Runs:
    cells = [make.cell(strategy=strategy, options={}, seed=s) for strategy in ("frozen", "joint") for s in range(seeds)]
    run = plotted.opened(folder, cells)
    for cell in cells:
        seconds = {"build": 2.0, "train": 30.5, "evaluate": 4.0 + cell.seed, "write": 0.5}
        run.write(make.done(cell).model_copy(update={"seconds": seconds}))
    return Runs([run])


def test_a_bar_a_cell_of_its_stages(tmp_path: Path) -> None:
    found = bars(figure("time", timed(tmp_path, 2)))
    assert list(found) == ["build", "train", WAIT, "evaluate", "write"]
    assert found["build"] == [(0, 2)] * 4 and found["train"] == [(2, 30.5)] * 4
    assert found["evaluate"] == [(32.5, 4), (32.5, 5)] * 2
    assert found["write"] == [(36.5, 0.5), (37.5, 0.5)] * 2
    # of 30.25 s of training the loader's share of 3.25 %
    assert found[WAIT] == [(2, pytest.approx(30.25 * 0.0325))] * 4


def test_of_many_cells_a_bar_a_row(tmp_path: Path) -> None:
    found = bars(figure("time", timed(tmp_path, 21)))
    assert found["evaluate"] == [(32.5, pytest.approx(14))] * 2


def of_fractions(strategy: str, rates: Sequence[float], sampler_seed: int | None = 0) -> list[Cell]:
    """Cells of a tenth of the videos and of all, each with the rate that was chosen for it; None: with none chosen."""
    budget: dict[str, Any] = {
        "trials": 2,
        "epochs": 2,
        "sampler": "any",
        "seed": 1000,
        "chosen": 1,
        "untuned": {"lr": 0.01},
    }
    space = {"lr": {"scale": "log", "low": 1e-4, "high": 1.0}}
    cells = []
    for fraction, lr in zip((0.1, 1.0), rates, strict=True):
        found = Tuning(**budget, sampler_seed=sampler_seed or 0, space=space, values={"lr": lr})
        tuning = None if sampler_seed is None else found
        recipe = {"lr": lr}
        cells.append(make.cell(strategy=strategy, options={}, train_fraction=fraction, recipe=recipe, tuning=tuning))
    return cells


def lines_of(folder: Path, cells: Sequence[Cell]) -> tuple[list[tuple[str, int]], set[str]]:
    """Labels and points of the lines, and the names of the legends."""
    run = plotted.opened(folder, cells)
    for count, cell in enumerate(cells):
        plotted.add(run, cell, [20 + count])
    shown = figure("fraction", Runs([run]))
    (axes,) = shown.axes
    lines = [(str(each.get_label()), len(each[0].get_xydata())) for each in axes.containers]
    return lines, {text.get_text() for legend in shown.legends for text in legend.get_texts()}


def test_a_line_has_fractions_of_which_each_was_tuned(tmp_path: Path) -> None:
    cells = of_fractions("frozen", (0.02, 0.05)) + of_fractions("joint", (0.01, 0.1))
    lines, _ = lines_of(tmp_path / "run", cells)
    assert lines == [("vit:tiny@none frozen", 2), ("vit:tiny@none joint", 2)]


def test_lines_with_and_without_tuning_are_told_apart_by_what_all_their_points_share(tmp_path: Path) -> None:
    lines, legends = lines_of(
        tmp_path / "run", of_fractions("joint", (0.01, 0.01), None) + of_fractions("joint", (0.02, 0.05))
    )
    assert sorted(lines) == [("vit:tiny@none joint (2 trials)", 2), ("vit:tiny@none joint (lr 0.01)", 2)]
    assert legends >= {"joint (2 trials)", "joint (lr 0.01)"} and not any("0.05" in name for name in legends)


def test_searches_that_differ_are_lines_of_their_own(tmp_path: Path) -> None:
    cells = of_fractions("joint", (0.02, 0.05)) + of_fractions("joint", (0.03, 0.06), sampler_seed=1)
    lines, _ = lines_of(tmp_path / "run", cells)
    assert [points for _, points in lines] == [2, 2]
