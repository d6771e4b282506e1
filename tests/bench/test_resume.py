"""A training that is stopped or killed goes on from its checkpoint, and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.data.cache import FrameCache
from bench.data.dataset import DATASETS
from bench.data.decode_pool import Reading
from bench.plugins import load as load_plugins
from bench.run.cell import execute
from bench.run.context import WorkerContext
from bench.run.matrix import expand
from bench.run.result import Result
from bench.spec import Cell, Matrix
from bench.train.checkpoint import CheckpointFolder, Preempted
from bench.train.trainer import Trainer
from tests.bench import make
from tests.bench.command import Wording, quotes
from tests.bench.conftest import nothing_stays_registered

PLUGIN = str(Path(__file__).parent / "plugins" / "small.py")
CPU = torch.device("cpu")
STEPS = 10  # 40 training videos in batches of 8, 2 epochs
# recipes that draw from every generator there is, and clips that this process or others decode
VARIANTS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 0),
    "mixed": ({"mixup": 0.8, "cutmix": 1.0, "dropout": 0.5, "drop_path": 0.3}, 0),
    "augmented": ({"colour": 0.4, "rand_augment": (2, 9), "erase": 0.5, "augment_on": "device"}, 0),
    "decoded": ({"drop_path": 0.3, "dropout": 0.5}, 2),
}


class _Killed(Exception):
    """Stands for a process that is gone."""


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with nothing_stays_registered():
        load_plugins([PLUGIN])
        DATASETS.get("small")(None).prepare()
        yield


def _cell(recipe: dict[str, Any]) -> Cell:
    asked = {"epochs": 2, "batch_size": 8, "lr": 1e-3, "head_lr": 1e-3, "time_init": 0.3, **recipe}
    matrix = Matrix(
        backbones=("vit:tiny@none",),
        strategies=("joint",),
        datasets=("small",),
        recipe=asked,
        frames=(4,),
        order_test=False,
    )
    return expand(matrix).cells[0]


def _context(processes: int = 0) -> WorkerContext:
    """As a new worker has it."""
    return WorkerContext(CPU, Reading(processes, processes), "bench run", FrameCache(), checkpoint_minutes=1e9)


def _train(cell: Cell, folder: Path, context: WorkerContext) -> Result:
    folder.mkdir(exist_ok=True)
    batch = cell.recipe.batch_size
    measured = make.measured(batch_size=batch, micro_batch=batch, busy_cores=0.0)
    with context.cleanup:
        return execute(cell, context, measured=measured, folder=folder)


def _lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "predictions.npz"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Result]]:
    found: dict[str, tuple[Path, Result]] = {}

    def of(variant: str) -> tuple[Path, Result]:
        if variant not in found:
            recipe, processes = VARIANTS[variant]
            folder = tmp_path_factory.mktemp(variant)
            found[variant] = folder, _train(_cell(recipe), folder, _context(processes))
        return found[variant]

    return of


def _as_uninterrupted(folder: Path, result: Result, expected: tuple[Path, Result]) -> None:
    there, once = expected
    assert result.status == "done" and result.metrics == once.metrics
    for name, array in _arrays(there).items():
        assert np.array_equal(_arrays(folder)[name], array), name
    trained, again = (load_file(each / "adapter.safetensors") for each in (there, folder))
    assert trained.keys() == again.keys() and all(torch.equal(trained[name], again[name]) for name in trained)
    # the log has each step once: its intervals end where the clock or a checkpoint had them end
    steps = [line["step"] for line in _lines(folder) if "step" in line]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS
    assert [line["val_top1"] for line in _lines(folder) if "val_top1" in line] == [
        line["val_top1"] for line in _lines(there) if "val_top1" in line
    ]
    ends = [i for i, line in enumerate(_lines(folder)) if line.get("step") in (STEPS / 2, STEPS)]
    assert [_lines(folder)[i]["epoch"] for i in ends] == [1.0, 2.0]


@contextlib.contextmanager
def _killed_after(step: int, kept: int, context: WorkerContext) -> Iterator[None]:
    """Kill the training after a step, its last checkpoint in the middle of an epoch written after `kept` steps."""
    step_of_trainer, due = Trainer.step, CheckpointFolder.due
    done = 0

    def counted(self: Trainer, *batch: Any) -> Any:
        nonlocal done
        if done == step:
            raise _Killed
        done += 1
        return step_of_trainer(self, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", counted)
        patch.setattr(CheckpointFolder, "due", property(lambda self: done == kept))
        yield
    assert CheckpointFolder.due is due


_CHANCE = random.Random(0)
KILLS = [
    (variant, step := _CHANCE.randrange(1, STEPS), _CHANCE.randrange(0, step + 1))
    for variant in VARIANTS
    for _ in range(5)
]


@pytest.mark.parametrize(("variant", "step", "kept"), KILLS)
def test_a_killed_training_ends_in_the_same_predictions(
    variant: str, step: int, kept: int, uninterrupted: Callable[[str], tuple[Path, Result]], tmp_path: Path
) -> None:
    recipe, processes = VARIANTS[variant]
    cell = _cell(recipe)
    context = _context(processes)
    with _killed_after(step, kept, context), pytest.raises(_Killed):
        _train(cell, tmp_path, context)
    begins = max(kept, STEPS // 2 * (step // (STEPS // 2)))
    assert (tmp_path / "checkpoint" / "checkpoint.json").exists() == (begins > 0)
    torch.manual_seed(99)
    with pytest.MonkeyPatch.context() as patch:
        again = []
        plain = Trainer.step
        patch.setattr(Trainer, "step", lambda self, *batch: (again.append(1), plain(self, *batch))[1])
        result = _train(cell, tmp_path, _context(processes))
    assert len(again) == STEPS - begins  # no step is done again that the checkpoint holds
    assert len(result.provenance.attempts) == (2 if begins else 0)
    _as_uninterrupted(tmp_path, result, uninterrupted(variant))


def test_a_training_that_is_asked_to_stop_does_so_after_its_step(
    uninterrupted: Callable[[str], tuple[Path, Result]], tmp_path: Path
) -> None:
    cell, context = _cell(VARIANTS["mixed"][0]), _context()
    with pytest.MonkeyPatch.context() as patch:
        plain, done = Trainer.step, []

        def stopping(self: Trainer, *batch: Any) -> Any:
            done.append(1)
            if len(done) == 7:
                context.stopping.set()
            return plain(self, *batch)

        patch.setattr(Trainer, "step", stopping)
        with pytest.raises(Preempted):
            _train(cell, tmp_path, context)
    assert len(done) == 7
    assert json.loads((tmp_path / "checkpoint" / "checkpoint.json").read_text())["step"] == 7
    result = _train(cell, tmp_path, _context())
    first, second = result.provenance.attempts
    assert result.provenance.wall_seconds == pytest.approx(first.seconds + second.seconds)
    assert first.seconds > 0 and second.seconds > 0
    _as_uninterrupted(tmp_path, result, uninterrupted("mixed"))


def _spoil(folder: Path, how: str) -> None:
    manifest = folder / "checkpoint.json"
    (state,) = folder.glob("state-*.pt")
    content = state.read_bytes()
    if how == "a byte changed":
        state.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    elif how == "cut off":
        state.write_bytes(content[: len(content) // 2])
    elif how == "state gone":
        state.unlink()
    elif how == "no JSON":
        manifest.write_text("{")
    elif how == "another cell":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "cell": "0123456789"}))
    elif how == "other weights":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "weights_sha256": "00"}))
    elif how == "a later format":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))


@pytest.mark.parametrize(
    "how", ["a byte changed", "cut off", "state gone", "no JSON", "another cell", "other weights", "a later format"]
)
def test_a_damaged_or_foreign_checkpoint_is_told_and_not_used(
    how: str, uninterrupted: Callable[[str], tuple[Path, Result]], tmp_path: Path, wording: Wording
) -> None:
    cell, context = _cell({}), _context()
    with _killed_after(6, 5, context), pytest.raises(_Killed):
        _train(cell, tmp_path, context)
    _spoil(tmp_path / "checkpoint", how)
    result = _train(cell, tmp_path, _context())
    notes = {note.partition(":")[0] for note in result.footnotes if quotes(note, "checkpoint")}
    wording(sorted(notes))  # what follows may be the words of json or of safetensors
    assert result.provenance.attempts == ()
    _as_uninterrupted(tmp_path, result, uninterrupted("plain"))


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(
    uninterrupted: Callable[[str], tuple[Path, Result]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.train.checkpoint.write_atomically", full)
    result = _train(_cell({}), tmp_path, _context())
    assert [note for note in result.footnotes if "No space left on device" in note]
    _as_uninterrupted(tmp_path, result, uninterrupted("plain"))


def test_a_disk_that_is_full_is_told_as_such_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = CheckpointFolder(tmp_path / "checkpoint", {}, 1.0)
    checkpoints.write({"steps": 1}, 1)
    before = sorted(checkpoints.folder.iterdir())

    def fails(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 192 vs 80")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="unexpected pos"):
        checkpoints.write({"steps": 2}, 2)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=f"^{os.strerror(errno.ENOSPC)}$"):
        checkpoints.write({"steps": 2}, 2)
    assert sorted(checkpoints.folder.iterdir()) == before
