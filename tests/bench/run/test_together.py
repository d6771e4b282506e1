"""Cells that train together: each to the bit as it trains alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from adapters.frozen_pass import FrozenPass
from adapters.heads import Head, HeadConfig, register_head
from bench.data.cache import FrameCache
from bench.data.clips import Clips, Draw, Sample, TestClips, TrainClips
from bench.data.dataset import DATASETS, DataError
from bench.data.decode.base import VideoError
from bench.data.decode_pool import Reading
from bench.plugins import load as load_plugins
from bench.run import training
from bench.run.cell import execute
from bench.run.context import WorkerContext
from bench.run.footnotes import of_sharing
from bench.run.matrix import expand
from bench.run.result import Result
from bench.run.sharing import pass_key
from bench.run.together import Member, execute_together
from bench.spec import Cell, Matrix
from bench.train.checkpoint import Preempted
from bench.train.trainer import Diverged, fit
from tests.bench import make
from tests.bench.conftest import nothing_stays_registered

PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")
CPU = torch.device("cpu")
STEPS = 10  # 40 training videos in batches of 8, 2 epochs
BROKEN = {"train": 3, "val": 4, "test": 5}  # place of a video that cannot be decoded
Told = Callable[[Cell, dict[str, Any]], None]


class _Spoiled(nn.Module):
    """A linear head that goes wrong after some steps of training."""

    def __init__(self, width: int, classes: int, spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)
        self.spoil = spoil
        self.steps = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        return self.spoil(self.linear(x)) if self.steps > 3 else self.linear(x)


def _not_a_number(x: torch.Tensor) -> torch.Tensor:
    return x * float("nan")


def _broken(x: torch.Tensor) -> torch.Tensor:
    raise ZeroDivisionError("this head is broken")


def _large(x: torch.Tensor) -> torch.Tensor:
    if len(x) > 4:
        raise torch.OutOfMemoryError("no room for more than 4 clips")
    return x


def _register(label: str, spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Spoiling(Head):
        name: ClassVar[str] = label
        summary: ClassVar[str] = label
        frozen_backbone = True

        def module(self, backbone: Any, config: HeadConfig) -> nn.Module:
            return _Spoiled(config.width, config.classes, spoil)

    register_head(Spoiling)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with nothing_stays_registered(), pytest.MonkeyPatch.context() as patch:
        load_plugins([PLUGIN])
        DATASETS.get("small")(None).prepare()
        for label, spoil in (("diverging", _not_a_number), ("failing", _broken), ("large", _large)):
            _register(label, spoil)
        # a line of the log a step
        patch.setattr(training, "fit", partial(fit, interval_seconds=0.0))
        yield


@pytest.fixture(scope="module")
def broken() -> Iterator[None]:
    """A video of each list that cannot be decoded."""
    dataset = DATASETS.get("small")(None)
    gone = {dataset.videos(split)[place].path for split, place in BROKEN.items()}  # type: ignore[index]
    with pytest.MonkeyPatch.context() as patch:
        for kind in (TrainClips, TestClips):
            read: Callable[[Clips[Any], Draw], Sample] = kind.read

            def reading(clips: Any, draw: Draw, read: Any = read) -> Sample:
                if draw.video.path in gone:
                    raise VideoError(draw.video.path, "it is gone")
                return read(clips, draw)  # type: ignore[no-any-return]

            patch.setattr(kind, "read", reading)
        yield


def _cell(strategy: str = "frozen", head: str = "linear", *, order: bool = True, **changes: Any) -> Cell:
    options = {"layers": changes.pop("layers")} if "layers" in changes else {}
    matrix = Matrix(
        backbones=("vit:tiny@none",),
        strategies=(strategy,),
        heads=(head,),
        datasets=("small",),
        recipe={"epochs": 2, "batch_size": 8, "lr": 1e-3, "head_lr": 1e-3, **changes},
        frames=(4,),
        order_test=order,
    )
    cell = expand(matrix).cells[0]
    own = {"depth": 2, "heads": 4} if head == "attentive" else {}
    return cell.model_copy(
        update={"options": {**cell.options, **options}, "head_options": {**cell.head_options, **own}}
    )


def _context(processes: int = 0, strict: bool = False) -> WorkerContext:
    """As a new worker has it."""
    reading = Reading(processes, processes, strict=strict)
    return WorkerContext(CPU, reading, "bench run", FrameCache(), checkpoint_minutes=1e9)


def _measured(cell: Cell) -> Any:
    batch = cell.recipe.batch_size
    return make.measured(batch_size=batch, micro_batch=batch, busy_cores=0.0)


def _alone(cell: Cell, folder: Path, context: WorkerContext | None = None, report: Any = lambda event: None) -> Result:
    folder.mkdir(exist_ok=True)
    context = context or _context()
    with context.cleanup:
        return execute(cell, context, measured=_measured(cell), folder=folder, report=report)


def _together(
    cells: dict[str, Cell], root: Path, context: WorkerContext | None = None, report: Told = lambda cell, event: None
) -> dict[str, Result | Exception]:
    members = []
    for name, cell in cells.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        members.append(Member(cell, root / name, _measured(cell)))
    found = dict(execute_together(members, context or _context(), report))
    assert len(found) == len(cells)
    return {name: found[cell] for name, cell in cells.items()}


_TIMES = {"seconds", "interval_seconds", "clips_per_s", "loader_wait"}


def _log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in _TIMES} for line in lines]


def _same(found: Result | Exception, folder: Path, alone: Result, alone_folder: Path, others: int) -> None:
    """Assert that a cell's numbers are those that it has alone."""
    assert isinstance(found, Result), found
    assert found.metrics == alone.metrics
    assert found.skipped == alone.skipped
    assert found.provenance.micro_batch == alone.provenance.micro_batch
    assert found.provenance.weights_sha256 == alone.provenance.weights_sha256
    assert found.provenance.shared_pass == others + 1
    assert set(found.footnotes) == {*alone.footnotes, *of_sharing(others + 1)}
    assert _log(folder) == _log(alone_folder)
    assert [line["step"] for line in _log(folder) if "loss" in line] == list(range(1, STEPS + 1))
    trained, expected = (load_file(each / "adapter.safetensors") for each in (folder, alone_folder))
    assert trained.keys() == expected.keys() and expected
    assert all(trained[name].equal(expected[name]) for name in expected)
    with np.load(folder / "predictions.npz") as ours, np.load(alone_folder / "predictions.npz") as theirs:
        assert set(ours) == set(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


GROUP: dict[str, dict[str, Any]] = {
    "linear": {},
    "other rates": {"head_lr": 3e-2, "weight_decay": 0.5, "dropout": 0.1},
    "attentive": {"head": "attentive"},
    "evl": {"strategy": "evl", "layers": 1},
    "deeper evl": {"strategy": "evl", "layers": 3, "lr": 3e-3},
    "diverging": {"head": "diverging"},
    "failing": {"head": "failing"},
    "large": {"head": "large"},
}


def test_cells_train_from_one_pass_as_each_does_alone(
    broken: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = {name: _cell(**changes) for name, changes in GROUP.items()}
    assert len({pass_key(cell) for cell in cells.values()}) == 1
    passes: list[int] = []
    compute = FrozenPass.__call__

    def counting(frozen: FrozenPass, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        passes.append(len(clips))
        return compute(frozen, clips)

    steady = {name: cell for name, cell in cells.items() if name not in ("diverging", "failing", "large")}
    with monkeypatch.context() as patch:
        patch.setattr(FrozenPass, "__call__", counting)
        found = _together(steady, tmp_path / "steady")
    # 9 of 10 validation videos and 19 of 20 test videos, these in three orders of their frames
    batches = [8] * STEPS + [7, 2] + [7, 8, 4] * 3
    assert sorted(passes) == sorted(batches)

    expected = {name: (_alone(cell, tmp_path / name), tmp_path / name) for name, cell in steady.items()}
    for name in steady:
        _same(found[name], tmp_path / "steady" / name, *expected[name], others=len(steady) - 1)

    found = _together(cells, tmp_path / "all")
    assert isinstance(found["diverging"], Diverged)
    assert isinstance(found["failing"], ZeroDivisionError)
    expected["large"] = _alone(cells["large"], tmp_path / "large"), tmp_path / "large"
    for name in expected:
        _same(found[name], tmp_path / "all" / name, *expected[name], others=len(cells) - 1)
    assert isinstance(found["large"], Result) and (found["large"].provenance.micro_batch or 8) < 8


@pytest.mark.parametrize(
    ("recipe", "processes"),
    [
        ({"mixup": 0.8, "cutmix": 1.0, "erase": 0.5, "colour": 0.4, "augment_on": "device", "time_init": 0.3}, 0),
        ({"rand_augment": (2, 9)}, 2),
    ],
    ids=["mixed", "decoded"],
)
def test_cells_share_what_is_drawn_for_their_clips(recipe: dict[str, Any], processes: int, tmp_path: Path) -> None:
    cells = {
        "linear": _cell(order=False, **recipe),
        "evl": _cell("evl", layers=2, order=False, **recipe),
    }
    found = _together(cells, tmp_path / "together", _context(processes))
    for name, cell in cells.items():
        alone = _alone(cell, tmp_path / name, _context(processes))
        _same(found[name], tmp_path / "together" / name, alone, tmp_path / name, others=1)


def test_cells_that_stopped_at_different_steps_catch_up_and_go_on(tmp_path: Path) -> None:
    cells = {
        "linear": _cell(order=False),
        "attentive": _cell(head="attentive", order=False),
        "evl": _cell("evl", layers=1, order=False),
    }
    root = tmp_path / "together"
    root.mkdir()
    context = _context()

    def stop_at(step: int, event: dict[str, Any]) -> None:
        if event["stage"] == "training" and event["done"] >= step / STEPS:
            context.stopping.set()

    with pytest.raises(Preempted):
        _alone(cells["attentive"], root / "attentive", context, partial(stop_at, 6))
    # the others stop before they have caught up
    context = _context()
    stopped = _together(
        cells, root, context, lambda cell, event: stop_at(2, event) if cell == cells["linear"] else None
    )
    assert all(isinstance(outcome, Preempted) for outcome in stopped.values())
    steps = {name: json.loads((root / name / "checkpoint" / "checkpoint.json").read_text())["step"] for name in cells}
    assert steps == {"linear": 3, "attentive": 8, "evl": 2}

    found = _together(cells, root)
    for name, cell in cells.items():
        alone = _alone(cell, tmp_path / name)
        _same(found[name], root / name, alone, tmp_path / name, others=2)
        assert len(found[name].provenance.attempts) > 1  # type: ignore[union-attr]


def test_a_broken_video_ends_all_cells_where_none_is_allowed(broken: None, tmp_path: Path) -> None:
    cells = {"linear": _cell(), "evl": _cell("evl", layers=1)}
    found = _together(cells, tmp_path, _context(strict=True))
    assert all(isinstance(outcome, DataError) for outcome in found.values())


def test_where_memory_is_short_each_cell_computes_its_own_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {"linear": _cell(order=False), "attentive": _cell(head="attentive", order=False)}
    compute, calls = FrozenPass.__call__, []

    def full(frozen: FrozenPass, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(len(clips))
        if len(calls) > 2:
            raise torch.OutOfMemoryError("no room for states")
        return compute(frozen, clips)

    with monkeypatch.context() as patch:
        patch.setattr(FrozenPass, "__call__", full)
        found = _together(cells, tmp_path / "together")
    assert len(calls) == 3
    for name, cell in cells.items():
        alone = _alone(cell, tmp_path / name)
        (note,) = set(found[name].footnotes) - {*alone.footnotes, *of_sharing(2)}  # type: ignore[union-attr]
        assert "memory" in note
        outcome = found[name].model_copy(update={"footnotes": (*alone.footnotes, *of_sharing(2))})  # type: ignore[union-attr]
        _same(outcome, tmp_path / "together" / name, alone, tmp_path / name, others=1)


def test_cells_end_with_whoever_iterates_over_them(tmp_path: Path) -> None:
    cells = {"failing": _cell(head="failing"), "linear": _cell()}
    members = []
    for name, cell in cells.items():
        (tmp_path / name).mkdir()
        members.append(Member(cell, tmp_path / name, _measured(cell)))
    outcomes = execute_together(members, _context(), lambda cell, event: None)
    cell, error = next(outcomes)
    assert cell == cells["failing"] and isinstance(error, ZeroDivisionError)
    outcomes.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "linear" / "predictions.npz").exists()


def test_cells_without_a_common_pass_are_refused(tmp_path: Path) -> None:
    for others in ({"strategy": "joint"}, {"batch_size": 4}):
        members = [Member(_cell(), tmp_path), Member(_cell(**others), tmp_path)]
        with pytest.raises(ValueError, match="in common"):
            list(execute_together(members, _context(), lambda cell, event: None))
