"""The engine slurm without a Slurm: what is submitted, what it makes of the queue and of the jobs' files, refusals.

tests/slurm/ has the same with a real one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.data.cache import FrameCache
from bench.errors import UserError
from bench.measure.placement import Placement
from bench.run.engines import slurm, slurm_job, slurm_request
from bench.run.engines.base import ENGINES, CellEngine, Event, Job
from bench.run.engines.jobs import JobFile, asked_to_stop
from bench.run.engines.jobs import read as read_job
from bench.run.engines.local import LocalEngine
from bench.run.engines.slurm import SlurmEngine
from bench.run.status import cancel, status
from bench.run.store import Run
from bench.spec import Request
from tests.bench import make
from tests.bench.command import Command

CPU = Placement("cpu", None, "fp32")
CELLS = tuple(make.cell(seed=seed) for seed in range(5))


class _Slurm:
    """Slurm's commands and submitit's executor: `queue` is what squeue tells, `called` what else was asked for."""

    def __init__(self) -> None:
        self.queue: str | Exception = ""
        self.answers: dict[str, str | Exception] = {"scontrol": "MaxArraySize            = 2\n"}
        self.called: list[tuple[str, ...]] = []
        self.submitted: list[list[tuple[str, ...]]] = []
        self.requests: list[Request] = []

    def call(self, *command: str, input: str | None = None) -> str | Exception:
        if command[0] == "squeue":
            return self.queue
        self.called.append(command)
        return self.answers.get(command[0], "")

    def map_array(self, function: Any, asked: list[str], names: list[tuple[str, ...]], *_: Any) -> list[Any]:
        if len(self.submitted) == self.answers.get("most"):
            raise RuntimeError("sbatch: error: \nthe queue is full")
        self.submitted.append(names)
        self.requests += map(Request.model_validate_json, asked)
        id = 70 + len(self.submitted)
        return [SimpleNamespace(job_id=f"{id}_{index}" if len(names) > 1 else str(id)) for index in range(len(names))]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> _Slurm:
    found = _Slurm()
    for module in (slurm, slurm_job, slurm_request):
        monkeypatch.setattr(module, "call", found.call)
    monkeypatch.setattr(slurm, "executor", lambda folder, request: found)
    monkeypatch.setattr(slurm, "_LOOK", 0.0)
    monkeypatch.setattr(slurm, "_LATE", 0.0)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = Run(tmp_path / "run")
    found.open(make.matrix(seeds=list(range(5))), CELLS, "bench run", {})
    return found


def _started(run: Run, count: int = 1, **asked: Any) -> SlurmEngine:
    engine = SlurmEngine(Request(engine="slurm", **asked), CPU, count, "bench run")
    for cell in CELLS[:count]:
        engine.submit(Job("cell", cell, run.cell_folder(cell), 0, FrameCache()))
    engine.start()
    return engine


def _events(engine: SlurmEngine) -> list[tuple[str, int]]:
    return [(event.kind, event.job.cell.seed) for event in engine.events(0.0)]


def test_cells_are_submitted_in_arrays_that_slurm_takes(cluster: _Slurm, run: Run) -> None:
    engine = _started(run, 5, cells_per_job=2, loader_workers=3)
    folders = [cell.folder for cell in CELLS]
    assert engine.slots == 3
    assert cluster.submitted == [[(folders[0], folders[1]), (folders[2], folders[3])], [(folders[4],)]]
    assert [request.engine for request in cluster.requests] == ["local"] * 3
    assert {(request.out, request.loader_workers) for request in cluster.requests} == {(run.folder, 3)}
    states = [read_job(run.cell_folder(cell)) for cell in CELLS]
    assert [state and (state.engine, state.id, state.stage) for state in states] == [
        ("slurm", id, "queued") for id in ("71_0", "71_0", "71_1", "71_1", "72")
    ]
    assert isinstance(engine, CellEngine)


@pytest.mark.parametrize("asked", [{}, {"share_pass": False}])
def test_cells_that_share_a_pass_are_in_one_job_and_count_as_one(
    cluster: _Slurm, tmp_path: Path, asked: dict[str, Any]
) -> None:
    frozen = [make.cell(strategy="frozen", options={}, recipe={"lr": lr}) for lr in (0.1, 0.2, 0.3)]
    cells = [frozen[0], CELLS[0], frozen[1], CELLS[1], frozen[2], CELLS[2]]
    run = Run(tmp_path / "run")
    run.open(make.matrix(), cells, "bench run", {})
    request = Request(engine="slurm", cells_per_job=2, **asked)
    engine: Any = ENGINES.get("slurm")(request, CPU, cells, "bench run")
    for cell in cells:
        engine.submit(Job("cell", cell, run.cell_folder(cell), 0, FrameCache()))
    engine.start()
    submitted = [names for array in cluster.submitted for names in array]
    assert sorted(name for names in submitted for name in names) == sorted(cell.folder for cell in cells)
    if not asked:
        assert submitted == [
            (*(cell.folder for cell in frozen), CELLS[0].folder),
            (CELLS[1].folder, CELLS[2].folder),
        ]
    assert engine.slots == len(submitted) == (2 if not asked else 3)
    assert {request.share_pass for request in cluster.requests} == {not asked}


def test_cells_that_follow_from_others_are_submitted_by_themselves(cluster: _Slurm, run: Run) -> None:
    engine = _started(run, 1)
    JobFile(run.cell_folder(CELLS[0]), "slurm", "71").write({"stage": "training"})
    engine.submit(Job("cell", CELLS[1], run.cell_folder(CELLS[1]), 0, FrameCache()))
    engine.start()
    engine.start()
    assert cluster.submitted == [[(CELLS[0].folder,)], [(CELLS[1].folder,)]]
    states = [read_job(run.cell_folder(cell)) for cell in CELLS[:2]]
    assert [state and (state.id, state.stage) for state in states] == [("71", "training"), ("72", "queued")]
    run.put(make.done(CELLS[0]))
    run.put(make.done(CELLS[1]))
    cluster.queue = "71|N/A|COMPLETED|None\n72|N/A|COMPLETED|None\n"
    assert _events(engine) == [("written", 0), ("written", 1)]


def test_cells_whose_jobs_are_in_the_queue_are_followed_and_not_submitted_again(cluster: _Slurm, run: Run) -> None:
    _started(run, 4, cells_per_job=2, detach=True).close()
    JobFile(run.cell_folder(CELLS[0]), "slurm", "71_0").write({"stage": "training"})
    JobFile(run.cell_folder(CELLS[1]), "local").write({"stage": "training"})  # of a process that has ended
    cluster.queue = "71|0|RUNNING|None\n71|1|PENDING|Resources\n"
    engine = _started(run, 5)
    assert cluster.submitted[1:] == [[(CELLS[1].folder,), (CELLS[4].folder,)]]
    states = [read_job(run.cell_folder(cell)) for cell in CELLS]
    assert [state and state.id for state in states] == ["71_0", "72_0", "71_1", "71_1", "72_1"]
    cluster.queue += "72|0|RUNNING|None\n72|1|RUNNING|None\n"
    assert _events(engine) == [("progress", 0)]
    run.put(make.done(CELLS[0]))
    cluster.queue = "71|1|COMPLETED|None\n72|0|RUNNING|None\n72|1|RUNNING|None\n"
    assert _events(engine) == [("written", 0), ("failed", 2), ("failed", 3)]
    engine.preempt()
    assert cluster.called[-1][-2:] == ("72_0", "72_1")


def test_a_cell_whose_job_has_ended_is_submitted_again(cluster: _Slurm, run: Run) -> None:
    _started(run, 2, detach=True).close()
    cluster.queue = "71|0|TIMEOUT|None\n71|1|PENDING|Resources\n"
    engine = _started(run, 2)
    assert cluster.submitted[1:] == [[(CELLS[0].folder,)]]
    cluster.called.clear()
    engine.preempt()
    assert cluster.called[0] == ("scancel", "--state=PENDING", "71_1", "72")


def test_an_engine_of_this_machine_is_none_of_a_scheduler() -> None:
    assert not isinstance(LocalEngine([]), CellEngine)


def test_a_cell_that_was_interrupted_ends_when_its_job_does(cluster: _Slurm, run: Run) -> None:
    cell, folder = CELLS[0], run.cell_folder(CELLS[0])
    run.put(make.failed(cell))  # of an earlier command
    engine = _started(run)
    cluster.queue = "71|N/A|PENDING|Priority\n"
    assert _events(engine) == []
    assert "1 pending (Priority)" in engine.state
    cluster.queue = "71|N/A|RUNNING|None\n"
    assert _events(engine) == []  # nothing was told yet
    JobFile(folder, "slurm", "71").write({"stage": "training", "done": 0.5, "loss": 1.5, "clips_per_s": 9.0})
    assert _events(engine) == [("progress", 0)]
    assert _events(engine) == []  # nothing new
    run.put(make.failed(cell, "interrupted", "at its time limit"))
    for state in ("COMPLETING", "PENDING", "RUNNING"):
        cluster.queue = f"71|N/A|{state}|None\n"
        assert [kind for kind, _ in _events(engine) if kind != "progress"] == []
    run.put(make.done(cell))
    (event,) = engine.events(0.0)
    assert (event.kind, event.values["value"].status) == ("written", "done")
    assert _events(engine) == []


@pytest.mark.parametrize(
    ("state", "status"), [("NODE_FAIL", "failed"), ("OUT_OF_MEMORY", "oom"), ("CANCELLED", "interrupted")]
)
def test_a_job_that_leaves_no_result_has_failed(cluster: _Slurm, run: Run, state: str, status: str) -> None:
    run.put(make.failed(CELLS[1]))  # an old result is none of the job's
    engine = _started(run, 2, cells_per_job=2)
    (run.folder / "slurm").mkdir()
    (run.folder / "slurm" / "71_0_log.out").write_text("slurmstepd: error\n")
    run.put(make.done(CELLS[0]))
    cluster.queue = f"71|N/A|{state}|None\n"
    found: dict[int, Event] = {event.job.cell.seed: event for event in engine.events(0.0)}
    assert found[0].kind == "written" and found[1].kind == "failed"
    assert found[1].values["status"] == status and state in found[1].values["error"]
    assert found[1].values["traceback"] == "slurmstepd: error\n"
    assert read_job(run.cell_folder(CELLS[1])) is None


def test_a_queue_that_does_not_answer_ends_nothing_and_one_without_the_job_does(cluster: _Slurm, run: Run) -> None:
    engine = _started(run)
    cluster.queue = "71|N/A|RUNNING|None\n"
    _events(engine)
    cluster.queue = subprocess.TimeoutExpired("squeue", 10)
    assert _events(engine) == []
    cluster.queue = subprocess.CalledProcessError(1, "squeue", stderr="slurm_load_jobs error: Invalid job id specified")
    assert _events(engine) == [("failed", 0)]


@pytest.mark.parametrize("detach", [False, True])
def test_at_its_end_what_is_left_is_cancelled_unless_detached(cluster: _Slurm, run: Run, detach: bool) -> None:
    engine = _started(run, 3, detach=detach)
    run.put(make.done(CELLS[0]))
    cluster.queue = "71|0|COMPLETED|None\n71|1|RUNNING|None\n72|N/A|PENDING|Resources\n"
    assert _events(engine) == [("written", 0)]
    cluster.called.clear()
    engine.close()
    assert cluster.called == ([] if detach else [("scancel", "71_1", "72")])
    assert (read_job(run.cell_folder(CELLS[2])) is None) != detach


def test_where_slurm_refuses_a_part_the_parts_before_are_cancelled(cluster: _Slurm, run: Run) -> None:
    _started(run, 1, detach=True).close()
    cluster.queue = "71|N/A|RUNNING|None\n"
    cluster.answers["most"] = 2  # type: ignore[assignment]
    engine = SlurmEngine(Request(engine="slurm", detach=True), CPU, 5, "bench run")
    for cell in CELLS:
        engine.submit(Job("cell", cell, run.cell_folder(cell), 0, FrameCache()))
    with pytest.raises(UserError, match="the queue is full"):
        engine.start()
    engine.close()
    assert cluster.called[-1] == ("scancel", "72_0", "72_1")


def test_a_cancel_takes_jobs_out_of_the_queue(cluster: _Slurm, run: Run) -> None:
    engine = _started(run, 3, cells_per_job=2, detach=True)
    engine.close()
    claimed = run.claim(CELLS[0])  # as a job does that began
    cluster.called.clear()
    found = cancel(run)
    assert claimed is not None
    claimed.release()
    assert [cell.state for cell in found] == ["running", "queued", "queued"]
    assert cluster.called == [("scancel", "--state=PENDING", "71_0", "71_1")]
    assert read_job(run.cell_folder(CELLS[0])) is not None and read_job(run.cell_folder(CELLS[1])) is None
    assert asked_to_stop(run.folder, run.changed())


# --- the job ---


@pytest.fixture
def job(cluster: _Slurm, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs the first cell in a job that does what a function says, and returns the exit code."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCONT)}
    monkeypatch.setenv("SLURM_JOB_ID", "73")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "71")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")

    def call(work: Any) -> int:
        def execute(request: Any, planned: Any, command: str, listener: Any, within: Any) -> Any:
            assert within == ("slurm", "71_0") and planned.cells == CELLS[:1]
            work()
            return run, SimpleNamespace(notes=[], failures=[], unwritten="", requeue=True, interrupted=True)

        monkeypatch.setattr(slurm_job, "execute", execute)
        with pytest.raises(SystemExit) as ended:
            slurm_job.run_cells(Request(out=run.folder).model_dump_json(), (CELLS[0].folder,), CPU, "bench run")
        return int(ended.value.code or 0)

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("shown", "back"),
    [
        ("JobState=COMPLETING Requeue=1 Restarts=1 PreemptTime=None", True),  # put back already
        ("JobState=RUNNING Requeue=1 Restarts=0 PreemptTime=2026-01-02T03:04:05", True),  # in its time of grace
        ("JobState=RUNNING Requeue=0 Restarts=0 PreemptTime=2026-01-02T03:04:05", False),
        ("JobState=COMPLETING Requeue=1 Restarts=0 PreemptTime=None", False),  # scancel
        (subprocess.TimeoutExpired("scontrol", 10), False),
    ],
)
def test_cells_of_a_job_that_slurm_puts_back_are_queued(
    job: Any, cluster: _Slurm, run: Run, shown: str | Exception, back: bool
) -> None:
    cluster.answers["scontrol"] = shown

    def work() -> None:
        run.put(make.failed(CELLS[0], "interrupted", "stopped from outside before it began"))
        os.kill(os.getpid(), signal.SIGTERM)

    assert job(work) == 75
    (found,) = [cell for cell in status(run) if cell.folder == CELLS[0].folder]
    assert found.state == ("queued" if back else "interrupted")
    assert not back or (found.job is not None and (found.job.engine, found.job.id) == ("slurm", "71_0"))


@pytest.mark.parametrize(
    ("number", "further", "requeued"),
    [(signal.SIGUSR1, True, True), (signal.SIGUSR1, False, False), (signal.SIGTERM, True, False)],
)
def test_a_job_requeues_itself_at_its_limit_where_it_came_further(
    job: Any, cluster: _Slurm, run: Run, number: signal.Signals, further: bool, requeued: bool
) -> None:
    def work() -> None:
        if further:
            (run.cell_folder(CELLS[0]) / "checkpoint").mkdir()
            (run.cell_folder(CELLS[0]) / "checkpoint" / "checkpoint.json").write_text('{"step": 7}')
        os.kill(os.getpid(), number)

    assert job(work) == 75
    assert (("scontrol", "requeue", "73") in cluster.called) == requeued
    state = read_job(run.cell_folder(CELLS[0]))
    assert (state is not None and state.stage == "queued") == requeued


# --- refusals ---

ASKED = ("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--device", "cpu")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, cluster: _Slurm) -> _Slurm:
    """A cluster with a partition `gpu` of other machines, and submitit."""
    cluster.answers["sinfo"] = "gpu|node1|idle\ngpu|node2|drained\n"
    monkeypatch.setattr(slurm_request, "find_spec", lambda name: True)
    monkeypatch.setattr(slurm_request, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(slurm_request, "_names", lambda: {"partition", "time", "array_parallelism"})
    monkeypatch.setattr(slurm_request, "_file_system", lambda folder: "nfs4")
    monkeypatch.setattr(slurm_request, "_refusal", lambda *_: [])
    return cluster


@pytest.mark.parametrize(
    ("change", "flags", "told"),
    [
        ("submitit", (), "aim-bench[slurm]"),
        ("programs", (), "sbatch"),
        ("answer", (), "Unable to contact"),
        ("folder", (), "tmpfs"),
        ("", ("--slurm", "partition=gpus"), "did you mean 'gpu'?"),
        ("", ("--slurm", "partition=gpu,tim=3"), "did you mean 'time'?"),
        ("", ("--slurm", "array_parallelism=0"), "at least 1"),
        ("", ("--cells-per-job", "0"), "at least 1"),
    ],
)
def test_a_request_that_slurm_cannot_serve_is_refused(
    bench: Command,
    installed: _Slurm,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: str,
    flags: tuple[str, ...],
    told: str,
) -> None:
    if change == "submitit":
        monkeypatch.setattr(slurm_request, "find_spec", lambda name: None)
    elif change == "programs":
        monkeypatch.setattr(slurm_request, "which", lambda name: None)
    elif change == "answer":
        stderr = "slurm_load_partitions: Unable to contact slurm controller (connect failure)\n"
        installed.answers["sinfo"] = subprocess.CalledProcessError(1, "sinfo", stderr=stderr)
    elif change == "folder":
        monkeypatch.setattr(slurm_request, "_file_system", lambda folder: "tmpfs")
    said = bench(*ASKED, "--engine", "slurm", *flags, "--out", tmp_path / "run")
    assert said.code == 2 and len(said.problems) == 1
    assert told in said.problems[0]
    assert not (tmp_path / "run").exists() and installed.submitted == []


@pytest.mark.parametrize(
    ("asked", "processes", "expected"),
    [
        ({"mem": "8G"}, 1, {}),
        ({"mem": "8G"}, 4, {"cpus_per_task": 4}),
        ({"cpus_per_task": 8}, 4, {}),
        ({"constraint": "gpu"}, 2, {"cpus_per_task": 2, "gpus_per_node": 2}),
        ({"gpus_per_node": "a100:2", "cpus_per_gpu": 6}, 2, {}),
        ({"gres": "gpu:a100:2,shard:1"}, 2, {"cpus_per_task": 2}),
    ],
)
def test_a_job_has_a_cpu_and_a_gpu_for_each_process_of_a_cell(
    asked: dict[str, Any], processes: int, expected: dict[str, int]
) -> None:
    request = Request(engine="slurm", slurm=asked, processes_per_cell=processes)
    assert slurm_request._asked(request) == {"time": None, **asked, **expected}


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("cpus_per_task=2", "cpus_per_task"),
        ("gpus_per_node=1,cpus_per_task=1", "gpus_per_node"),
        ("gres=gpu:a100:2", "gres"),
    ],
)
def test_a_job_of_fewer_devices_than_a_cell_has_processes_is_refused(
    bench: Command, installed: _Slurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, name: str
) -> None:
    monkeypatch.setattr(slurm_request, "_names", lambda: {"cpus_per_task", "gpus_per_node", "gres"})
    asked = ("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--processes-per-cell", "3")
    said = bench(*asked, "--engine", "slurm", "--slurm", flags, "--out", tmp_path / "run")
    assert said.code == 2 and not (tmp_path / "run").exists()
    (told,) = said.problems
    assert told.startswith(f"slurm.{name} is ") and "processes_per_cell is 3" in told


def test_workers_of_this_machine_take_nothing_that_is_meant_for_jobs(bench: Command, tmp_path: Path) -> None:
    flags = ("--detach", "--slurm", "time=3", "--cells-per-job", "2")
    said = bench(*ASKED, *flags, "--out", tmp_path / "run")
    assert said.code == 2
    assert [problem.split()[0] for problem in said.problems] == ["slurm", "cells_per_job", "detach"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"slurm": {"gpus_per_node": 1}}, Placement("cuda", None, "bf16")),
        ({"slurm": {"gres": "gpu:a100:1"}, "precision": "fp16"}, Placement("cuda", None, "fp16")),
        ({"slurm": {"partition": "gpu"}}, None),  # a partition's name tells nothing
        ({"slurm": {"gpus_per_node": 1}, "device": "cpu"}, None),
        ({"device": "cuda"}, Placement("cuda", None, "bf16")),
    ],
)
def test_the_device_is_that_of_the_jobs(asked: dict[str, Any], expected: Placement | None) -> None:
    found: Any = ENGINES.get("slurm")
    assert found.placement(Request(engine="slurm", **asked)) == expected


def test_a_detached_command_leaves_once_its_jobs_are_submitted(
    bench: Command, installed: _Slurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """This machine need not have the jobs' GPUs."""
    monkeypatch.setattr("bench.run.start._unusable_data", lambda *_: [])
    asked = ("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--device", "cuda")
    flags = ("--engine", "slurm", "--slurm", "partition=gpu", "--detach", "--out", tmp_path / "run")
    said = bench(*asked, *flags)
    assert said.code == 0, said.err
    (name,) = Run(tmp_path / "run").description()["cells"]
    assert installed.submitted == [[(name,)]]
    cell = json.loads((tmp_path / "run" / "cells" / name / "cell.json").read_text())
    assert (cell["device"], cell["precision"]) == ("cuda", "bf16")
    assert not any(command[0] == "scancel" for command in installed.called)
