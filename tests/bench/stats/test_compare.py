"""Comparisons on the same videos: exact tests against the binomial, Holm's correction by hand, and `bench compare`."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bench.report.runs import Runs
from bench.run.store import PREDICTIONS, Run
from bench.spec import Cell
from bench.stats.compare import adjusted, compare, holm, mcnemar, probabilities, told_apart
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


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 5), (3, 3), (7, 2), (400, 480), (9000, 9300), (0, 19000)])
def test_mcnemar_s_test_is_the_binomial_one_however_many_videos(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("by_class", [True, False])
def test_rows_together_have_the_p_of_each(seeds: tuple[int, ...], by_class: bool) -> None:
    generator = np.random.default_rng(1)
    rows = [
        Outcomes(NAMES, LABELS, generator.random((len(seeds), VIDEOS)) < share, seeds, by_class)
        for share in (0.9, 0.8, 0.6, 0.5)
    ]
    found = probabilities(rows[1:], rows[0])
    assert found == pytest.approx([compare(row, rows[0]).p for row in rows[1:]])
    assert len({round(p, 6) for p in found}) == 3


def test_several_seeds_are_paired_and_what_is_left_out_is_told() -> None:
    row = _outcomes([50, 52, 54], seeds=(0, 1, 2))
    found = compare(row, _outcomes([40, 42, 44], seeds=(1, 2, 5), names=NAMES[:55]))
    assert (found.seeds, found.videos, found.test) == ((1, 2), 55, "paired bootstrap")
    assert found.difference.value == pytest.approx(100 * (12 + 12) / 2 / 55)
    assert [number in found.notes[0] for number in ("0", "5")] == [True, True]
    assert "5 of the test videos" in found.notes[1]


def test_a_video_that_a_seed_lacks_counts_once_among_those_left_out() -> None:
    whole = _outcomes([50, 52], seeds=(0, 1))
    lacking = replace(_outcomes([40, 42], seeds=(0, 1), names=NAMES[:55]), partial=(NAMES[59],))
    assert "5 of the test videos" in compare(lacking, whole).notes[0]
    assert "6 of the test videos" in compare(replace(lacking, partial=("v-other",)), whole).notes[0]


def test_nothing_in_common_is_not_compared() -> None:
    with pytest.raises(ValueError, match="0 against 1"):
        compare(_outcomes([40]), _outcomes([40], seeds=(1,)))
    with pytest.raises(ValueError, match="video"):
        compare(_outcomes([40]), _outcomes([1], names=("other",)))
    moved = Outcomes(NAMES, LABELS[::-1], _outcomes([40]).right, (0,))
    with pytest.raises(ValueError, match="class"):
        compare(_outcomes([40]), moved)


@pytest.mark.parametrize("p", [[], [0.04], [0.01, 0.04, 0.03, 0.005], [0.02, 0.02, 0.9, 1.0, 0.02]])
def test_corrections_are_those_of_statsmodels(p: list[float]) -> None:
    apart, expected = multipletests(p, alpha=0.05, method="holm")[:2] if p else ([], [])
    assert adjusted(p) == pytest.approx([*expected]) and told_apart(p) == [*apart]


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


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, order: str, save: Callable[..., None]) -> None:
    p = np.asarray(np.random.default_rng(0).random((9, 7)), order=order)
    save(tmp_path / "a.npz", names=[f"v{i}" for i in range(9)], labels=np.arange(9) % 7, probabilities=p)
    found = Predicted(tmp_path / "a.npz")
    ranks = (-p).argsort(axis=1).argsort(axis=1)[np.arange(9), np.arange(9) % 7]
    assert found.right("top1").tolist() == (ranks == 0).tolist()
    assert found.right("top5").tolist() == (ranks < 5).tolist()
    assert {*(ranks < 5).tolist()} == {True, False}


def test_probabilities_of_other_videos_than_the_names_are_damage(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", names=["a"], labels=[0], probabilities=np.eye(3))
    with pytest.raises(ValueError, match=r"a\.npz"):
        Predicted(tmp_path / "a.npz").right("top1")


@pytest.mark.parametrize("content", [b"", b"PK", None])
def test_damaged_predictions_are_told(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.npz"
    if content is None:
        np.savez(file, names=["a"], labels=[1, 2])
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz"):
        Predicted(file)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["names", "labels", "probabilities"])
def test_a_changed_byte_is_damage_in_whatever_array_it_is(tmp_path: Path, save: Callable[..., None], name: str) -> None:
    file = tmp_path / "a.npz"
    save(file, names=[f"video {index}" for index in range(50)], labels=np.arange(50), probabilities=np.eye(50))
    Predicted(file).right("top1")  # as it is: what is kept of it must not stand for the damaged one
    with zipfile.ZipFile(file) as opened:
        member = opened.getinfo(f"{name}.npy")
    content = bytearray(file.read_bytes())
    content[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz"):
        Predicted(file).right("top1")


def test_seeds_on_different_videos_keep_the_common_ones(tmp_path: Path) -> None:
    files = []
    for index, names in enumerate((["a", "b", "c"], ["c", "a"])):
        files.append(tmp_path / f"{index}.npz")
        labels = [{"a": 0, "b": 1, "c": 2}[name] for name in names]
        np.savez(files[-1], names=names, labels=labels, probabilities=np.eye(3)[[0] * len(names)])
    found = outcomes([Predicted(file) for file in files], [0, 1], "top1")
    assert found is not None
    assert (found.names, found.partial, found.right.tolist()) == (("a", "c"), ("b",), [[True, False], [True, False]])


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


def test_rows_of_several_runs_are_compared(bench: Command, run: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    cells = [make.cell(strategy="full", options={}, seed=seed) for seed in (0, 1)]
    other.open(make.matrix(), cells, "bench run", {})
    for cell in cells:
        _write(other, cell, np.arange(VIDEOS) < 45)
    said = bench("compare", run.folder, other.folder, "--format", "json")
    found = {(record["backbone"], record["strategy"]): record for record in json.loads(said.out)}
    assert found["vit:tiny@none", "full"]["difference"] == pytest.approx(100 * 15 / 60) and len(found) == 7


def test_cells_of_several_runs_are_told_as_in_a_report(bench: Command, run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "again")
    (note,) = Runs([run, Run(tmp_path / "again")]).notes
    for format_ in ("terminal", "markdown"):
        told = bench("compare", run.folder, tmp_path / "again", "--format", format_).out
        assert note in [line.strip() for line in told.splitlines()]
        assert note not in bench("compare", run.folder, "--format", format_).out


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


def test_rows_are_named_by_their_fraction_and_set_against_those_of_the_same(bench: Command, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    cells = {
        make.cell(strategy=strategy, options={}, train_fraction=fraction): right
        for strategy, fraction, right in (
            ("frozen", 0.1, 10),
            ("frozen", 1.0, 30),
            ("joint", 0.1, 25),
            ("joint", 1.0, 50),
        )
    }
    run.open(make.matrix(), list(cells), "bench run", {})
    for cell, right in cells.items():
        _write(run, cell, np.arange(VIDEOS) < right)
    gaps = [record["difference"] for record in _json(bench, run) if record["strategy"] == "joint"]
    assert sorted(map(float, map(str, gaps))) == pytest.approx([100 * 15 / 60, 100 * 20 / 60])
    of_one = _json(bench, run, "--baseline", "frozen train_fraction=1")
    assert [record.get("difference") is not None for record in of_one if record["strategy"] == "joint"].count(True) == 1
    assert bench("compare", run.folder, "--baseline", "frozen trials=8").code == 2
