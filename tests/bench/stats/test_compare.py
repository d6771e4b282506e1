"""Comparisons on the same videos: exact tests against the binomial, Holm's correction by hand, and `bench compare`."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.run.store import PREDICTIONS, Run
from bench.spec import Cell
from bench.stats.compare import compare, holm
from bench.stats.outcomes import Outcomes, Predicted, outcomes
from tests.bench import make
from tests.bench.command import Command

VIDEOS = 60
NAMES = tuple(f"v{index}" for index in range(VIDEOS))
LABELS = np.arange(VIDEOS) % 6


def _outcomes(right: Sequence[int], seeds: Sequence[int] = (0,), names: Sequence[str] = NAMES) -> Outcomes:
    """Each seed is right on the first so many videos."""
    matrix = np.stack([np.arange(len(names)) < count for count in right])
    return Outcomes(tuple(names), LABELS[: len(names)], matrix, tuple(seeds))


@pytest.mark.parametrize(("one", "other"), [(40, 40), (45, 40), (30, 50), (60, 0)])
def test_one_seed_has_mcnemar_s_exact_test(one: int, other: int) -> None:
    found = compare(_outcomes([one]), _outcomes([other]))
    gained, lost = max(0, one - other), max(0, other - one)
    assert (found.gained, found.lost, found.test) == (gained, lost, "McNemar, exact")
    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert found.p == pytest.approx(expected)
    assert (found.accuracy, found.baseline) == pytest.approx((100 * one / 60, 100 * other / 60))
    assert found.difference.value == pytest.approx(100 * (one - other) / 60)
    h = 2 * math.asin(math.sqrt(one / 60)) - 2 * math.asin(math.sqrt(other / 60))
    assert found.effect == pytest.approx(h)


def test_several_seeds_are_paired_and_what_is_left_out_is_told() -> None:
    row = _outcomes([50, 52, 54], seeds=(0, 1, 2))
    found = compare(row, _outcomes([40, 42, 44], seeds=(1, 2, 5), names=NAMES[:55]))
    assert (found.seeds, found.videos, found.test) == ((1, 2), 55, "paired bootstrap")
    assert found.difference.value == pytest.approx(100 * (12 + 12) / 2 / 55)
    assert [number in found.notes[0] for number in ("0", "5")] == [True, True]
    assert "5 of the test videos" in found.notes[1]


def test_nothing_in_common_is_not_compared() -> None:
    with pytest.raises(ValueError, match="0 against 1"):
        compare(_outcomes([40]), _outcomes([40], seeds=(1,)))
    with pytest.raises(ValueError, match="video"):
        compare(_outcomes([40]), _outcomes([1], names=("other",)))
    moved = Outcomes(NAMES, LABELS[::-1], _outcomes([40]).right, (0,))
    with pytest.raises(ValueError, match="class"):
        compare(_outcomes([40]), moved)


def test_holm_s_correction() -> None:
    made = [compare(_outcomes([40 + more]), _outcomes([40])) for more in (0, 6, 9, 7)]
    raw = [each.p for each in made]
    order = np.argsort(raw)
    expected, most = [0.0] * 4, 0.0
    for rank, index in enumerate(order):
        most = max(most, min(1.0, raw[index] * (4 - rank)))
        expected[index] = most
    found = holm(made)
    assert [each.adjusted for each in found] == pytest.approx(expected)
    # the second is below 5 % by itself, and not as one of four
    assert [each.p < 0.05 for each in found] == [False, True, True, True]
    assert [each.significant for each in found] == [False, False, True, True] == [p < 0.05 for p in expected]
    assert holm([]) == []


# --- what cells keep ---


def _probabilities(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label is most probable where it is to be right, the next class elsewhere; the label is second there."""
    found = np.full((len(labels), 6), 0.01, dtype=np.float32)
    found[np.arange(len(labels)), labels] = 0.4
    found[np.arange(len(labels)), (labels + 1) % 6] = np.where(right, 0.2, 0.5)
    return found


def _write(run: Run, cell: Cell, right: np.ndarray, names: Sequence[str] = NAMES) -> None:
    run.write(make.done(cell, top1=100 * float(right.mean())))
    labels = LABELS[: len(names)]
    p = _probabilities(right, labels)
    np.savez(run.cell_folder(cell) / PREDICTIONS, names=names, labels=labels, probabilities=p, probabilities_reversed=p)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Rows of two backbones in two seeds: frozen has 30 videos right, joint 55 and 57, lora of two ranks 31 and 45."""
    found = Run(tmp_path / "run")
    cells = {}
    for seed in (0, 1):
        for backbone in ("vit:tiny", "clip:tiny"):
            for strategy, options, right in (
                ("frozen", {}, 30),
                ("joint", {}, 55 + 2 * seed),
                ("lora", {"rank": 4}, 31),
                ("lora", {"rank": 8}, 45),
            ):
                cell = make.cell(backbone=backbone, strategy=strategy, options=options, seed=seed)
                cells[cell] = np.arange(VIDEOS) < right
    found.open(make.matrix(), list(cells), "bench run", {})
    for cell, right in cells.items():
        _write(found, cell, right)
    return found


def test_every_metric_is_read_off_the_predictions(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, 2])
    p = np.eye(7, dtype=np.float32)[[0, 2, 2, 0]]
    np.savez(tmp_path / "a.npz", names=["a", "b", "a", "c"], labels=labels, probabilities=p)
    found = Predicted(tmp_path / "a.npz")
    assert found.names == ("a", "b", "a #2", "c")
    assert found.right("top1").tolist() == found.right("mean_class").tolist() == [True, False, True, False]
    # of equal probabilities the lower classes are first: 2 and 0, 1, 3, 4; then 0 and 1, 2, 3, 4
    assert found.right("top5").tolist() == [True, True, True, True]
    assert found.right("top1_reversed") is None
    assert outcomes([found], [0], "top1_reversed") is None


@pytest.mark.parametrize("content", [b"", b"PK", None])
def test_damaged_predictions_are_told(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.npz"
    if content is None:
        np.savez(file, names=["a"], labels=[1, 2])
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz"):
        Predicted(file)


def test_seeds_on_different_videos_keep_the_common_ones(tmp_path: Path) -> None:
    files = []
    for index, names in enumerate((["a", "b", "c"], ["c", "a"])):
        files.append(tmp_path / f"{index}.npz")
        labels = [{"a": 0, "b": 1, "c": 2}[name] for name in names]
        np.savez(files[-1], names=names, labels=labels, probabilities=np.eye(3)[[0] * len(names)])
    found = outcomes([Predicted(file) for file in files], [0, 1], "top1")
    assert found is not None
    assert (found.names, found.left_out, found.right.tolist()) == (("a", "c"), 1, [[True, False], [True, False]])


def _json(bench: Command, run: Run, *flags: str) -> list[dict[str, object]]:
    said = bench("compare", run.folder, "--format", "json", *flags)
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_each_backbone_has_its_own_baseline(bench: Command, run: Run) -> None:
    records = _json(bench, run)
    assert len(records) == 8
    for record in records:
        assert record["against"] == f"{record['backbone']} frozen"
        gap = {"frozen": None, "joint": 100 * 26 / 60}.get(str(record["strategy"]), 0)
        if gap != 0:
            assert record.get("difference") == (gap and pytest.approx(gap))
    assert [record.get("seeds") for record in records if record["strategy"] == "joint"] == [[0, 1]] * 2
    shown = {record["rank"]: record["difference"] for record in records if record["strategy"] == "lora"}
    assert shown == {"4": pytest.approx(100 / 60), "8": pytest.approx(25)}


def test_one_row_of_all_is_the_baseline_where_its_backbone_is_named(bench: Command, run: Run) -> None:
    records = _json(bench, run, "--baseline", "vit/lora rank=8", "--metric", "mean_class")
    assert {record["against"] for record in records} == {"vit:tiny@none lora"}
    made = [record for record in records if "p" in record]
    assert len(made) == 7
    assert {record["metric"] for record in records} == {"mean_class"}


@pytest.mark.parametrize("format_", ["terminal", "markdown", "csv"])
def test_formats_hold_the_same_rows(bench: Command, run: Run, tmp_path: Path, format_: str) -> None:
    file = tmp_path / "out"
    said = bench("compare", run.folder, "--format", format_, "--output", file)
    assert said.code == 0, said.err
    text = file.read_text()
    assert text.count("joint") == 2
    if format_ == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [float(row["difference"]) for row in rows if row["strategy"] == "joint"] == pytest.approx([43.33333] * 2)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--baseline", "fozen"), ("fozen", "frozen")),
        (("--baseline", "lora"), ("lora", "rank", "4, 8")),
        (("--baseline", ""), ("baseline",)),
        (("--metric", "top-1"), ("top-1", "top1")),
        (("--format", "tex"), ("tex", "markdown")),
        (("--output", "/dev/null/a"), ("/dev/null/a",)),
    ],
)
def test_mistakes(bench: Command, run: Run, flags: tuple[str, ...], names: tuple[str, ...]) -> None:
    said = bench("compare", run.folder, *flags)
    assert (said.code, said.out, len(said.problems)) == (2, "", 1)
    assert all(name in said.problems[0] for name in names)


def test_a_row_without_predictions_is_told_and_the_others_are_compared(bench: Command, run: Run) -> None:
    results = [each for each in run.results() if each.cell.strategy == "joint"]
    (run.cell_folder(results[0].cell) / PREDICTIONS).unlink()
    (run.cell_folder(results[1].cell) / PREDICTIONS).write_bytes(b"PK")
    records = _json(bench, run)
    lacking = [str(record["lacking"]) for record in records if record["strategy"] == "joint"]
    assert len(lacking) == 2
    assert all(PREDICTIONS in text for text in lacking)
    assert sum("p" in record for record in records) == 4


def test_a_report_shows_intervals_where_predictions_are_there(bench: Command, run: Run) -> None:
    gone = next(each for each in run.results() if each.cell.strategy == "frozen")
    (run.cell_folder(gone.cell) / PREDICTIONS).unlink()
    said = bench("report", run.folder, "--format", "markdown", "--intervals")
    assert said.code == 0, said.err
    header, _, *lines = [line for line in said.out.splitlines() if line.startswith("|")]
    names = [name.strip() for name in header.split("|")]
    rows = [dict(zip(names, (cell.strip(" *") for cell in line.split("|")), strict=True)) for line in lines]
    shown = {(row["backbone"], row["strategy"], row.get("rank", "-")): row["top-1 %"] for row in rows}
    low, high = stats.binomtest(112, 120).proportion_ci(method="wilson")
    found = [float(text) for text in re.findall(r"[\d.]+", shown["vit:tiny@none", "joint", "-"])]
    assert found[0] == pytest.approx(100 * 112 / 120, abs=0.051)
    # both seeds are right on the same videos, which are 60 and not 120
    assert found[1] < 100 * low < 100 * high < found[2]
    assert {bool(re.search(r"\[", text)) for key, text in shown.items() if key[1] == "frozen"} == {True, False}
