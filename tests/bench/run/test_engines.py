"""Engines: what goes to which worker and when, how jobs end, and an engine that a plugin brings."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.data.cache import FrameCache
from bench.data.decode_pool import Reading
from bench.run.engines.base import ENGINES, Event, Job, WorkerFailed, joined
from bench.run.engines.local import LocalEngine, Setup
from bench.run.events import ExpectedTime
from bench.run.store import Run
from bench.spec import Cell, Request
from tests.bench import make
from tests.bench.command import Command, field_of, quotes

SETUP = Setup("cpu", (), Reading(workers=3), "bench run", Path())


class _Process:
    """A process as far as its parent sees it; it ends where `end` says so."""

    def __init__(self) -> None:
        self.sentinel, self._alive = os.pipe()
        self.exitcode: int | None = None

    def is_alive(self) -> bool:
        return self.exitcode is None

    def end(self, code: int) -> None:
        if self.is_alive():
            os.close(self._alive)
            self.exitcode = code

    def start(self) -> None: ...

    def join(self, timeout: float | None = None) -> None: ...

    def terminate(self) -> None:
        self.end(143)

    def kill(self) -> None:
        self.end(-signal.SIGKILL)


class _Context:
    """Starts no process; the test answers at the other end of each one's pipe."""

    def __init__(self) -> None:
        self.processes: list[_Process] = []
        self.ends: list[Connection] = []

    def get_start_method(self) -> str:
        return "forkserver"

    def Pipe(self) -> tuple[Connection, Any]:  # noqa: N802
        ours, theirs = Pipe()
        self.ends.append(theirs)
        return ours, SimpleNamespace(close=lambda: None)  # in the other process it would stay open

    def Process(self, **_: Any) -> _Process:  # noqa: N802
        self.processes.append(_Process())
        return self.processes[-1]

    def ready(self, *workers: int) -> None:
        for worker in workers:
            self.ends[worker].send(("ready", {}))

    def got(self, worker: int) -> Cell | None:
        """The cell of the job that a worker was given and has not taken yet."""
        return self.ends[worker].recv().cell if self.ends[worker].poll() else None

    def got_all(self, worker: int) -> list[Cell]:
        """The cells of such a job."""
        return [part.cell for part in self.ends[worker].recv().parts] if self.ends[worker].poll() else []


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> _Context:
    found = _Context()
    monkeypatch.setattr("bench.run.engines.local.context", lambda preload: found)
    return found


@pytest.fixture
def engine(context: _Context) -> Iterator[LocalEngine]:
    found = LocalEngine([SETUP, SETUP])
    yield found
    for end in context.ends:
        end.close()
    found.close()


def _job(seed: int, kind: Any = "train") -> Job:
    return Job(kind, make.cell(seed=seed), Path(), 1, FrameCache(), make.measured())


def _events(engine: LocalEngine) -> list[Event]:
    """Events that the workers have sent so far; a look for each, as a worker can be heard once a look."""
    return [event for _ in range(3) for event in engine.events(0.0)]


def test_jobs_go_to_workers_that_are_ready_one_each(engine: LocalEngine, context: _Context) -> None:
    first, second, third = _job(0), _job(1), _job(2)
    for job in (first, second, third):
        engine.submit(job)
    assert engine.slots == 2
    assert context.got(0) is None and context.got(1) is None
    context.ready(1)
    assert _events(engine) == []
    assert context.got(1) == first.cell and context.got(0) is None
    context.ready(0)
    assert _events(engine) == []
    assert context.got(0) == second.cell
    context.ends[1].send(("progress", {"stage": "training", "done": 0.5}))
    context.ends[1].send(("trained", {"value": "a result"}))
    assert _events(engine) == [
        Event(first, "progress", {"stage": "training", "done": 0.5}),
        Event(first, "trained", {"value": "a result"}),
    ]
    assert context.got(1) == third.cell


def test_a_measurement_has_the_machine_to_itself(engine: LocalEngine, context: _Context) -> None:
    measuring, beside = _job(0, "measure"), _job(1)
    context.ready(0)
    engine.submit(measuring)
    engine.submit(beside)
    assert _events(engine) == []
    assert context.got(0) is None  # the other one still imports its libraries
    context.ready(1)
    _events(engine)
    assert context.got(0) == measuring.cell and context.got(1) is None
    context.ends[0].send(("measured", {"value": 1}))
    assert [event.kind for event in _events(engine)] == ["measured"]
    assert beside.cell in (context.got(0), context.got(1))
    engine.submit(measuring)
    _events(engine)
    assert context.got(0) is None and context.got(1) is None  # a training still runs


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [(-signal.SIGKILL, "oom", "SIGKILL"), (3, "failed", 3)],
)
def test_a_worker_that_dies_is_replaced_and_its_job_has_failed(
    engine: LocalEngine, context: _Context, code: int, status: str, told: object
) -> None:
    context.ready(0, 1)
    jobs = [_job(seed) for seed in range(3)]
    for job in jobs:
        engine.submit(job)
    _events(engine)
    context.processes[0].end(code)
    (event,) = _events(engine)
    assert (event.job, event.kind, event.values["status"]) == (jobs[0], "failed", status)
    assert quotes(event.values["error"], told)
    assert engine.slots == 2
    context.ready(2)  # the one that took its place
    _events(engine)
    assert context.got(2) == jobs[2].cell


def test_a_worker_that_never_came_up_is_not_replaced(engine: LocalEngine, context: _Context) -> None:
    job = _job(0)
    engine.submit(job)
    context.processes[0].end(1)
    assert _events(engine) == []
    assert engine.slots == 1
    context.ready(1)
    _events(engine)
    assert context.got(1) == job.cell


def test_where_no_worker_comes_up_the_last_one_says_why(engine: LocalEngine, context: _Context) -> None:
    context.processes[0].end(1)
    _events(engine)
    engine._workers[0].setup.output.write_text("ImportError: no torch")
    context.processes[1].end(1)
    with pytest.raises(WorkerFailed) as failed:
        _events(engine)
    assert failed.value.printed == "ImportError: no torch"


def test_a_job_that_is_cancelled_says_nothing_more(engine: LocalEngine, context: _Context) -> None:
    context.ready(0, 1)
    first, second, waiting, last = jobs = [_job(seed) for seed in range(4)]
    _events(engine)
    for job in jobs:
        engine.submit(job)
    context.ends[0].send(("progress", {"stage": "training"}))
    for cell in (waiting.cell, first.cell, make.cell(seed=99)):
        engine.cancel(cell)
    assert context.processes[0].exitcode == 143
    context.ready(2)
    assert _events(engine) == []
    assert context.got(2) == last.cell and context.got(1) == second.cell
    context.ends[1].send(("trained", {"value": 1}))
    assert [(event.job, event.kind) for event in _events(engine)] == [(second, "trained")]


def test_at_its_end_workers_with_a_job_are_stopped_and_the_others_see_their_pipe_close(context: _Context) -> None:
    engine = LocalEngine([SETUP, SETUP])
    context.ready(0)
    engine.submit(_job(0))
    _events(engine)
    context.processes[1].end(0)  # as it would
    engine.close()
    assert context.processes[0].exitcode == 143
    assert context.got(0) is not None
    for end in context.ends:
        with pytest.raises(EOFError):
            end.recv()


def _part(number: int, kind: str, **values: Any) -> tuple[str, dict[str, Any]]:
    return "part", {"number": number, "kind": kind, "values": values}


def _seeds(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.job.cell.seed, event.kind) for event in events]


def test_each_cell_of_a_job_is_told_by_itself_and_the_job_has_one_worker(
    engine: LocalEngine, context: _Context
) -> None:
    parts, other = [_job(seed) for seed in range(3)], _job(3)
    assert joined(parts).parts == tuple(parts) and joined(parts[:1]) == parts[0]
    engine.submit(joined(parts))
    engine.submit(other)
    context.ready(0)
    _events(engine)
    assert context.got_all(0) == [part.cell for part in parts]
    assert engine.trains_together
    for message in (
        _part(1, "progress", stage="training", done=0.5),
        _part(2, "trained", value="a result"),
        _part(0, "failed", status="oom", error="no room", apart=True),
    ):
        context.ends[0].send(message)
    events = _events(engine)
    assert [event.job for event in events] == [parts[1], parts[2], parts[0]]
    assert [dict(event.values) for event in events][1:] == [
        {"value": "a result"},
        {"status": "oom", "error": "no room", "apart": True},
    ]
    assert context.got(0) is None  # one is left
    context.ends[0].send(("failed", {"status": "failed", "error": "of all", "traceback": None}))
    (event,) = _events(engine)
    assert (event.job, event.kind, event.values["apart"]) == (parts[1], "failed", True)
    assert context.got(0) == other.cell


def test_a_worker_that_dies_ends_those_of_its_cells_that_had_not_and_each_is_to_be_tried_alone(
    engine: LocalEngine, context: _Context
) -> None:
    context.ready(0, 1)
    engine.submit(joined([_job(seed) for seed in range(3)]))
    _events(engine)
    context.ends[0].send(_part(1, "trained", value=1))
    _events(engine)
    context.processes[0].end(-signal.SIGKILL)
    events = _events(engine)
    assert _seeds(events) == [(0, "failed"), (2, "failed")]
    assert all(event.values["status"] == "oom" and event.values["apart"] for event in events)


def test_cells_that_are_to_stop_together_are_all_told_so(engine: LocalEngine, context: _Context) -> None:
    context.ready(0, 1)
    engine.submit(joined([_job(seed) for seed in range(3)]))
    _events(engine)
    engine.preempt()
    context.ends[0].send(_part(2, "trained", value=1))
    context.ends[0].send(("preempted", {"error": "stopped"}))
    assert _seeds(_events(engine)) == [(2, "trained"), (0, "preempted"), (1, "preempted")]


def test_jobs_that_no_worker_has_begun_end_at_once_where_all_are_to_stop(
    engine: LocalEngine, context: _Context
) -> None:
    context.ready(0)
    engine.submit(_job(0))
    _events(engine)
    engine.submit(joined([_job(1), _job(2)]))  # the other worker still imports its libraries
    engine.preempt()
    context.ends[0].send(("preempted", {"error": "stopped"}))
    context.ready(1)
    assert _seeds(_events(engine)) == [(1, "preempted"), (2, "preempted"), (0, "preempted")]
    assert context.got_all(1) == []


def test_those_beside_a_cell_that_is_cancelled_go_on(engine: LocalEngine, context: _Context) -> None:
    context.ready(0, 1)
    running, waiting = [_job(seed) for seed in range(3)], [_job(seed) for seed in range(3, 6)]
    engine.submit(joined(running))
    engine.submit(_job(9))
    _events(engine)
    engine.submit(joined(waiting))
    context.ends[0].send(_part(0, "trained", value=1))
    _events(engine)
    for cell in (running[1].cell, waiting[0].cell):
        engine.cancel(cell)
    assert context.processes[0].exitcode == 143
    context.ready(2)
    _events(engine)
    assert context.got_all(2) == [running[2].cell]
    context.ends[2].send(("trained", {"value": 1}))
    assert _seeds(_events(engine)) == [(2, "trained")]
    assert context.got_all(2) == [job.cell for job in waiting[1:]]


PLUGIN = """
from bench.run.engines.base import ENGINES, Event
from tests.bench import make


@ENGINES.register("at-once")
def at_once(request, placement, cells, command):
    return AtOnce()


class AtOnce:
    slots = 2

    def __init__(self):
        self.jobs = []

    def submit(self, job):
        self.jobs.append(job)

    def events(self, timeout):
        while self.jobs:
            job = self.jobs.pop()
            if job.kind == "measure":
                yield Event(job, "measured", {"value": make.measured(train_clips_per_s=123.0)})
            else:
                yield Event(job, "trained", {"value": make.done(job.cell, top1=10.0 + job.cell.seed)})

    def cancel(self, cell):
        pass

    def preempt(self):
        pass

    def close(self):
        print("closed")
"""
ASKED = ("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--seeds", "0,1", "--device", "cpu")


def test_an_engine_of_a_plugin_runs_a_matrix(bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.run.start._unusable_data", lambda *_: [])
    monkeypatch.setattr("bench.run.start._decode_ahead", lambda *_: None)
    plugin = tmp_path / "at_once.py"
    plugin.write_text(PLUGIN)
    said = bench(*ASKED, "--plugin", plugin, "--engine", "at-once", "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert "closed" in said.out
    results = Run(tmp_path / "run").results()
    assert [(result.cell.seed, result.status) for result in results] == [(0, "done"), (1, "done")]
    assert [result.metrics.top1 for result in results if result.metrics is not None] == [10.0, 11.0]
    # how a cell is executed is not in it: the same command with another engine finds it done
    again = bench(*ASKED, "--plugin", plugin, "--out", tmp_path / "run")
    assert again.code == 0 and quotes(again.out, "2 cells")


RATES = {"frozen": 400.0, "spatial": 100.0, "joint": 50.0}


@pytest.mark.parametrize(
    ("slots", "order"),
    [
        (1, ["frozen 0", "frozen 1", "joint 0", "joint 1", "spatial 0", "spatial 1"]),
        (2, ["joint 0", "joint 1", "spatial 0", "spatial 1", "frozen 0", "frozen 1"]),
    ],
)
def test_cells_that_run_side_by_side_begin_with_the_longest(
    bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: int, order: list[str]
) -> None:
    monkeypatch.setattr("bench.run.start._unusable_data", lambda *_: [])
    monkeypatch.setattr("bench.run.start._decode_ahead", lambda *_: None)
    monkeypatch.setattr(ExpectedTime, "_videos", lambda *_: {"train": 100, "val": 10, "test": 10})
    trained = []

    class InTurn:
        def __init__(self) -> None:
            self.slots = slots
            self.jobs: list[Job] = []

        def submit(self, job: Job) -> None:
            self.jobs.append(job)

        def events(self, timeout: float) -> Iterator[Event]:
            job = self.jobs.pop(0)
            rate = RATES[job.cell.strategy]
            if job.kind == "measure":
                yield Event(job, "measured", {"value": make.measured(train_clips_per_s=rate, infer_clips_per_s=rate)})
            else:
                trained.append(f"{job.cell.strategy} {job.cell.seed}")
                yield Event(job, "trained", {"value": make.done(job.cell)})

        def close(self) -> None: ...

    monkeypatch.setattr("bench.run.start.ENGINES", SimpleNamespace(get=lambda name: lambda *_: InTurn()))
    asked = ["frozen,joint,spatial" if value == "frozen" else value for value in ASKED]
    assert bench(*asked, "--out", tmp_path / "run").code == 0
    assert trained == order


def test_an_engine_that_is_not_known_is_refused_with_the_nearest_name(bench: Command, tmp_path: Path) -> None:
    said = bench(*ASKED, "--engine", "locale", "--precision", "fp8", "--out", tmp_path / "run")
    assert said.code == 2
    assert len(said.problems) == 2
    (told,) = [problem for problem in said.problems if "'locale'" in problem]
    assert quotes(told, "engine", "'locale'", "'local'")
    assert not (tmp_path / "run").exists()


def test_the_engine_of_this_machine_is_the_default() -> None:
    assert Request().engine == "local" and "local" in ENGINES


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_more_processes_a_cell_than_this_machine_has_room_for_are_refused(
    bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ENGINES.get("ray"), "problems", lambda request: [], raising=False)
    several = ("--processes-per-cell", "256", "--batch-size", "256")
    said = bench("run", "--engine", engine, *several, "--out", tmp_path / "run", "--device", "cpu")
    assert said.code == 2 and not (tmp_path / "run").exists()
    (told,) = said.problems
    assert field_of(told) == "processes_per_cell" and quotes(told, "256")
