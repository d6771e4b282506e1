"""The engine of a Slurm cluster: an array of jobs, each of which runs its cells in the shared run directory.

A job is `bench run` over its cells: it claims them, measures, trains, keeps checkpoints and writes results as any other
process of the run does (`slurm_job`). Its command only submits the jobs, and follows their files and Slurm's queue.

Imports no torch and, until Slurm is asked for, no submitit.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import psutil

from backbones.registry import did_you_mean
from bench.errors import UserError
from bench.measure.placement import Placement
from bench.processes import search_path
from bench.run.engines.base import ENGINES, Event, Job
from bench.run.engines.jobs import JobFile
from bench.run.engines.jobs import read as read_job
from bench.run.result import Result
from bench.run.store import RESULTS, Run
from bench.spec import Cell, Request

LOGS = "slurm"  # folder of a run, with what the jobs print
# submitit's names that are this engine's own affair: a job is one process on one machine
_OURS = {"additional_parameters", "dependency", "job_name", "nodes", "ntasks_per_node", "num_gpus", "setup"}
_OURS |= {"srun_args", "stderr_to_stdout", "teardown", "use_srun"}
_NUMBERS = ("array_parallelism", "signal_delay_s")
_COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")
_WARNING = 90  # seconds before the time limit at which Slurm sends SIGUSR1
_LOOK = 3.0  # seconds between looks at the queue
_LATE = 10.0  # seconds within which a file that a job wrote shows here, as on a network's file system
_ANSWER = 10.0  # seconds within which Slurm's commands answer
_SOON = 1.0  # the same where jobs were told to end
ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)
# sbatch's words for what is so now and may pass; the second ones stand for it where a machine is out of use
_PASSING = ("not available (down", "not available now", "are busy")
_UNCLEAR = "configuration is not available"
_IN_USE = ("idle", "mixed", "allocated", "completing")
_LOCAL = ("tmpfs", "ramfs")  # kinds of file systems that no other machine can see


# --- the request ---


def problems(request: Request) -> list[str]:
    """Return what is wrong with a request for this engine. Slurm is asked; nothing is submitted."""
    found = []
    if find_spec("submitit") is None:
        found.append("engine is 'slurm': it needs submitit, which is not installed: pip install 'aim-bench[slurm]'")
    if missing := [name for name in _COMMANDS if which(name) is None]:
        found.append(
            f"engine is 'slurm': there is no {' nor '.join(missing)} on the PATH, expected a machine that submits to "
            "a Slurm cluster"
        )
    if found:
        return found
    known = sorted(_names())
    for name, value in request.slurm.items():
        if name not in known:
            found.append(f"slurm names {name!r}: expected one of {', '.join(known)}{did_you_mean(name, known)}")
        elif not isinstance(value, str | int) or str(value).strip() == "":
            found.append(f"slurm.{name} is {value!r}: expected a text or a whole number")
        elif name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            found.append(f"slurm.{name} is {value!r}: expected a whole number of at least 1")
    said = call("sinfo", "--noheader", "--format=%R|%n|%T")
    if isinstance(said, Exception):
        return [*found, f"engine is 'slurm': Slurm does not answer: {told(said)}"]
    nodes: dict[str, dict[str, str]] = {}
    for line in said.splitlines():
        partition, node, state = line.strip().split("|")
        nodes.setdefault(partition, {})[node] = state
    asked = [name for name in str(request.slurm.get("partition", "")).split(",") if name]
    for name in asked:
        if name not in nodes:
            found.append(
                f"slurm.partition is {name!r}: expected one of {', '.join(sorted(nodes))}{did_you_mean(name, nodes)}"
            )
    if found:
        return found
    ours = {node: state for name in asked or nodes for node, state in nodes[name].items()}
    others = ours.keys() - {socket.gethostname().partition(".")[0]}
    folder = request.out or RESULTS
    if others and (kind := _file_system(folder)) in _LOCAL:
        found.append(
            f"out is {str(folder)!r}: it lies on {kind}, which other machines do not see, and the jobs may run on "
            f"{', '.join(sorted(others)[:3])}; expected a folder on a shared file system"
        )
    return [*found, *_refusal(request, all(state in _IN_USE for state in ours.values()))]


def _refusal(request: Request, in_use: bool) -> list[str]:
    """Ask Slurm whether it would take a job, but for what may be otherwise later; a sentence where it would not.

    Args:
        in_use: all the machines are; else Slurm says of those that are not that there are none.
    """
    script = executor_of(Path(), request)._make_submission_file_text("true", "")
    said = call("sbatch", "--test-only", input=script)
    passing = _PASSING if in_use else (*_PASSING, _UNCLEAR)
    if not isinstance(said, Exception) or any(words in told(said) for words in passing):
        return []
    asked = ",".join(f"{name}={value}" for name, value in request.slurm.items())
    return [f"slurm is {asked!r}: Slurm would not take such a job: {told(said)}"]


def placement(request: Request) -> Placement | None:
    """Return the device of the jobs, which this machine may lack: the GPUs that they ask for, in bf16 unless told.

    None where they ask for no GPU.
    """
    asks = any("gpu" in name or "gpu" in str(value) for name, value in request.slurm.items() if name != "partition")
    if request.device == "cpu" or not (asks or request.device.startswith("cuda")):
        return None
    _, _, index = request.device.partition(":")
    precision = "bf16" if request.precision == "auto" else request.precision
    return Placement("cuda", int(index) if index else None, precision)


def _names() -> set[str]:
    from submitit.slurm.slurm import _get_default_parameters

    return set(_get_default_parameters()) - _OURS


def executor_of(folder: Path, request: Request) -> Any:
    """Return submitit's writer of jobs that put what they print into `folder`."""
    from submitit.slurm.slurm import SlurmExecutor

    # one Python process in place of the batch shell: signals to "B:" reach it and none of its children
    executor = SlurmExecutor(folder, python=f"exec {shlex.quote(sys.executable)}")
    asked: dict[str, Any] = {"time": None, **request.slurm}
    plain: dict[str, Any] = {"requeue": True, "signal": f"B:USR1@{asked.pop('signal_delay_s', _WARNING)}"}
    if "mem" in asked:  # submitit takes gigabytes alone
        plain["mem"] = asked.pop("mem")
    executor.update_parameters(
        job_name="aim-bench",
        use_srun=False,
        stderr_to_stdout=True,
        setup=[f"export {name}={shlex.quote(value)}" for name, value in search_path().items()],
        additional_parameters=plain,
        **asked,
    )
    return executor


def _file_system(folder: Path) -> str:
    """The kind of the file system that a folder, made yet or not, lies on; empty where the system does not tell."""
    place = os.path.realpath(folder)
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    while place not in mounts and place != os.path.dirname(place):
        place = os.path.dirname(place)
    return mounts.get(place, "")


def call(*command: str, input: str | None = None) -> str | Exception:
    """The standard output of one of Slurm's commands, or why there is none."""
    try:
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=_ANSWER, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return error
    return done.stdout


def told(error: Exception) -> str:
    """The words of a command that failed, in a line, without its name."""
    text = getattr(error, "stderr", None) or str(error)
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("sbatch: ").removeprefix("error: ") if lines else type(error).__name__


def states(ids: Sequence[str]) -> dict[str, tuple[str, str]] | None:
    """The states of jobs, and why they wait; None where Slurm does not answer. One that it has forgotten is over."""
    arrays = ",".join(dict.fromkeys(id.partition("_")[0] for id in ids))
    if not arrays:
        return {}
    said = call("squeue", "--noheader", "--array", "--states=all", f"--jobs={arrays}", "--format=%F|%K|%T|%r")
    if isinstance(said, Exception) and "Invalid job id" not in told(said):
        return None
    found = {}
    for line in [] if isinstance(said, Exception) else said.splitlines():
        array, index, state, reason = line.strip().split("|", 3)
        found[f"{array}_{index}" if index.isdigit() else array] = state, reason
    return {id: found.get(id, ("COMPLETED", "")) for id in ids}


# --- the command that submits ---


@dataclass(eq=False)
class _Task:
    """A task of the array, with those of its cells that have not ended."""

    id: str
    jobs: list[Job]
    state: str = "PENDING"
    reason: str = ""
    gone: float | None = None
    seen: dict[Cell, str] = field(default_factory=dict)  # what was told last of a cell's progress


class SlurmEngine:
    """Engine whose jobs are those of a Slurm cluster; see `CellEngine`.

    Args:
        request: is run by each job for its cells.
        placement: the device of the jobs.
        count: cells in all.
        command: the command line.
    """

    def __init__(self, request: Request, placement: Placement, count: int, command: str) -> None:
        self._request, self._placement, self._command = request, placement, command
        self.slots = -(-count // request.cells_per_job)
        self.detached = request.detach
        self._accepted: list[Job] = []
        self._tasks: list[_Task] = []
        self._before: dict[Cell, tuple[int, int] | None] = {}
        self._looked = 0.0
        self._late = _LATE

    @property
    def state(self) -> str:
        arrays = ", ".join(dict.fromkeys(task.id.partition("_")[0] for task in self._tasks))
        states = Counter(
            f"{task.state.lower()}{f' ({task.reason})' if task.reason else ''}" for task in self._tasks if task.jobs
        )
        return f"Slurm's job {arrays}: {', '.join(f'{count:,} {state}' for state, count in states.items())}"

    def submit(self, job: Job) -> None:
        self._accepted.append(job)

    def start(self) -> None:
        from bench.run.engines.slurm_job import run_cells

        size = self._request.cells_per_job
        groups = [self._accepted[first : first + size] for first in range(0, len(self._accepted), size)]
        if not groups:
            return
        run = groups[0][0].files.parents[1].absolute()
        # what the job's process runs by itself
        asked = self._request.model_copy(update={"engine": "local", "out": run, "detach": False})
        executor = executor_of(run / LOGS, self._request)
        most = longest_array()
        self._before = {job.cell: _stamp(job.files) for job in self._accepted}
        for first in range(0, len(groups), most):
            part = groups[first : first + most]
            texts = [asked.model_dump_json()] * len(part)
            names = [tuple(job.files.name for job in group) for group in part]
            try:
                submitted = executor.map_array(
                    run_cells, texts, names, [self._placement] * len(part), [self._command] * len(part)
                )
            except Exception as error:  # submitit's own, or the system's
                self.detached = False  # what was taken before is ended
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise UserError([f"Slurm does not take the jobs: {lines[-1]}"]) from error
            self._tasks += [_Task(one.job_id, group) for one, group in zip(submitted, part, strict=True)]
        for task in self._tasks:
            for job in task.jobs:
                queued(job.files, task.id)

    def events(self, timeout: float) -> Iterator[Event]:
        time.sleep(timeout)
        if time.monotonic() - self._looked >= _LOOK:
            self._looked = time.monotonic()
            self._look()
        now = time.monotonic()
        for task in self._tasks:
            if task.jobs and (task.state != "PENDING" or task.seen):
                yield from self._of(task, now)

    def _of(self, task: _Task, now: float) -> Iterator[Event]:
        for job in list(task.jobs):
            result = self._result(job)
            ended = task.gone is not None and now - task.gone >= self._late
            state = read_job(job.files)
            # one that was interrupted goes on while its job is in the queue, or comes back into it
            if result is not None and (result.status != "interrupted" or ended):
                task.jobs.remove(job)
                yield Event(job, "written", {"value": result})
            elif ended:
                task.jobs.remove(job)
                JobFile(job.files, "slurm").clear()
                yield Event(job, "failed", _lost(task, job))
            elif state is None or state.stage == "queued" or task.state != "RUNNING":
                continue
            elif task.seen.get(job.cell) != state.updated:
                task.seen[job.cell] = state.updated
                known = {name: value for name, value in state.model_dump().items() if value is not None}
                yield Event(job, "progress", known)

    def _result(self, job: Job) -> Result | None:
        """The result that the cell's job has written; None where there is none, or one of before."""
        stamp = _stamp(job.files)
        if stamp is None or stamp == self._before.get(job.cell):
            return None
        return Run(job.files.parents[1]).result(job.cell)

    def _look(self) -> None:
        """Bring the states of the tasks up to date; where Slurm does not answer, they stay as they were."""
        open_ = [task for task in self._tasks if task.jobs]
        if (found := states([task.id for task in open_])) is None:
            return
        for task in open_:
            task.state, reason = found[task.id]
            task.reason = "" if task.state == "RUNNING" or reason == "None" else reason
            task.gone = (task.gone or time.monotonic()) if task.state in ENDED else None

    def cancel(self, cell: Cell) -> None:
        for task in self._tasks:
            if any(job.cell == cell for job in task.jobs):
                task.jobs = [job for job in task.jobs if job.cell != cell]
                if not task.jobs:  # else the others of its job go on
                    call("scancel", task.id)

    def preempt(self) -> None:
        self._late, self._looked = _SOON, 0.0
        ids = [task.id for task in self._tasks if task.jobs]
        if ids:
            call("scancel", "--state=PENDING", *ids)
            call("scancel", "--batch", "--signal=TERM", *ids)

    def close(self) -> None:
        if not self.detached and (left := [task for task in self._tasks if task.jobs]):
            call("scancel", *(task.id for task in left))
            for task in left:
                for job in task.jobs:
                    if (state := read_job(job.files)) is not None and state.stage == "queued":
                        JobFile(job.files, "slurm").clear()


class _Slurm:
    """Entry of the engine; nothing is submitted when one is made."""

    problems = staticmethod(problems)
    placement = staticmethod(placement)

    def __call__(self, request: Request, placement: Placement, cells: Sequence[Cell], command: str) -> SlurmEngine:
        return SlurmEngine(request, placement, len(cells), command)

    @staticmethod
    def withdraw(ids: Sequence[str]) -> None:
        """Take jobs out of the queue; those that run meanwhile are left alone."""
        call("scancel", "--state=PENDING", *ids)


ENGINES.add("slurm", _Slurm())


def longest_array() -> int:
    said = call("scontrol", "show", "config")
    lines = [] if isinstance(said, Exception) else said.splitlines()
    found = [line.partition("=")[2].strip() for line in lines if line.startswith("MaxArraySize")]
    return max(1, int(found[0])) if found and found[0].isdigit() else 1000


def _stamp(folder: Path) -> tuple[int, int] | None:
    """The mark of a cell's result file: every write makes a new one."""
    try:
        found = (folder / "result.json").stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def queued(folder: Path, id: str) -> None:
    JobFile(folder, "slurm", id).write({"stage": "queued", "host": "", "pid": 0})


def _lost(task: _Task, job: Job) -> dict[str, Any]:
    """The failure of a cell whose job ended without a result of it."""
    log = job.files.parents[1] / LOGS / f"{task.id}_0_log.out"
    try:
        printed = log.read_text(errors="replace")[-4000:]
    except OSError:
        printed = f"{log} is not there: the job's machine may not see the run directory"
    return {
        "status": {"OUT_OF_MEMORY": "oom", "CANCELLED": "interrupted"}.get(task.state, "failed"),
        "error": f"Slurm's job {task.id} ended without a result ({task.state})",
        "traceback": printed,
    }
