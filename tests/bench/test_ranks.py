"""Cells on several processes: the same numbers as on one, and what is left where one of them ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.data.cache import FrameCache
from bench.data.dataset import DATASETS
from bench.data.decode_pool import Reading
from bench.measure.machine import cores
from bench.measure.placement import Placement
from bench.plugins import load as load_plugins
from bench.run.cell import execute
from bench.run.columns import row
from bench.run.context import WorkerContext
from bench.run.engines.base import Job
from bench.run.engines.local import Setup, slots, too_few_devices
from bench.run.engines.ranks import execute_on_ranks
from bench.run.matrix import expand
from bench.run.result import Result
from bench.spec import Cell, Matrix, Request
from bench.train.checkpoint import Preempted
from bench.train.ranks import RanksFailed
from bench.train.trainer import Trainer
from tests.bench import make
from tests.bench.command import Command
from tests.bench.conftest import nothing_stays_registered

PLUGIN = str(Path(__file__).parent / "plugins" / "small.py")
CPU = torch.device("cpu")
ASKED = {"backbones": ["vit:tiny@none"], "strategies": ["joint"], "device": "cpu"}

# a data set whose test has seven videos that can be read and one, in their midst, that cannot
SEVEN = """
from dataclasses import replace
from bench.data.dataset import DATASETS, register_dataset

@register_dataset("seven")
class Seven(DATASETS.get("small")):
    name = "seven"

    def videos(self, split):
        found = super().videos(split)
        if split != "test":
            return found
        return (*found[:3], replace(found[3], path=found[3].path.with_name("gone.mp4")), *found[4:8])
"""
# the loss of every step to the digit, from rank 0
LOSSES = """
from pathlib import Path
from bench.train.trainer import Trainer

step = Trainer.step

def recorded(self, clips, labels):
    loss, right = step(self, clips, labels)
    if self.ranks.first:
        with Path(__file__).with_name(f"losses-{self.ranks.size}.txt").open("a") as file:
            print(float(loss), file=file)
    return loss, right

Trainer.step = recorded
"""
# rank 1 has room for two clips
MEMORY = """
import torch
import torch.distributed as dist
from bench.train.compute import Computation

call = Computation.__call__

def narrow(self, clips, usual):
    if len(clips) > 2 and dist.is_initialized() and dist.get_rank() == 1:
        raise torch.OutOfMemoryError
    return call(self, clips, usual)

Computation.__call__ = narrow
"""
# what goes wrong on rank 1 after some steps: this file says what, once
FAULT = """
import os, signal
from pathlib import Path
import torch
from bench.run.engines import ranks
from bench.train.trainer import Trainer

ranks._DEFERENCE = 60.0  # the other rank waits for what this one tells
step, file = Trainer.step, Path(__file__).with_name("fault")

def faulty(self, clips, labels):
    if self.ranks.rank == 1 and self.steps == 7 and file.exists():
        kind = file.read_text()
        file.unlink()
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ZeroDivisionError("rank 1 is broken")
    return step(self, clips, labels)

Trainer.step = faulty
"""


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with nothing_stays_registered():
        load_plugins([PLUGIN])
        DATASETS.get("small")(None).prepare()
        yield


def _cell(dataset: str = "small", **recipe: Any) -> Cell:
    """40 training videos, 20 of the test."""
    asked = {"epochs": 2, "batch_size": 8, "lr": 1e-3, "head_lr": 1e-3, "drop_path": 0.0, "dropout": 0.0, **recipe}
    matrix = Matrix(backbones=("vit:tiny@none",), strategies=("joint",), datasets=(dataset,), recipe=asked, frames=(4,))
    return expand(matrix).cells[0]


def _execute(
    cell: Cell,
    folder: Path,
    size: int,
    plugins: tuple[str, ...] = (),
    workers: int = 0,
    stopped: bool = False,
) -> Result:
    folder.mkdir(exist_ok=True)
    batch = cell.recipe.batch_size
    measured = make.measured(batch_size=batch, micro_batch=batch, busy_cores=0.0)
    how = Reading(workers, workers)
    context = WorkerContext(CPU, how, "bench run", FrameCache(), checkpoint_minutes=1e9)
    if stopped:
        context.stopping.set()
    if size == 1:
        with context.cleanup:
            return execute(cell, context, measured=measured, folder=folder)
    setup = Setup("cpu", (PLUGIN, *plugins), how, "bench run", folder.parent / "output.txt", ranks=("cpu",) * size)
    ours, theirs = Pipe()
    job = Job("train", cell, folder, size, FrameCache(), measured)
    try:
        return execute_on_ranks(job, setup, context, theirs)
    finally:
        theirs.close()
        ours.close()


def _accuracies(folder: Path) -> list[float]:
    """On the validation videos, in the order of the log."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["val_top1"] for line in lines if "val_top1" in line]


def _same(folder: Path, result: Result, expected: tuple[Path, Result], exactly: bool = False) -> None:
    there, once = expected
    assert result.status == "done" and result.metrics == once.metrics
    found, reference = (np.load(each / "predictions.npz") for each in (folder, there))
    for name in reference.files:
        if exactly or found[name].dtype.kind != "f":
            assert np.array_equal(found[name], reference[name]), name
        else:
            assert np.allclose(found[name], reference[name], atol=1e-4), name
    trained, again = (load_file(each / "adapter.safetensors") for each in (there, folder))
    assert trained.keys() == again.keys()
    assert not exactly or all(torch.equal(trained[name], again[name]) for name in trained)


@pytest.mark.parametrize(
    ("size", "recipe", "workers"),
    [
        pytest.param(2, {"mixup": 0.8, "cutmix": 1.0, "time_init": 0.3}, 1, marks=pytest.mark.slow),
        # one batch of 40: shares of 14, 13 and 13 clips
        pytest.param(3, {"batch_size": 64}, 0, marks=pytest.mark.slow),
        # rank 2 has no clip at all; of the test's last batch neither has rank 1 a video
        (3, {"dataset": "seven", "batch_size": 2, "epochs": 1, "mixup": 0.8}, 0),
    ],
)
def test_a_cell_on_several_processes_has_the_numbers_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, recipe: dict[str, Any], workers: int
) -> None:
    (plugin := tmp_path / "seven_and_losses.py").write_text(SEVEN + LOSSES)
    monkeypatch.setattr(Trainer, "step", Trainer.step)  # as it is again afterwards
    with nothing_stays_registered():
        load_plugins([str(plugin)])
        cell = _cell(**recipe)
        once = tmp_path / "one", _execute(cell, tmp_path / "one", 1)
        result = _execute(cell, tmp_path / "several", size, (str(plugin),), workers=workers)
    _same(tmp_path / "several", result, once)
    losses, expected = (np.loadtxt(tmp_path / f"losses-{number}.txt") for number in (size, 1))
    assert len(losses) == cell.recipe.epochs * (40 // min(40, cell.recipe.batch_size))
    assert np.allclose(losses, expected, rtol=0, atol=1e-5)
    assert _accuracies(tmp_path / "several") == _accuracies(once[0])
    assert result.skipped == once[1].skipped and len(result.skipped) == (cell.dataset == "seven")
    assert result.metrics is not None and result.metrics.evaluated == (7 if cell.dataset == "seven" else 20)
    assert result.provenance.world_size == size and once[1].provenance.world_size == 1
    assert len(set(result.footnotes) - set(once[1].footnotes)) == 1
    trained = load_file(tmp_path / "several" / "adapter.safetensors")
    found, alone = row(result), row(once[1])
    assert found["gradient_bytes"] == sum(4 * tensor.numel() for tensor in trained.values())
    assert (found["world_size"], alone["world_size"], alone["gradient_bytes"]) == (size, 1, None)
    assert {file.name for file in (tmp_path / "several").iterdir()} == {file.name for file in once[0].iterdir()}


def test_the_number_of_processes_is_not_in_the_cell() -> None:
    (several,), (one,) = (expand(Request(**{**ASKED, "processes_per_cell": n}).matrix).cells for n in (2, 1))
    assert several == one and several.key == one.key


@pytest.mark.slow
def test_where_one_process_lacks_memory_all_compute_in_parts(tmp_path: Path) -> None:
    """Shares of 4 clips, of which rank 1 has room for 2."""
    (plugin := tmp_path / "narrow.py").write_text(MEMORY)
    cell = _cell(epochs=1)
    once = tmp_path / "once", _execute(cell, tmp_path / "once", 1)
    result = _execute(cell, tmp_path / "cell", 2, (str(plugin),))
    _same(tmp_path / "cell", result, once)
    assert (result.provenance.batch_size, result.provenance.micro_batch) == (8, 2)
    assert len(set(result.footnotes) - set(once[1].footnotes)) == 2  # of the processes, and of the memory


@pytest.mark.parametrize("kind", [pytest.param("killed", marks=pytest.mark.slow), "raised"])
def test_where_one_process_ends_all_do_and_the_cell_goes_on_from_its_checkpoint(tmp_path: Path, kind: str) -> None:
    plugin, fault = tmp_path / "faulty.py", tmp_path / "fault"
    plugin.write_text(FAULT)
    fault.write_text(kind)
    cell = _cell(drop_path=0.3, dropout=0.5)
    folder = tmp_path / "cell"
    with pytest.raises(RanksFailed) as failed:
        _execute(cell, folder, 2, (str(plugin),))
    assert (failed.value.status, "ZeroDivisionError" in failed.value.line) == (
        ("oom", False) if kind == "killed" else ("failed", True)
    )
    assert (folder / "checkpoint").is_dir() and not (folder / "predictions.npz").exists()
    if kind == "raised":
        return
    result = _execute(cell, folder, 2, (str(plugin),))
    assert len(result.provenance.attempts) == 2
    _same(folder, result, (tmp_path / "once", _execute(cell, tmp_path / "once", 2)), exactly=True)


@pytest.mark.parametrize(("size", "then"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_a_training_that_is_stopped_goes_on_on_another_number_of_processes(
    tmp_path: Path, size: int, then: int
) -> None:
    cell = _cell()
    once = tmp_path / "once", _execute(cell, tmp_path / "once", 1)
    folder = tmp_path / "cell"
    with pytest.raises(Preempted):
        _execute(cell, folder, size, stopped=True)
    result = _execute(cell, folder, then)
    _same(folder, result, once)
    assert len(result.provenance.attempts) == 2


@pytest.mark.parametrize(
    ("placement", "processes", "workers", "expected"),
    [
        (Placement("cuda", None, "bf16"), 2, "auto", [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3")]),
        (Placement("cuda", None, "bf16"), 1, "auto", [("cuda:0",), ("cuda:1",), ("cuda:2",)]),
        (Placement("cuda", None, "bf16"), 4, 2, [("cuda:0", "cuda:1", "cuda:2", "cuda:3")] * 2),
        (Placement("cpu", None, "fp32"), 2, "auto", [("cpu", "cpu")] * 2),
        (Placement("cpu", None, "fp32"), 3, "auto", [("cpu", "cpu", "cpu")]),
    ],
)
def test_a_slot_has_a_device_for_each_process(
    monkeypatch: pytest.MonkeyPatch, placement: Placement, processes: int, workers: Any, expected: list[Any]
) -> None:
    """Four GPUs and five cores, three cells."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr("bench.run.engines.local.cores", lambda: 5)
    cells = [make.cell(seed=seed) for seed in range(3)]
    assert slots(Request(processes_per_cell=processes, workers=workers), placement, cells) == expected


@pytest.mark.parametrize(
    ("placement", "most"),
    [(Placement("cuda", None, "bf16"), 4), (Placement("cuda", 1, "bf16"), 1), (Placement("cpu", None, "fp32"), 5)],
)
def test_more_processes_than_devices_are_refused(
    monkeypatch: pytest.MonkeyPatch, placement: Placement, most: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr("bench.run.engines.local.cores", lambda: 5)
    assert too_few_devices(most, placement) == [] and len(too_few_devices(most + 1, placement)) == 1


def test_a_batch_without_a_clip_for_each_process_is_refused_beside_other_mistakes(
    bench: Command, tmp_path: Path
) -> None:
    asked = ("--plugin", PLUGIN, "--dataset", "small", "--device", "cpu", "--out", tmp_path / "run")
    said = bench("run", *asked, "--processes-per-cell", 200, "--batch-size", 150)
    assert (said.code, [problem.split(":")[0] for problem in said.problems]) == (2, ["processes_per_cell is 200"] * 2)
    said = bench("run", *asked, "--processes-per-cell", 0, "--engine", "lokal")
    assert said.code == 2 and {problem.split(" ")[0] for problem in said.problems} == {"processes_per_cell", "unknown"}
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(cores() < 2, reason="the machine has one core")
def test_run_and_eval_on_two_processes_as_a_user_meets_them(bench: Command, tmp_path: Path) -> None:
    asked = ("--plugin", PLUGIN, "--device", "cpu", "--processes-per-cell", 2)
    chosen = ("--dataset", "small", "--backbones", "vit:tiny", "--strategies", "joint")
    said = bench("run", *chosen, "--out", tmp_path / "run", *asked)
    assert said.code == 0, said.err
    (folder,) = (tmp_path / "run" / "cells").iterdir()
    trained = Result.model_validate_json((folder / "result.json").read_text())
    assert trained.provenance.world_size == 2 and not (folder / "checkpoint").exists()
    said = bench("eval", "--checkpoint", folder, "--format", "json", *asked)
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert trained.metrics is not None and found["provenance"]["world_size"] == 2
    for name in ("top1", "mean_class", "top1_reversed", "top1_shuffled", "evaluated", "listed"):
        assert found[name] == getattr(trained.metrics, name), name
