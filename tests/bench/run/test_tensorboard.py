"""TensorBoard's files, read back by TensorBoard."""

from __future__ import annotations

import errno
import json
import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.run.store import LOG, Run
from bench.run.tracking import followers
from bench.run.tracking.followers import TrackedListener
from bench.run.tracking.trackers import configuration, final_numbers, keep_writers_quiet
from bench.spec import Cell
from tests.bench import make
from tests.bench.command import Command
from tests.bench.run.test_tracking import PLUGIN, Recorder, interrupted, line, training, write

Scalars = dict[str, list[tuple[int, float]]]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "_EVERY", 0.01)


def read(folder: Path) -> tuple[Scalars, dict[str, Any]]:
    """The scalars of a run as (step, value) by tag, and its hyperparameters."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    scalars = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    scalars = {tag: rows for tag, rows in scalars.items() if rows}  # all of a tag's may be purged
    data = HParamsPluginData.FromString(
        found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info
    return scalars, {name: getattr(value, value.WhichOneof("kind")) for name, value in data.hparams.items()}


def logged(lines: list[dict[str, float]]) -> Scalars:
    """The same as a log has it."""
    found: Scalars = {}
    step = 0
    for values in lines:
        step = int(values.get("step", step))
        for name, value in values.items():
            if name != "step":
                found.setdefault(name, []).append((step, float(np.float32(value))))
    return found


def with_end(expected: Scalars, cell: Cell) -> Scalars:
    last = max(step for rows in expected.values() for step, _ in rows)
    for name, value in final_numbers(make.done(cell)).items():
        expected.setdefault(name, []).append((last, float(np.float32(value))))
    return expected


def test_an_interrupted_cell_has_the_numbers_of_its_log_once_each(tmp_path: Path) -> None:
    run, cell = Run(tmp_path / "table1"), make.cell()
    run.open(make.matrix(), [cell], "bench run", {})
    first = [line(2), line(4, loader_wait=3.0), {"epoch": 1.0, "val_top1": 25.0}, line(6)]
    write(run, cell, *first)
    listener = TrackedListener(Recorder(), run, ("tensorboard",))  # type: ignore[arg-type]
    training(listener, cell)
    listener.ended(interrupted(cell))
    assert listener.close() == []
    folder = run.folder / "tensorboard" / cell.folder
    scalars, parameters = read(folder)
    assert scalars == logged(first)
    assert parameters == {
        name: value if isinstance(value, bool | str) else float(value) for name, value in configuration(cell).items()
    }
    # from a checkpoint at step 4; and meanwhile the training is placed on another machine, from its first checkpoint
    second = [*first[:3], line(5), line(7)]
    listener = TrackedListener(Recorder(), run, ("tensorboard",))  # type: ignore[arg-type]
    write(run, cell, *second)
    training(listener, cell)
    while not (followers_of := listener._following[cell])[0]._log._last:
        followers_of[0].join(0.01)
    third = [*first[:2], line(5, loader_wait=1.0), line(6), line(8)]
    write(run, cell, *third)
    listener.ended(make.done(cell))
    assert listener.close() == []
    scalars, again = read(folder)
    assert scalars == with_end(logged(third), cell)
    assert again == parameters
    assert [child.name for child in (run.folder / "tensorboard").iterdir()] == [cell.folder]


def test_a_writer_that_fails_prints_nothing_and_other_threads_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread

    class Full:
        def write(self, _: bytes) -> None:
            raise OSError(errno.ENOSPC, "full")

    def fails() -> None:
        raise KeyError("other")

    printed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    keep_writers_quiet.__wrapped__()
    events: queue.Queue[bytes] = queue.Queue()
    events.put(b"")
    writer = _AsyncWriterThread(events, Full(), 1)
    other = threading.Thread(target=fails)
    for thread in (writer, other):
        thread.start()
        thread.join(60)
    assert isinstance(writer.exception, OSError)  # which the next write raises
    assert [each.exc_type for each in printed] == [KeyError]


@pytest.mark.slow
def test_a_run_is_followed_while_it_trains(bench: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ("--backbones", "vit", "--strategies", "frozen", "--dataset", "small", "--plugin", PLUGIN)
    said = bench("run", *asked, "--device", "cpu", "--out", out, "--track", "tensorboard")
    assert said.code == 0, said.out + said.err
    (result,) = Run(out).results()
    lines = [json.loads(text) for text in (Run(out).cell_folder(result.cell) / LOG).read_text().splitlines()]
    scalars, parameters = read(out / "tensorboard" / result.cell.folder)
    assert lines and parameters["cell"] == result.cell.key
    for name, rows in logged(lines).items():
        assert scalars[name] == rows
    for name, value in final_numbers(result).items():
        assert scalars[name][-1][1] == pytest.approx(value, rel=1e-6)
    assert "not followed" not in said.out
