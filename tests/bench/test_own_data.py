"""A user's own videos through the whole harness: lists into cells, cells into results that say what was missing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.data.dataset import DATASETS
from bench.data.motion.dataset import Motion, write_h264
from bench.data.transforms import FOOTNOTES
from bench.errors import UserError
from bench.run.matrix import expand
from bench.spec import Cell, Matrix
from tests.bench import make
from tests.bench.command import Command, field_of, quotes, quoting

HASTY = Path(__file__).parent / "plugins" / "hasty.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four bright and dark videos to train, two to validate, and lists that name one more of each kind of both."""
    rng = np.random.default_rng(0)
    for i in range(6):
        frames = rng.integers(0, 60, (10, 40, 40, 3)).astype(np.uint8) + np.uint8(150 * (i % 2))
        write_h264(tmp_path / f"{i}.mp4", frames, fps=8, qp=30)
    (tmp_path / "train.csv").write_text(
        "path,label\n0.mp4,dark\n1.mp4,bright\n2.mp4,dark\n3.mp4,bright\ngone.mp4,dark\n"
    )
    (tmp_path / "val.csv").write_text("path,label\n4.mp4,dark\n5.mp4,bright\nlost.mp4,bright\n")
    return tmp_path


def notes_of_weights(row: dict[str, Any]) -> list[str]:
    """Return the table's notes on the backbone alone."""
    return [note for note in row["footnotes"].split("; ") if quotes(note, "@none")]


def cell(**changes: Any) -> Cell:
    return expand(make.matrix(device="cpu", **changes)).cells[0]


def test_a_users_lists_are_trained_on_and_what_is_missing_stands_in_the_result(bench: Command, root: Path) -> None:
    config = root / "run.yaml"
    (root / "names.txt").write_text("bright\ndark\nnoon\n")
    config.write_text(
        f"dataset: list\ndata_root: {root}\ntrain_list: {root}/train.csv\nval-list: {root}/val.csv\n"
        f"class_names: {root}/names.txt\n"
        "backbones: vit:tiny@none\nstrategies: frozen\nrecipe: {epochs: 1, batch_size: 4, erase: 0}\ndevice: cpu\n"
    )
    arguments = ("--frames", "4", "--no-order-test", "--plugin", HASTY, "--out", root / "run")
    said = bench("run", "--config", config, *arguments)
    assert said.code == 0, said.out + said.err
    training, test, classes = (
        quoting("list", 1, "of", *values) for values in ((5, "gone.mp4"), (3, "test", "lost.mp4"), (3, "noon"))
    )

    def found_in(texts: list[str]) -> list[str]:
        return [note for note in (training, test, classes) if any(re.search(note, text) for text in texts)]

    assert found_in(said.out.splitlines()) == [training, test, classes]
    (row,) = pd.read_csv(root / "run/results.csv", dtype={"cell": str}).to_dict("records")
    assert (row["status"], row["dataset"], row["evaluated"], row["listed"]) == ("done", "list", 2, 3)
    (result,) = (root / "run").glob("cells/*/result.json")
    assert json.loads(result.read_text())["metrics"]["top5"] is None and pd.isna(row["top5"])  # of two classes
    assert quotes(said.out, "1 epoch", 4) and "0.000291" in said.out  # 3 x (96 + 1) parameters
    footnotes = row["footnotes"].split("; ")
    assert found_in(footnotes) == [training, test, classes]
    assert any(quotes(note, 1, "of", 3, "test", 2, "lost.mp4") for note in footnotes)
    found = np.load(next((root / "run").glob("cells/*/predictions.npz")))
    assert found["names"].tolist() == ["4.mp4", "5.mp4"]
    assert found["labels"].tolist() == [1, 0]  # bright, dark

    checkpoint = ("--checkpoint", f"{root}/run/{row['cell']}", "--device", "cpu", "--format", "json")
    said = bench("eval", *checkpoint)
    assert said.code == 0, said.err
    evaluated = json.loads(said.out)
    assert (evaluated["top1"], evaluated["evaluated"], evaluated["listed"]) == (row["top1"], 2, 3)
    assert found_in(evaluated["footnotes"]) == [test, classes]
    assert found_in(bench("eval", *checkpoint, "--strict").problems) == [test, classes]
    # other videos need no training list, but the names of the classes
    (root / "other.txt").write_text("4.mp4 1\n")
    other = ("--val-list", root / "other.txt", "--class-names", root / "names.txt")
    evaluated = json.loads(bench("eval", *checkpoint, "--dataset", "list", *other).out)
    told = [FOOTNOTES["own"], *notes_of_weights(row)]
    assert (evaluated["evaluated"], evaluated["listed"], sorted(evaluated["footnotes"])) == (1, 1, sorted(told))


def test_another_list_is_another_cell(root: Path) -> None:
    given = {"datasets": "list", "data_root": root, "train_list": root / "train.csv", "val_list": root / "val.csv"}
    first = cell(**given)
    assert first.data.train_list == root / "train.csv"
    assert first.sources.keys() == {"train list", "val list"}
    file = root / "val.csv"
    file.write_text(file.read_text() + "1.mp4,bright\n")
    os.utime(file, ns=(1, 1))
    second = cell(**given)
    assert second.key != first.key
    assert second.model_copy(update={"sources": first.sources}) == first
    (root / "names.txt").write_text("bright\ndark\n")
    counted = cell(**given, labels_from=1)
    assert (counted.data.labels_from, counted.sources) == (1, second.sources) and counted.key != second.key
    assert cell(**given, class_names=root / "names.txt").sources.keys() == {"train list", "val list", "class names"}


def test_lists_that_are_found_count_as_those_that_are_given(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}_video_list.txt").write_text("a.mp4 1\n")
    expansion = expand(make.matrix(device="cpu", datasets="ssv2", data_root=tmp_path, options={"ratio": 0.5}))
    (found,) = expansion.cells
    assert found.sources.keys() == {"train list", "val list"}
    assert expansion.defaults == (
        f"ssv2 train list = {tmp_path}/train_video_list.txt",
        f"ssv2 val list = {tmp_path}/val_video_list.txt",
        "ssv2 test = its val list",
        "temporal_adapters = 2 for vit on ssv2",
        "scale = 1 for vit on ssv2",
    )
    options = {"ratio": 0.5, "blocks": "all", "temporal_adapters": 2, "tubelet": 1, "scale": 1.0}
    assert (found.options, found.clips, found.crops, found.recipe.epochs) == (options, 1, 3, 50)
    # the user's own go before
    asked = {"temporal_adapters": 1, "scale": 0.25}
    expansion = expand(make.matrix(device="cpu", datasets="ssv2", data_root=tmp_path, options=asked))
    assert {name: expansion.cells[0].options[name] for name in asked} == asked
    assert not any("for vit" in told for told in expansion.defaults)


def test_sampling_and_views_follow_the_backbone(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}_video_list.txt").write_text("a.mp4 1\n")
    asked = {"datasets": "k400,ssv2", "data_root": tmp_path, "device": "cpu"}
    found = expand(Matrix(backbones="vit:tiny,swin:tiny", strategies="joint", **asked)).cells
    assert [(c.dataset, c.backbone, c.frames, c.clips, c.crops, c.recipe.lr) for c in found] == [
        ("k400", "vit:tiny", 8, 3, 1, 3e-4),
        ("k400", "swin:tiny", 32, 4, 3, 1e-4),
        ("ssv2", "vit:tiny", 8, 1, 3, 3e-4),
        ("ssv2", "swin:tiny", 32, 1, 3, 3e-5),
    ]
    assert [c.options["temporal_adapters"] for c in found] == [1, 1, 2, 1]


def problems(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(UserError) as error:
        expand(make.matrix(device="cpu", **changes))
    return error.value.problems


def test_data_sets_that_cannot_be_found_are_told_with_the_other_mistakes(tmp_path: Path) -> None:
    names = [name for name in DATASETS.names() if DATASETS.get(name).needs_source]
    assert {"k400", "ssv2", "folder", "list"} <= set(names) and Motion.name not in names
    nowhere, epochs = problems(datasets="all", recipe={"epochs": -1})
    assert field_of(nowhere) == ", ".join(names) and quotes(epochs, "recipe.epochs is -1", 0)
    assert quotes(nowhere, "data_root (--data-root FOLDER)", "train_list", "val_list")
    train, val = problems(datasets="k400", data_root=tmp_path)
    assert quotes(train, "k400", "--train-list") and quotes(val, "k400", "--val-list")
    (missing,) = problems(datasets="list", train_list=tmp_path / "nosuch.txt")
    assert quotes(missing, f"train_list is '{tmp_path}/nosuch.txt'")


def test_the_flags_of_the_data_are_checked_with_the_others(bench: Command, tmp_path: Path) -> None:
    wrong = ("--fold", "4", "--labels-from", "2", "--test-list", tmp_path / "nosuch", "--epochs", "-1")
    said = bench("run", "--dataset", "ucf101", *wrong)
    assert said.code == 2
    told: tuple[tuple[object, ...], ...] = (
        ("fold is 4", 1, 2, 3),
        ("labels_from is 2", 0, 1),
        ("recipe.epochs is -1", 0),
        (f"test_list is '{tmp_path}/nosuch'",),
    )
    for values in told:
        assert any(quotes(problem, *values) for problem in said.problems), values
