"""`bench predict`, and the accuracies of single classes in `bench eval`."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bench.cli.eval as command
from bench.cli.eval import FORMATS
from bench.data.dataset import DATASETS
from bench.data.decode_pool import Reading
from bench.plugins import load as load_plugins
from bench.report.per_class import records, render, to_csv
from bench.report.predictions import PREDICTION_RENDERERS
from bench.run.cell import execute
from bench.run.context import WorkerContext
from bench.run.matrix import expand
from bench.run.prediction import VideoPrediction
from bench.run.store import ADAPTER, PREDICTIONS, Run
from bench.spec import Cell, Matrix
from bench.stats.per_class import per_class
from tests.bench import make
from tests.bench.command import Command, Said, quotes
from tests.bench.conftest import nothing_stays_registered

PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")
DENSE = """
from bench.data.dataset import DATASETS, register_dataset

@register_dataset("dense")
class Dense(DATASETS.get("small")):
    name = "dense"
    sampling = "dense"
    clips = 2
    span = 16
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with a cell that was trained on the small data set, tested on two clips of each video."""
    with nothing_stays_registered():
        plugin = tmp_path_factory.mktemp("plugins") / "dense.py"
        plugin.write_text(DENSE)
        load_plugins([PLUGIN, str(plugin)])
        DATASETS.get("dense")(None).prepare()
        matrix = Matrix(
            backbones=("vit:tiny",),
            strategies=("joint",),
            datasets=("dense",),
            views="2x1@40",
            order_test=False,
            device="cpu",
        )
        (cell,) = expand(matrix).cells
        run = Run(tmp_path_factory.mktemp("results") / "run")
        run.open(matrix, [cell], "bench run", {})
        context = WorkerContext(torch.device("cpu"), Reading(), "bench run")
        measured = make.measured(batch_size=8, micro_batch=8)
        run.write(execute(cell, context, measured=measured, folder=run.cell_folder(cell)))
        yield run, cell, str(plugin)


@pytest.fixture
def predict(bench: Command, trained: tuple[Run, Cell, str]) -> Any:
    """`bench predict` of that cell, with further arguments."""
    run, cell, plugin = trained
    common = ("--device", "cpu", "--plugin", PLUGIN, "--plugin", plugin)
    return lambda *arguments: bench("predict", f"{run.folder}/{cell.key}", *arguments, *common)


def kept(run: Run, cell: Cell) -> dict[str, np.ndarray]:
    with np.load(run.cell_folder(cell) / PREDICTIONS) as found:
        return {name: found[name] for name in found.files}


def test_a_test_video_has_the_predictions_of_the_test(trained: tuple[Run, Cell, str], predict: Any) -> None:
    run, cell, _ = trained
    dataset = DATASETS.get("dense")(None)
    videos = dataset.videos("test")
    stored = kept(run, cell)
    # in another order, and in batches of another size
    said: Said = predict(*[video.path for video in reversed(videos)], "--format", "json", "--top", "50")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert [each["video"] for each in found] == [str(video.path) for video in reversed(videos)]
    for each, video in zip(found, reversed(videos), strict=True):
        (row,) = np.flatnonzero(stored["names"] == video.name)
        expected = stored["probabilities"][row]
        assert len(each["predictions"]) == len(dataset.classes) == len(expected)
        for prediction in each["predictions"]:
            assert prediction["probability"] == pytest.approx(expected[prediction["label"]], abs=1e-6)
            assert prediction["class"] == dataset.classes[prediction["label"]]
        probabilities = [prediction["probability"] for prediction in each["predictions"]]
        assert probabilities == sorted(probabilities, reverse=True)


def test_folders_are_looked_through_and_what_is_not_a_video_is_told(
    trained: tuple[Run, Cell, str], predict: Any, tmp_path: Path
) -> None:
    videos = [video.path for video in DATASETS.get("dense")(None).videos("test")[:2]]
    folder = tmp_path / "videos"
    (folder / "deep" / "er").mkdir(parents=True)
    shutil.copy(videos[0], folder / "deep" / "er" / f"b{videos[0].suffix.upper()}")
    shutil.copy(videos[1], folder / f"z{videos[1].suffix}")
    (folder / "a.mp4").write_text("not a video")
    (folder / "notes.txt").write_text("not looked at")
    output = tmp_path / "found.csv"
    said: Said = predict(folder, folder / "a.mp4", "--format", "csv", "--output", output, "--top", 2)
    assert (said.code, said.out) == (1, "")
    assert quotes(said.err, str(folder / "a.mp4"))
    rows = list(csv.DictReader(output.open()))
    assert [(os.path.relpath(row["video"], folder), row["rank"]) for row in rows] == [
        ("a.mp4", ""), (f"z{videos[1].suffix}", "1"), (f"z{videos[1].suffix}", "2"),
        (f"deep/er/b{videos[0].suffix.upper()}", "1"), (f"deep/er/b{videos[0].suffix.upper()}", "2"),
    ]  # fmt: skip
    assert rows[0]["error"] and not any(row["error"] for row in rows[1:])
    alone: Said = predict(folder / "a.mp4")
    assert alone.code == 1 and str(folder / "a.mp4") in alone.out.splitlines()


def test_mistakes_are_told_before_anything_is_loaded(
    bench: Command, trained: tuple[Run, Cell, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.run.model_files.adapter_file.AdapterFile.build", None)
    run, cell, _ = trained
    (tmp_path / "empty").mkdir()
    asked = ("--format", "jsn", "--output", tmp_path / "no" / "file", "--device", "cpu")
    said = bench("predict", f"{run.folder}/0000", tmp_path / "gone.mp4", tmp_path / "empty", *asked)
    assert (said.code, said.out) == (2, "")
    assert len(said.problems) == 5
    for value in ("jsn", str(tmp_path / "gone.mp4"), str(tmp_path / "empty"), str(tmp_path / "no"), cell.folder):
        assert any(value in problem for problem in said.problems), value
    assert bench("predict", f"{run.folder}/{cell.key}").code == 2


def test_the_first_digits_of_a_key_name_a_cell(
    bench: Command, trained: tuple[Run, Cell, str], predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cell, plugin = trained
    video = DATASETS.get("dense")(None).videos("test")[0].path
    common = ("--device", "cpu", "--plugin", PLUGIN, "--plugin", plugin, "--top", 1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(run.folder.parent)
    whole = bench("predict", run.cell_folder(cell), video, *common)
    assert whole.code == 0 and len(whole.out.splitlines()) == 2
    assert bench("predict", f"run/{cell.key[:5]}", video, *common).out == whole.out
    assert bench("predict", cell.key[:6], video, *common).out == whole.out
    other = cell.model_copy(update={"seed": 1})
    twin = run.cell_folder(cell).parent / f"twin-{cell.key[:6]}{other.key[:4]}"
    twin.mkdir()
    try:
        said = bench("predict", cell.key[:6], video, *common)
    finally:
        twin.rmdir()
    assert said.code == 2 and quotes(said.problems[0], cell.key[:6], "2 cells")


def test_what_a_file_names_shows_as_text() -> None:
    bad = 'a\x1b[2J|b,"c"'
    found = [VideoPrediction("x.mp4", (1, 0), (bad, "b"), (0.75, 0.25)), VideoPrediction(bad, error="cut\nshort")]
    shown = PREDICTION_RENDERERS["terminal"](found)
    assert "\x1b" not in shown and len(shown.splitlines()) == 5 and "75.0 %" in shown
    assert json.loads(PREDICTION_RENDERERS["json"](found))[0]["predictions"][0]["class"] == bad
    rows = list(csv.reader(io.StringIO(PREDICTION_RENDERERS["csv"](found))))
    assert rows[1] == ["x.mp4", "1", "1", bad, "0.75", ""] and rows[3][0] == bad


# --- accuracies of classes ---


def test_every_class_is_counted_as_by_hand(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    names = tuple(f"class {index}" for index in range(6))
    labels = rng.integers(0, 5, 200)  # none of the last class
    labels[labels == 4] = 0
    labels[0] = 4
    probabilities = rng.random((200, 6)).astype(np.float32)
    probabilities[0, 4] = 2
    np.savez(tmp_path / "p.npz", names=np.arange(200).astype(str), labels=labels, probabilities=probabilities)
    found = per_class(tmp_path / "p.npz", names)
    for label, each in enumerate(found):
        mine = [int(np.argmax(row)) for row, of in zip(probabilities, labels, strict=True) if of == label]
        wrong = Counter(taken for taken in mine if taken != label)
        most = max(wrong.values(), default=0)
        assert (each.label, each.name, each.videos, each.right) == (label, names[label], len(mine), mine.count(label))
        assert each.confused == most
        expected = min((taken for taken, count in wrong.items() if count == most), default=None)
        assert each.confused_with == (None if expected is None else names[expected])
    assert (found[4].top1, found[4].confused_with) == (100.0, None)
    assert (found[5].videos, found[5].top1) == (0, None)
    assert list(csv.DictReader(io.StringIO(to_csv(found))))[5]["top1"] == ""
    assert records(found)[0]["top1"] == pytest.approx(100 * found[0].right / found[0].videos)
    lines = render(found).splitlines()
    assert len(lines) == 7 and lines[5].split() == ["class", "4", "1", "100.0"] and lines[6].split()[-1] == "-"


def remembered(call: Any) -> Any:
    """A function that is called once, and gives that result for other arguments too."""
    found: list[Any] = []
    return lambda *arguments: (found or found.append(call(*arguments)) or found)[0]


def test_an_evaluation_tells_its_classes(
    bench: Command, trained: tuple[Run, Cell, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cell, plugin = trained
    for step in ("_evaluated", "_classes"):  # done once for all formats
        monkeypatch.setattr(command, step, remembered(getattr(command, step)))
    asked = ("--device", "cpu", "--plugin", PLUGIN, "--plugin", plugin, "--no-order-test", "--per-class")
    expected = per_class(run.cell_folder(cell) / PREDICTIONS, DATASETS.get("dense")(None).classes)
    for format_ in FORMATS:
        said = bench("eval", "--checkpoint", run.cell_folder(cell) / ADAPTER, *asked, "--format", format_)
        assert said.code == 0, said.err
        if format_ == "json":
            assert json.loads(said.out)["per_class"] == records(expected)
        else:
            assert said.out.endswith({"table": render, "csv": to_csv}[format_](expected))
