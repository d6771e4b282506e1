"""The contract of an engine, which executes the jobs of a run's cells, and the names of engines.

Imports no torch: the process that plans a run has no need of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from backbones.registry import Registry
from bench.data.cache import FrameCache
from bench.measure.placement import Placement
from bench.measure.result import Measured
from bench.spec import Cell, Request


@dataclass(frozen=True)
class Job:
    """Something to do for a cell: measure its model, or train and evaluate it (then with the measurements).

    Attributes:
        kind: "cell" is the whole of it, claim and result included, for a `CellEngine`.
        folder: of the cell, there already; None keeps no files, of a cell that does not train.
        threads: that compute it.
        cache: of decoded frames, the same in all jobs of a run. It is chosen while the engine starts.
        beside: jobs of other cells that train in the same process, from the same forward pass; see `joined`.
    """

    kind: Literal["measure", "train", "cell"]
    cell: Cell
    folder: Path | None
    threads: int
    cache: FrameCache
    measured: Measured | None = None
    beside: tuple[Job, ...] = ()

    @property
    def parts(self) -> tuple[Job, ...]:
        """The job of each of its cells by itself; of one cell the job."""
        return (replace(self, beside=()), *self.beside) if self.beside else (self,)

    @property
    def files(self) -> Path:
        """The folder. Raises ValueError of a job that keeps no files."""
        if self.folder is None:
            raise ValueError(f"{self.cell.label} keeps no files")
        return self.folder


def joined(jobs: Sequence[Job]) -> Job:
    """Return one job, of one slot, that trains the cells of several, which `bench.run.sharing.pass_key` says can."""
    first, *others = jobs
    return replace(first, beside=tuple(others)) if others else first


NOT_BEGUN = "stopped from outside before it began"  # the error of a job that no worker had


@dataclass(frozen=True)
class Event:
    """Progress of a job, or its end. Of a job of several cells each of its `parts` has its own.

    Attributes:
        kind: "progress" any number of times, then one of the others. "preempted": a training was stopped by
            `Engine.preempt` and has left a checkpoint.
        values: of "progress" stage, done (0..1) and what else there is to show; of "measured" the `Measured`, of
            "trained" the `Result`, as `value`; of "failed" status, error and traceback, and `apart`, True where it may
            be owed to the other cells of the job and the cell is to be tried by itself. "written" has as `value` a
            `Result` that is in its place already.
    """

    job: Job
    kind: Literal["progress", "measured", "trained", "failed", "preempted", "written"]
    values: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Executor of jobs, made for one run and closed at its end.

    It never looks into the run's results nor claims a cell: the runner above it does.

    Attributes:
        slots: jobs that it executes side by side; fewer once a worker is lost for good.

    An engine may have three attributes more. `measures_here`, where False, tells that its measurements are made on
    other machines, each of which it locks meanwhile itself. `trains_together`, where True, tells that it takes jobs of
    several cells; others get none. `notes` are sentences on how it went, for the end of the run.
    """

    @property
    def slots(self) -> int: ...

    def submit(self, job: Job) -> None:
        """Accept a job and return at once. No other job runs on the machine of a "measure" job, nor is started."""
        ...

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield what happened to the jobs within `timeout` seconds, of each job in order.

        Raises:
            WorkerFailed: no job can be executed any more.
        """
        ...

    def cancel(self, cell: Cell) -> None:
        """End the job of a cell, started or not; no event of it follows. Nothing happens where it has none."""
        ...

    def preempt(self) -> None:
        """Ask every job to end soon and return at once: a training writes its checkpoint after the present step, which
        its event "preempted" tells; other jobs end without one."""
        ...

    def close(self) -> None:
        """End every job, whatever it is doing, and free what the engine holds."""
        ...


@runtime_checkable
class CellEngine(Engine, Protocol):
    """Engine of a scheduler, whose jobs work in the run directory themselves: they claim cells, measure their models
    and write results. They need nobody who waits for them.

    Attributes:
        detached: nobody does; the command ends once they are submitted.
        state: of its jobs, in words.
    """

    @property
    def detached(self) -> bool: ...

    @property
    def state(self) -> str: ...

    def start(self) -> None:
        """Submit the jobs accepted since the last time, together. Raises UserError where the scheduler refuses them."""
        ...


class WorkerFailed(RuntimeError):
    """Error of an engine whose workers are all lost, as none came up; `printed` is what the last one said."""

    def __init__(self, message: str, printed: str) -> None:
        super().__init__(message)
        self.printed = printed


# a run's request, its device, the cells that have no result and the command line -> an engine that starts.
# It may have functions as attributes: `problems` (request -> sentences on what is wrong with its fields), `placement`
# (request -> the device of machines that this one cannot ask; None: this machine tells), and `withdraw` (takes those of
# the jobs of these ids that wait out of the scheduler's queue)
EngineFactory = Callable[[Request, Placement, Sequence[Cell], str], Engine]

ENGINES: Registry[EngineFactory] = Registry(
    "engine", "aim_bench.engines", ("bench.run.engines.local", "bench.run.engines.ray", "bench.run.engines.slurm")
)
