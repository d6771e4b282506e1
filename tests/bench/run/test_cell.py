"""A cell from its data to its files, for every family and strategy, in this process."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from adapters.base import STRATEGIES
from adapters.block import AdaptedBlock
from adapters.blockwise import BlockwiseStrategy
from backbones.kernels.switch import is_fast
from bench.data.cache import FrameCache
from bench.data.dataset import DATASETS
from bench.data.decode_pool import Reading
from bench.measure.model import measure
from bench.plugins import load as load_plugins
from bench.run import evaluation
from bench.run.build import classifier
from bench.run.cell import execute
from bench.run.columns import COLUMNS, row, to_csv
from bench.run.context import WorkerContext
from bench.run.engines.base import Job
from bench.run.engines.jobs import JobFile
from bench.run.engines.local import Setup
from bench.run.loaders import Loaders
from bench.run.matrix import expand
from bench.run.repeatable import make_repeatable
from bench.run.result import Result
from bench.run.start import _unusable_backbones
from bench.spec import Cell, EvaluationRequest, Matrix
from bench.version import commit
from tests.bench import make
from tests.bench.command import quotes
from tests.bench.conftest import nothing_stays_registered
from tests.bench.data.cache.conftest import make_store
from tests.bench.plugins.hasty import measure_in_haste
from tests.models import FAMILIES, NAMES

CPU = torch.device("cpu")
SETUP = Setup("cpu", (), Reading(), "bench run", Path())
ROOT = Path(__file__).parents[3]
PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    with pytest.MonkeyPatch.context() as patch, nothing_stays_registered():
        load_plugins([PLUGIN])
        DATASETS.get("small")(None).prepare()
        measure_in_haste(patch.setattr)
        yield WorkerContext(CPU, Reading(), "bench run", FrameCache(make_store(tmp_path_factory.mktemp("cache"))))


def _cell(backbone: str, strategy: str, **changes: object) -> Cell:
    """Of a tiny backbone with random weights."""
    name = f"{backbone}:tiny@none"
    return expand(Matrix(backbones=(name,), strategies=(strategy,), datasets=("small",), **changes)).cells[0]


def _run(cell: Cell, folder: Path, context: WorkerContext) -> Result:
    classes = len(context.dataset(cell).classes)
    make_repeatable(cell.seed)
    measured = measure(classifier(cell, classes), cell.recipe, CPU, cell.precision)
    return execute(cell, context, measured=measured, folder=folder)


def evaluate(request: EvaluationRequest) -> Result:
    return evaluation.execute(request, evaluation.plan(request), "bench eval", lambda *_: None, lambda *_: None)


def _train(cell: Cell, folder: Path, context: WorkerContext) -> Result:
    """As `_run`, with measurements that were made up: they take longer than such a training."""
    folder.mkdir(exist_ok=True)
    batch = cell.recipe.batch_size
    measured = make.measured(batch_size=batch, micro_batch=batch, busy_cores=0.0)
    return execute(cell, context, measured=measured, folder=folder)


Finished: TypeAlias = Callable[[str, str], tuple[Result, Path]]  # its files lie in the folder


@pytest.fixture(scope="module")
def finished(context: WorkerContext, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished cell by its family and strategy: each is run once for all tests, which only read what it left."""

    @functools.cache
    def once(family: str, strategy: str) -> tuple[Result, Path]:
        folder = tmp_path_factory.mktemp("cell")
        return _run(_cell(family, strategy), folder, context), folder

    return once


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", NAMES)
def test_a_cell_leaves_what_a_reviewer_needs(family: str, strategy: str, finished: Finished, context) -> None:
    result, folder = finished(family, strategy)
    cell = result.cell
    assert cell == _cell(family, strategy)

    assert result.status == "done"
    assert result.provenance.weights_sha256
    assert result.provenance.dataset_fingerprint == context.dataset(cell).fingerprint()
    assert result.provenance.decoders == ("decord",)
    assert result.provenance.batch_size == result.provenance.micro_batch == 8
    assert result.provenance.wall_seconds > 0
    assert any(quotes(note, "@none") for note in result.footnotes)
    beyond = [note for note in result.footnotes if "AIM's released code" in note]
    assert len(beyond) == (family == "swin" and strategy in ("spatial", "temporal", "joint"))
    assert all(quotes(note, "bias") == (strategy != "spatial") for note in beyond)
    assert result.metrics.evaluated == result.metrics.listed == 20
    assert result.metrics.protocol == "8x1x1"

    predictions = np.load(folder / "predictions.npz")
    assert predictions["probabilities"].shape == (20, 10)
    assert predictions["probabilities"].sum(1) == pytest.approx(1, abs=1e-4)
    names = [video.name for video in context.dataset(cell).videos("test")]
    assert predictions["names"].tolist() == names
    right = (predictions["probabilities"].argmax(1) == predictions["labels"]).mean()
    assert result.metrics.top1 == pytest.approx(100 * right)
    if strategy in ("frozen", "full", "spatial"):
        assert result.metrics.top1_reversed == result.metrics.top1_shuffled == result.metrics.top1

    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"loss", "lr", "clips_per_s", "train_top1", "interval_seconds", "loader_wait"} <= lines[0].keys()
    assert lines[-1]["val_top1"] == pytest.approx(result.metrics.val_top1)

    # the frozen parameters are bit for bit what they were, the trained ones are in the file and have moved
    start = dict(classifier(cell, 10).named_parameters())
    saved = load_file(folder / "adapter.safetensors")
    assert saved.keys() == {name for name, p in start.items() if p.requires_grad}
    unmoved = [name for name, value in saved.items() if torch.equal(value, start[name].detach())]
    assert all("bias_table" in name or "time.bias" in name for name in unmoved), unmoved
    with safe_open(folder / "adapter.safetensors", "pt") as file:
        assert file.metadata()["weights_sha256"] == result.provenance.weights_sha256


def test_what_was_assumed_of_the_weights_is_a_footnote(tmp_path: Path, context, assumption: str) -> None:
    assert assumption in _train(_cell("vit", "frozen", order_test=False), tmp_path, context).footnotes


def test_what_a_killed_run_left_is_cleared_and_what_another_process_writes_is_not(tmp_path: Path, context) -> None:
    for name in (".log.jsonl.7-a.tmp", ".job.json.7-a.tmp"):
        (tmp_path / name).touch()
    _train(_cell("vit", "frozen", order_test=False), tmp_path, context)
    assert [file.name for file in tmp_path.glob(".*.tmp")] == [".job.json.7-a.tmp"]
    JobFile(tmp_path, "local").clear()
    assert list(tmp_path.glob(".*.tmp")) == []


def test_what_was_assumed_of_weights_from_outside_is_told_before_anything_runs(tmp_path: Path, assumption: str) -> None:
    state = classifier(_cell("vit", "frozen"), 2).backbone.model.state_dict()
    torch.save(state, tmp_path / "w.pt")
    cells = [_cell("vit", "frozen").model_copy(update={"weights": str(tmp_path / "w.pt")})]
    said: list[str] = []
    listener: Any = SimpleNamespace(noted=said.append, preparing=lambda *_: None)
    assert _unusable_backbones(cells, listener) == []
    assert said == [assumption]


def test_a_swin_that_trains_as_released_has_no_footnote_and_keeps_its_frozen_table(tmp_path: Path, context) -> None:
    cell = _cell("swin", "joint", order_test=False, options={"released_freezing": True})
    result = _train(cell, tmp_path, context)
    assert not [note for note in result.footnotes if "AIM's released code" in note]
    start, saved = dict(classifier(cell, 10).named_parameters()), load_file(tmp_path / "adapter.safetensors")
    unmoved = {name for name, value in saved.items() if torch.equal(value, start[name].detach())}
    assert unmoved == {name for name in start if name.endswith("time.bias.table")} and len(unmoved) == 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", ["full", "joint"])
def test_the_same_cell_gives_the_same_predictions(
    family: str, strategy: str, tmp_path: Path, finished: Finished, context
) -> None:
    folders = (finished(family, strategy)[1], tmp_path)
    torch.rand(7)  # what ran in between must not matter
    _run(_cell(family, strategy), tmp_path, context)
    found = [np.load(folder / "predictions.npz") for folder in folders]
    for array in found[0].files:
        assert np.array_equal(found[0][array], found[1][array]), array


def test_what_ran_before_in_the_process_changes_no_bit(tmp_path: Path, context) -> None:
    """Kernels that were chosen, numbers that were drawn, frames that were kept: none of it may reach the next cell."""
    cells = [_cell("vit", strategy, order_test=False) for strategy in NAMES]
    cells.append(_cell("vit", "joint", order_test=False, recipe={"drop_path": 0.3, "dropout": 0.5}))
    every = range(len(cells))
    for turn, order in (("one", every), ("two", [*every[1::2], *every[::2]])):  # another cell before each of them
        (tmp_path / turn).mkdir()
        for index in order:
            _train(cells[index], tmp_path / turn / str(index), context)
    for index, cell in enumerate(cells):
        one, two = (tmp_path / turn / str(index) for turn in ("one", "two"))
        for first, second in (
            (np.load(one / "predictions.npz"), np.load(two / "predictions.npz")),
            (load_file(one / "adapter.safetensors"), load_file(two / "adapter.safetensors")),
        ):
            assert set(first) == set(second)
            for name in first:
                assert np.array_equal(first[name], second[name]), (cell.label, name)
    # drop path and dropout did something
    joint = NAMES.index("joint")
    plain, regular = (np.load(tmp_path / "one" / str(index) / "predictions.npz") for index in (joint, len(NAMES)))
    assert not np.array_equal(plain["probabilities"], regular["probabilities"])


def test_augmentation_beside_decoding_and_on_the_device_train_alike(tmp_path: Path, context) -> None:
    strong = {"colour": 0.5, "pca_noise": 0.1, "rand_augment": [4, 7], "erase": 0.5, "mixup": 0.8, "cutmix": 1.0}
    recipes = ({}, strong, {**strong, "augment_on": "device"})
    plain, early, late = (_cell("vit", "joint", order_test=False, recipe=recipe) for recipe in recipes)
    found = []
    for index, cell in enumerate((plain, early, late)):
        _train(cell, tmp_path / str(index), context)
        found.append(np.load(tmp_path / str(index) / "predictions.npz")["probabilities"])
    assert np.array_equal(found[1], found[2]) and not np.array_equal(found[0], found[1])


def test_what_a_recipe_asks_for_reaches_the_batches(context) -> None:
    def batches(epoch: int, **recipe: object) -> list[tuple[torch.Tensor, torch.Tensor]]:
        cell = _cell("vit", "joint", recipe=recipe)
        loaders = Loaders(cell, context.dataset(cell), 32, (1.0, 0.0, 1.0), context)
        return list(loaders.training(epoch))

    for (clips, labels), (erased, same) in zip(batches(1), batches(1, erase=1.0), strict=True):
        changed = (clips != erased).any(dim=2)  # each clip's box, in the backbone's mean
        assert changed.flatten(1).any(1).all() and torch.equal(labels, same)
        assert (erased.movedim(2, -1)[changed] == torch.tensor([255, 0, 255])).all()
    for (clips, _), (noisy, _) in zip(batches(1), batches(1, pca_noise=0.1), strict=True):
        inside = (clips > 30) & (clips < 225)  # nothing is cut off at black and white
        for clip, moved, there in zip(clips.int(), noisy.int(), inside, strict=True):
            for colour in range(3):
                assert len((moved - clip)[:, colour][there[:, colour]].unique()) == 1
        assert not torch.equal(clips, noisy)
    for (clips, labels), (mixed, shares) in zip(batches(1), batches(1, mixup=1.0), strict=True):
        neighbours = torch.nn.functional.one_hot(labels.roll(1), 10)
        own = torch.nn.functional.one_hot(labels, 10)
        share = float((shares[0] - neighbours[0]) @ (own[0] - neighbours[0]).float()) / 2
        torch.testing.assert_close(shares, share * own + (1 - share) * neighbours)
        exact = share * clips.double() + (1 - share) * clips.roll(1, 0).double()
        assert (mixed - exact).abs().max() <= 0.51
    draws = [shares.max(1).values.min().item() for epoch in (0, 1) for _, shares in batches(epoch, mixup=1.0)]
    assert len(set(draws)) == len(draws) > 2  # each epoch and each step has its own


def test_a_decoder_that_was_asked_for_is_told(tmp_path: Path, context) -> None:
    result = _train(_cell("vit", "frozen", decoder="pyav"), tmp_path, context)
    assert result.provenance.decoders == ("pyav",) and any(quotes(note, "pyav") for note in result.footnotes)


def test_another_seed_gives_other_predictions(tmp_path: Path, finished: Finished, context) -> None:
    _run(_cell("vit", "joint", seeds=(1,)), tmp_path, context)
    found = [np.load(folder / "predictions.npz")["probabilities"] for folder in (finished("vit", "joint")[1], tmp_path)]
    assert not np.array_equal(found[0], found[1])


def test_a_video_that_cannot_be_read_is_counted_and_named(tmp_path: Path, context, monkeypatch) -> None:
    cell = _cell("vit", "frozen")
    dataset = context.dataset(cell)
    listed = {split: dataset.videos(split) for split in ("train", "val", "test")}
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    first = listed["test"][0]
    listed["test"] = (type(first)(broken, first.label, "broken.mp4"), *listed["test"][1:])
    monkeypatch.setattr(dataset, "videos", lambda split: listed[split])
    result = _run(cell, tmp_path, context)
    assert (result.metrics.evaluated, result.metrics.listed) == (19, 20)
    assert any(quotes(note, 1, 20, "test", 19, "broken.mp4") for note in result.footnotes)


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path: Path, context) -> None:
    left = tmp_path / ".predictions.npz.abc.tmp"
    left.write_bytes(b"half")
    _run(_cell("vit", "frozen"), tmp_path, context)
    assert not left.exists()


def test_a_training_set_that_is_smaller_than_the_batch_is_told(tmp_path: Path, context) -> None:
    result = _train(_cell("vit", "frozen", recipe={"batch_size": 64}), tmp_path, context)
    assert len(context.dataset(result.cell).videos("train")) == 40
    assert result.cell.recipe.batch_size == 64
    assert (result.provenance.batch_size, result.provenance.micro_batch) == (40, 40)
    assert any(quotes(note, 40, 40, 64) for note in result.footnotes)
    assert not [note for note in result.footnotes if "memory" in note]
    assert to_csv([result]).splitlines()[1].split(",")[COLUMNS.index("batch_size")] == "40"


def test_a_smaller_batch_is_compiled_too_and_measuring_without_is_told(tmp_path: Path, context, monkeypatch) -> None:
    shapes = []

    def compiler(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        shapes.append({len(tensor) for tensor in inputs if tensor.ndim == 5})
        return graph.forward

    monkeypatch.setattr("bench.train.compute._BACKEND", compiler)
    cell = _cell("vit", "frozen", order_test=False, compile=True, recipe={"batch_size": 64, "epochs": 1})
    result = _train(cell, tmp_path, context)
    assert any(quotes(note, "compiling") for note in result.footnotes)
    assert {40} in shapes


def test_frames_that_were_jpeg_pictures_are_footnoted(tmp_path: Path, context) -> None:
    jpeg = replace(context, cache=FrameCache(make_store(tmp_path / "cache", format="jpeg")))
    result = _train(_cell("vit", "frozen", order_test=False, cache_format="jpeg"), tmp_path, jpeg)
    assert any(quotes(note, "JPEG", 95) for note in result.footnotes)
    assert jpeg.cache.store is not None and jpeg.cache.store.used_bytes > 0


def test_a_fraction_of_the_training_videos_is_the_same_for_every_strategy_and_sets_the_steps(
    tmp_path: Path, context
) -> None:
    def drawn(strategy: str, fraction: float, **changes: Any) -> tuple[Loaders, set[str]]:
        cell = _cell("vit", strategy, train_fractions=(fraction,), **changes)
        loaders = Loaders(cell, context.dataset(cell), 32, (0.5, 0.5, 0.5), context)
        return loaders, {video.name for video in loaders.drawn.videos}

    (loaders, half), (_, same), (few, tenth), (whole, every) = (
        drawn("frozen", 0.5), drawn("joint", 0.5), drawn("joint", 0.1), drawn("joint", 1.0)
    )  # fmt: skip
    assert half == same > tenth and half < every and drawn("joint", 0.5, seeds=(1,))[1] != half
    assert [each.steps for each in (few, loaders, whole)] == [1, 2, 5]  # of 10, 20 and 40 videos in batches of 8
    assert len(list(loaders.training(0))) == 2 and loaders.listed == whole.listed == 20

    result = _train(_cell("vit", "frozen", order_test=False, train_fractions=(0.1,)), tmp_path, context)
    (note,) = (note for note in result.footnotes if "10 of 40 training videos" in note)
    assert "10 %" in note and "10 classes" in note
    found = row(result)
    assert (found["train_fraction"], found["train_videos"], found["listed"]) == (0.1, 10, 20)
    assert [line["steps"] for line in map(json.loads, (tmp_path / "log.jsonl").open()) if "steps" in line][-1] == 1


def test_the_text_head_is_zero_shot_without_epochs_and_its_file_needs_no_text_tower(
    tmp_path: Path, context, monkeypatch
) -> None:
    def ran(epochs: int, **changes: Any) -> Result:
        cell = _cell("clip", "frozen", heads=("text",), recipe={"epochs": epochs}, **changes)
        return _train(cell, tmp_path / str(epochs), context)

    options = {"templates": "a {}.|the {}."}
    shot, trained = ran(0, options=options), ran(1, options=options)
    assert shot.provenance.head == {
        "name": "text",
        "templates": ["a {}.", "the {}."],
        "classes": list(context.dataset(shot.cell).classes),
    }
    assert shot.metrics.order_aware is False and shot.metrics.top1_reversed == shot.metrics.top1
    (start, moved) = (load_file(tmp_path / f"{epochs}" / "adapter.safetensors") for epochs in (0, 1))
    assert start.keys() == {"head.linear.weight", "head.projection.weight"}
    assert torch.equal(start["head.projection.weight"], moved["head.projection.weight"])
    assert not torch.equal(start["head.linear.weight"], moved["head.linear.weight"])
    assert trained.counted.params - trained.counted.trained_params > 0

    monkeypatch.setattr("backbones.clip_text.CLIPTextTower.load", None)
    for epochs, result in ((0, shot), (1, trained)):
        evaluated = evaluate(EvaluationRequest(checkpoint=str(tmp_path / str(epochs)), device="cpu"))
        assert evaluated.metrics.top1 == result.metrics.top1 and evaluated.provenance.head == {"name": "text"}


@pytest.mark.parametrize("small", [True, False])
def test_a_step_that_waits_for_real_videos_is_footnoted(small: bool, tmp_path: Path, context, monkeypatch) -> None:
    cell = _cell("vit", "frozen", order_test=False, recipe={"epochs": 3})
    monkeypatch.setattr(context.dataset(cell), "small", small, raising=False)
    monkeypatch.setattr("bench.measure.loading._STARVED", 0.0)
    result = _train(cell, tmp_path, context)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    later = [line for line in lines if "clips_per_s" in line][1:]
    assert result.training.train_clips_per_s_loaded == pytest.approx(
        statistics.median(line["clips_per_s"] for line in later), 1e-5
    )
    seconds = sum(line["interval_seconds"] for line in later)
    waited = sum(line["loader_wait"] / 100 * line["interval_seconds"] for line in later)
    assert result.training.loader_wait == pytest.approx(100 * waited / seconds, rel=1e-3)
    told = [note for note in result.footnotes if note.startswith("training waited for its clips")]
    assert len(told) == (not small)


def test_a_cell_that_is_done_says_where_its_numbers_come_from(tmp_path: Path, context) -> None:
    result = _train(_cell("vit", "joint"), tmp_path, context)
    empty = {name for name, value in result.provenance if value in (None, "", (), {})}
    # a package that was installed without its history does not know its commit
    assert empty <= {"attempts", "tuning"} | (set() if (ROOT / ".git").exists() else {"commit", "dirty"})
    assert (result.provenance.commit, result.provenance.dirty) == commit()
    assert result.provenance.pretrained == "none"
    assert {"python", "torch", "timm", "open_clip_torch"} <= result.provenance.versions.keys()
    assert result.provenance.command == "bench run"
    assert result.provenance.threads == 1
    assert result.provenance.wall_seconds >= result.training.train_seconds > 0
    again = Result.model_validate_json(result.model_dump_json())
    assert again == result


class _Connection:
    """Takes what a worker tells its parent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, event: dict[str, Any]) -> None:
        self.sent.append(event)


class _ByChance(nn.Module):
    """A block with an operation of which the device has no deterministic kernel."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.plain = AdaptedBlock(block)

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        strict = not torch.is_deterministic_algorithms_warn_only_enabled()
        if torch.are_deterministic_algorithms_enabled() and strict:
            raise RuntimeError("foo does not have a deterministic implementation, but you set 'torch.use_...'")
        return self.plain(x, frames)


@pytest.fixture
def _chance(monkeypatch: pytest.MonkeyPatch) -> None:
    class Chance(BlockwiseStrategy):
        name = "chance"
        summary = "runs an operation that depends on chance"
        trains = "head"

        def adapt(self, block: Any, *rest: Any) -> nn.Module:
            return _ByChance(block)

    STRATEGIES.names()
    monkeypatch.setitem(STRATEGIES._entries, "chance", Chance())


def test_a_cell_with_plain_kernels_computes_without_ours_and_says_so(tmp_path: Path, context) -> None:
    from bench.run.engines.worker import _run as run_job

    found = {}
    for kernels in ("fast", "plain"):
        cell = _cell("vit", "joint", kernels=kernels)
        folder = tmp_path / kernels
        folder.mkdir()
        measured = run_job(Job("measure", cell, folder, 1, context.cache), SETUP, context, _Connection())[1]["value"]
        assert measured.kernels == kernels
        kind, values = run_job(Job("train", cell, folder, 1, context.cache, measured), SETUP, context, _Connection())
        assert kind == "trained", values
        told = [note for note in values["value"].footnotes if note.startswith("plain kernels")]
        assert len(told) == (kernels == "plain")
        found[kernels] = np.load(folder / "predictions.npz")["probabilities"]
        assert is_fast()
    np.testing.assert_allclose(found["plain"], found["fast"], atol=1e-4)


@pytest.mark.usefixtures("_chance")
def test_an_operation_without_a_deterministic_kernel_is_footnoted(tmp_path: Path, context) -> None:
    from bench.run.engines.worker import _run as run_job

    connection = _Connection()
    cell = _cell("vit", "chance")
    measured = run_job(Job("measure", cell, tmp_path, 1, context.cache), SETUP, context, connection)
    assert measured[0] == "measured", measured
    trained = run_job(Job("train", cell, tmp_path, 1, context.cache, measured[1]["value"]), SETUP, context, connection)
    assert trained[0] == "trained", trained
    result = trained[1]["value"]
    assert result.status == "done"
    assert any(quotes(note, "foo has no deterministic kernel") for note in result.footnotes)  # torch's words
    assert {values["stage"] for _, values in connection.sent} == {"building", "training", "evaluating"}

    # the next cell is held to the bit again
    after = run_job(
        Job("train", _cell("vit", "frozen"), tmp_path, 1, context.cache, make.measured()), SETUP, context, connection
    )[1]["value"]
    assert not [note for note in after.footnotes if quotes(note, "foo")]
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.usefixtures("_chance")
def test_another_error_is_not_taken_for_chance(tmp_path: Path, context, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.run.engines.worker import _run as run_job

    calls = []

    def broken(self: nn.Module, x: torch.Tensor, frames: int) -> torch.Tensor:
        calls.append(frames)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\nmore of it")

    monkeypatch.setattr(_ByChance, "forward", broken)
    kind, event = run_job(
        Job("train", _cell("vit", "chance"), tmp_path, 1, context.cache, make.measured()), SETUP, context, _Connection()
    )
    assert (kind, event["status"]) == ("failed", "failed")
    assert event["error"] == "RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    assert "Traceback" in event["traceback"]
    assert len(calls) == 1
