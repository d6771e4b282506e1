"""A worker's job of several cells that share a forward pass, in this process: each ends as it does alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.data.cache import FrameCache
from bench.data.dataset import DATASETS
from bench.data.decode_pool import Reading
from bench.plugins import load as load_plugins
from bench.run.context import WorkerContext
from bench.run.engines.base import Job, joined
from bench.run.engines.local import Setup
from bench.run.engines.worker import _run as run_job
from bench.run.matrix import expand
from bench.spec import Cell, Matrix
from bench.train.trainer import Trainer
from tests.bench import make
from tests.bench.conftest import nothing_stays_registered

PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")
SETUP = Setup("cpu", (), Reading(), "bench run", Path())


class _Connection:
    """Keeps what a worker says."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def send(self, message: tuple[str, dict[str, Any]]) -> None:
        self.said.append(message)

    def ends(self) -> dict[int, tuple[str, dict[str, Any]]]:
        """Return how it ended for each part of the job."""
        parts = [values for kind, values in self.said if kind == "part" and values["kind"] != "progress"]
        assert len({part["number"] for part in parts}) == len(parts)
        return {part["number"]: (part["kind"], part["values"]) for part in parts}


@pytest.fixture(scope="module")
def cells() -> Iterator[list[Cell]]:
    """A probe of either kind, a probe that its test has fail, and a decoder."""
    with nothing_stays_registered():
        load_plugins([PLUGIN])
        DATASETS.get("small")(None).prepare()
        asked = {"backbones": ("vit:tiny@none",), "datasets": ("small",), "frames": (4,), "order_test": False}
        found = []
        for strategy, head, smoothing in (
            ("frozen", "linear", 0.0),
            ("frozen", "attentive", 0.0),
            ("frozen", "linear", 0.25),
            ("evl", "linear", 0.0),
        ):
            recipe = {"epochs": 2, "batch_size": 8, "label_smoothing": smoothing}
            found += expand(Matrix(**asked, strategies=(strategy,), heads=(head,), recipe=recipe)).cells
        yield found


def _jobs(cells: list[Cell], folder: Path) -> list[Job]:
    measured = make.measured(batch_size=8, micro_batch=8, busy_cores=0.0)
    jobs = []
    for number, cell in enumerate(cells):
        (own := folder / str(number)).mkdir(parents=True, exist_ok=True)
        jobs.append(Job("train", cell, own, 1, FrameCache(), measured))
    return jobs


def _context() -> WorkerContext:
    return WorkerContext(torch.device("cpu"), Reading(), "bench run", FrameCache(), checkpoint_minutes=1e9)


def _predictions(job: Job) -> dict[str, np.ndarray]:
    return dict(np.load(job.files / "predictions.npz"))


def test_each_ends_as_it_does_alone(cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, context, stop_at, done = Trainer.step, _context(), 12, 0

    def step(self: Trainer, *batch: Any) -> Any:
        nonlocal done
        done += 1
        if self.recipe.label_smoothing and self.steps == 2:
            raise torch.OutOfMemoryError("no room for this one")
        if done == stop_at:
            context.stopping.set()
        return plain(self, *batch)

    alone = _jobs(cells, tmp_path / "alone")
    for job in (alone[0], alone[1], alone[3]):
        kind, _ = run_job(job, SETUP, _context(), _Connection())  # type: ignore[arg-type]
        assert kind == "trained"

    monkeypatch.setattr(Trainer, "step", step)
    together, said = _jobs(cells, tmp_path / "together"), _Connection()
    run_job(joined(together), SETUP, context, said)  # type: ignore[arg-type]
    ends = said.ends()
    assert [ends[number][0] for number in range(4)] == ["preempted", "preempted", "failed", "preempted"]
    assert ends[2][1]["status"] == "oom" and ends[2][1]["apart"]
    assert not any("apart" in ends[number][1] for number in (0, 1, 3))
    assert all((together[number].files / "checkpoint" / "checkpoint.json").exists() for number in (0, 1, 3))

    context, stop_at, said = _context(), 0, _Connection()
    left = [replace(job) for number, job in enumerate(together) if number != 2]
    run_job(joined(left), SETUP, context, said)  # type: ignore[arg-type]
    ends = said.ends()
    assert [ends[number][0] for number in range(3)] == ["trained"] * 3
    for number, job in ((0, alone[0]), (1, alone[1]), (2, alone[3])):
        assert len(ends[number][1]["value"].provenance.attempts) == 2
        assert ends[number][1]["value"].provenance.shared_pass == 3
        expected, found = _predictions(job), _predictions(left[number])
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[name], found[name]) for name in expected), job.cell.label
