"""A cell from its data to its files, for every family and strategy, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from bench.build import classifier
from bench.data.base import DATASETS
from bench.data.cache import FrameCache
from bench.matrix import expand
from bench.measure.model import measure
from bench.plugins import load as load_plugins
from bench.result import Result
from bench.runner.job import make_repeatable, train_and_evaluate
from bench.runner.surroundings import Surroundings
from bench.spec import Cell, Matrix
from tests.models import FAMILIES, NAMES

CPU = torch.device("cpu")
PLUGIN = str(Path(__file__).parent / "plugins" / "small.py")


@pytest.fixture(scope="module")
def around(tmp_path_factory) -> Surroundings:
    load_plugins([PLUGIN])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIM_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        DATASETS.get("small")(None).prepare()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield Surroundings(CPU, 0, "bench run", FrameCache(2**28))
        torch.set_num_threads(threads)


def _cell(backbone: str, strategy: str, **changes: object) -> Cell:
    return expand(Matrix(backbones=(backbone,), strategies=(strategy,), datasets=("small",), **changes)).cells[0]


def _run(cell: Cell, folder: Path, around: Surroundings) -> Result:
    classes = len(around.dataset(cell).classes)
    make_repeatable(cell.seed)
    measured = measure(cell, classifier(cell, classes), CPU)
    return train_and_evaluate(cell, measured, folder, around, lambda event: None)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", NAMES)
def test_a_cell_leaves_what_a_reviewer_needs(family: str, strategy: str, tmp_path: Path, around) -> None:
    cell = _cell(family, strategy)
    result = _run(cell, tmp_path, around)

    assert result.status == "done"
    assert result.provenance.weights_sha256
    assert result.provenance.dataset_fingerprint == around.dataset(cell).fingerprint()
    assert result.provenance.decoders == ("decord",)
    assert result.provenance.batch_size == result.provenance.micro_batch == 8
    assert result.provenance.wall_seconds > 0
    assert "random weights (@none), not pretrained" in result.footnotes
    assert result.metrics.evaluated == result.metrics.listed == 20

    predictions = np.load(tmp_path / "predictions.npz")
    assert predictions["probabilities"].shape == (20, 10)
    assert predictions["probabilities"].sum(1) == pytest.approx(1, abs=1e-4)
    names = [video.name for video in around.dataset(cell).videos("test")]
    assert predictions["names"].tolist() == names
    right = (predictions["probabilities"].argmax(1) == predictions["labels"]).mean()
    assert result.metrics.top1 == pytest.approx(100 * right)
    if strategy in ("frozen", "full", "spatial"):
        assert result.metrics.top1_reversed == result.metrics.top1_shuffled == result.metrics.top1

    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"loss", "lr", "clips_per_s", "train_top1"} <= lines[0].keys()
    assert lines[-1]["val_top1"] == pytest.approx(result.metrics.val_top1)

    # the frozen parameters are bit for bit what they were, the trained ones are in the file and have moved
    start = dict(classifier(cell, 10).named_parameters())
    saved = load_file(tmp_path / "adapter.safetensors")
    assert saved.keys() == {name for name, p in start.items() if p.requires_grad}
    unmoved = [name for name, value in saved.items() if torch.equal(value, start[name].detach())]
    assert all("bias_table" in name or "time.bias" in name for name in unmoved), unmoved
    with safe_open(tmp_path / "adapter.safetensors", "pt") as file:
        assert file.metadata()["weights_sha256"] == result.provenance.weights_sha256


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", ["full", "joint"])
def test_the_same_cell_gives_the_same_predictions(family: str, strategy: str, tmp_path: Path, around) -> None:
    cell = _cell(family, strategy)
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        _run(cell, tmp_path / name, around)
        torch.rand(7)  # what ran in between must not matter
        found.append(np.load(tmp_path / name / "predictions.npz"))
    for array in found[0].files:
        assert np.array_equal(found[0][array], found[1][array]), array


def test_another_seed_gives_other_predictions(tmp_path: Path, around) -> None:
    found = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        _run(_cell("vit", "joint", seeds=(seed,)), folder, around)
        found.append(np.load(folder / "predictions.npz")["probabilities"])
    assert not np.array_equal(found[0], found[1])


def test_a_video_that_cannot_be_read_is_counted_and_named(tmp_path: Path, around, monkeypatch) -> None:
    cell = _cell("vit", "frozen")
    dataset = around.dataset(cell)
    listed = {split: dataset.videos(split) for split in ("train", "val", "test")}
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    first = listed["test"][0]
    listed["test"] = (type(first)(broken, first.label, "broken.mp4"), *listed["test"][1:])
    monkeypatch.setattr(dataset, "videos", lambda split: listed[split])
    result = _run(cell, tmp_path, around)
    assert (result.metrics.evaluated, result.metrics.listed) == (19, 20)
    assert any("1 videos could not be read: broken.mp4" in note for note in result.footnotes)


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path: Path, around) -> None:
    left = tmp_path / ".predictions.npz.abc.tmp"
    left.write_bytes(b"half")
    _run(_cell("vit", "frozen"), tmp_path, around)
    assert not left.exists()
