"""The engine of a Slurm cluster: an array of jobs, each of which runs its cells in the shared run directory.

A job is `bench run` over its cells: it claims them, measures, trains, keeps checkpoints and writes results as any other
process of the run does (`slurm_job`). Its command only submits the jobs, and follows their files and Slurm's queue.

Imports no torch and, until Slurm is asked for, no submitit.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.measure.placement import Placement
from bench.processes import commands_shielded
from bench.run.engines.base import ENGINES, Event, Job
from bench.run.engines.jobs import JobFile
from bench.run.engines.jobs import read as read_job
from bench.run.engines.slurm_request import call, executor, placement, problems, told
from bench.run.engines.waiting import bundles
from bench.run.result import Result
from bench.run.sharing import pass_key
from bench.run.store import Run
from bench.spec import Cell, Request

LOGS = "slurm"  # folder of a run, with what the jobs print
_LOOK = 3.0  # seconds between looks at the queue
_LATE = 10.0  # seconds within which a file that a job wrote shows here, as on a network's file system
_SOON = 1.0  # the same where jobs were told to end
ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)


@dataclass(eq=False)
class _Task:
    """A task of the array, with those of its cells that have not ended.

    Attributes:
        ours: this command submitted it, and not an earlier one.
    """

    id: str
    jobs: list[Job]
    ours: bool = True
    state: str = "PENDING"
    reason: str = ""
    gone: float | None = None
    seen: dict[Cell, str] = field(default_factory=dict)  # what was told last of a cell's progress


class SlurmEngine:
    """Engine whose jobs are those of a Slurm cluster; see `CellEngine`.

    Args:
        request: is run by each job for its cells.
        placement: the device of the jobs.
        count: cells in all; those that share a pass count as one, as in a job.
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

        self._follow_submitted()
        size = self._request.cells_per_job
        jobs = {job.cell: job for job in self._accepted}
        alike = _bundles(self._request, list(jobs))
        parts = [alike[first : first + size] for first in range(0, len(alike), size)]
        groups = [[jobs[cell] for cells in part for cell in cells] for part in parts]
        if not groups:
            return
        run = groups[0][0].files.parents[1].absolute()
        # what the job's process runs by itself
        asked = self._request.model_copy(update={"engine": "local", "out": run, "detach": False})
        writer = executor(run / LOGS, self._request)
        most = longest_array()
        self._before |= {job.cell: _stamp(job.files) for job in self._accepted}
        before, self._accepted = len(self._tasks), []
        for first in range(0, len(groups), most):
            part = groups[first : first + most]
            texts = [asked.model_dump_json()] * len(part)
            names = [tuple(job.files.name for job in group) for group in part]
            try:
                with commands_shielded():
                    submitted = writer.map_array(
                        run_cells, texts, names, [self._placement] * len(part), [self._command] * len(part)
                    )
                    # in here: an interrupt that came meanwhile must find them
                    self._tasks += [_Task(one.job_id, group) for one, group in zip(submitted, part, strict=True)]
            except Exception as error:  # submitit's own, or the system's
                self.detached = False  # what was taken before is ended, not what others submitted
                self._tasks = [task for task in self._tasks if task.ours]
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise UserError([f"Slurm does not take the jobs: {lines[-1]}"]) from error
        for task in self._tasks[before:]:
            for job in task.jobs:
                queued(job.files, task.id)

    def _follow_submitted(self) -> None:
        """Follow the jobs that an earlier command submitted, in the queue or running, where cells have one."""
        known = {job.cell: id for job in self._accepted if (id := _submitted_as(job.files))}
        found = states(list(known.values())) or {}
        tasks: dict[str, _Task] = {}
        for job in self._accepted:
            id = known.get(job.cell, "")
            now, _ = found.get(id, ("COMPLETED", ""))
            if now not in ENDED:
                tasks.setdefault(id, _Task(id, [], ours=False, state=now)).jobs.append(job)
        followed = {job.cell: _stamp(job.files) for task in tasks.values() for job in task.jobs}
        self._before |= followed
        self._accepted = [job for job in self._accepted if job.cell not in followed]
        self._tasks += tasks.values()

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
        found = states([task.id for task in open_])
        if found is None:
            return
        for task in open_:
            state, reason = found[task.id]
            task.state, task.reason = state, "" if state == "RUNNING" or reason == "None" else reason
            if state not in ENDED:
                task.gone = None
            elif task.gone is None:
                task.gone = time.monotonic()

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
        return SlurmEngine(request, placement, len(_bundles(request, cells)), command)

    @staticmethod
    def withdraw(ids: Sequence[str]) -> None:
        """Take jobs out of the queue; those that run meanwhile are left alone."""
        call("scancel", "--state=PENDING", *ids)


ENGINES.add("slurm", _Slurm())


def _bundles(request: Request, cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return cells as jobs count them: those that share a pass together."""
    shares = request.share_pass and request.processes_per_cell == 1
    return bundles(cells, pass_key if shares else lambda cell: None)


def states(ids: Sequence[str]) -> dict[str, tuple[str, str]] | None:
    """The states of jobs, and why they wait; None where Slurm does not answer. One that it has forgotten is over."""
    arrays = ",".join(dict.fromkeys(id.partition("_")[0] for id in ids))
    if not arrays:
        return {}
    said = call("squeue", "--noheader", "--array", "--states=all", f"--jobs={arrays}", "--format=%F|%K|%T|%r")
    if isinstance(said, Exception):
        if "Invalid job id" not in told(said):
            return None
        said = ""  # all ended long ago
    found = {}
    for line in said.splitlines():
        array, index, state, reason = line.strip().split("|", 3)
        found[f"{array}_{index}" if index.isdigit() else array] = state, reason
    return {id: found.get(id, ("COMPLETED", "")) for id in ids}


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


def _submitted_as(folder: Path) -> str:
    """The name of the job that a cell was submitted as last; empty where it was not."""
    state = read_job(folder)
    return state.id or "" if state is not None and state.engine == "slurm" else ""


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
