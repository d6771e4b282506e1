"""`bench data prepare` split over the tasks of an engine, which share nothing but the folder of the cache.

The command lists the videos there, has the engine start the tasks (`preparation_task`), and follows their files.

Imports no torch, and Ray or submitit when they are asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from bench.data.cache.choose import claimed
from bench.data.cache.store import FolderStore, locked
from bench.errors import UserError
from bench.files import write_text
from bench.measure.machine import cores
from bench.measure.placement import Placement
from bench.processes import context, processes_starting
from bench.run.preparation_task import (
    VIDEOS,
    Share,
    Tally,
    TaskState,
    prepare_in_job,
    prepare_in_process,
    prepare_share,
    read_task,
)
from bench.spec import Request
from bench.text import counted

FOLDER = "preparing"  # in the cache's, with a folder for each command that has tasks
_TICK = 0.3  # seconds between two looks at the tasks
_LATE = 10.0  # seconds within which a file that another machine wrote shows here
_PATIENCE = 5.0  # seconds that a task of this machine is given to end
_LOSSES = 5  # times that Ray places a task again after its node died


@dataclass(frozen=True)
class TaskOptions:
    """Options of the tasks, as the user asked for them.

    Attributes:
        engine: local, ray or slurm.
        count: of tasks.
        workers: decoding processes of each; None: one a core, on this machine divided among the tasks.
        slurm, ray_address: as of `Request`.
    """

    engine: str = "local"
    count: int = 1
    workers: int | None = None
    slurm: dict[str, Any] = field(default_factory=dict)
    ray_address: str | None = None

    def request(self, folder: Path) -> Request:
        return Request(engine=self.engine, slurm=self.slurm, ray_address=self.ray_address, out=folder)


def problems(options: TaskOptions, folder: Path) -> list[str]:
    """Return what is wrong with the options; the scheduler is asked, and nothing is submitted.

    Args:
        folder: of the cache.
    """
    from bench.run.engines.ray import RayFactory
    from bench.run.engines.slurm_request import problems as of_slurm

    found = []
    for name, engine in (("slurm", "slurm"), ("ray_address", "ray")):
        if (value := getattr(options, name)) and options.engine != engine:
            found.append(
                f"{name} is {value!r}: engine {options.engine!r} has no use for it, expected engine {engine!r}"
            )
    if options.engine == "ray":
        found += RayFactory().problems(options.request(folder))
    if options.engine == "slurm":  # whose word for the folder that its jobs write to is that of a run
        told = of_slurm(options.request(folder))
        found += [
            f"AIM_BENCH_CACHE is{one.removeprefix('out is')}" if one.startswith("out is") else one for one in told
        ]
    return found


class Tasks(Protocol):
    """Tasks that an engine was given.

    Attributes:
        late: seconds after a task's end within which its last word shows.
    """

    late: float

    def over(self) -> dict[int, str]:
        """Return how the tasks ended that are over, in words that tell of a failure, by their index."""
        ...

    def close(self) -> None:
        """End those that are not over."""
        ...


def fill_by_tasks(
    store: FolderStore,
    paths: Sequence[Path],
    short_side: int | None,
    options: TaskOptions,
    progress: Callable[[Tally, str], None],
) -> tuple[Tally, list[str]]:
    """Fill the cache by tasks, and wait for them.

    Args:
        progress: gets what is done so far, and how the tasks are in words.

    Returns:
        What was done, and a sentence on each task that did not come to its end.

    Raises:
        UserError: the engine does not take the tasks.
        OSError: the folder cannot be written.
    """
    folder = store.folder / FOLDER / secrets.token_hex(6)
    claim = contextlib.ExitStack()
    with locked(_lock_of(store)):  # so that no other command takes it for one that is left before it is claimed
        folder.mkdir(parents=True)
        claim.enter_context(claimed(folder))
    try:
        write_text(folder / VIDEOS, json.dumps([os.path.abspath(path) for path in paths]))
        count = max(1, min(options.count, len(paths)))
        workers = options.workers or (max(1, cores() // count) if options.engine == "local" else None)
        shares = [Share(folder, index, count, store, short_side, workers) for index in range(count)]
        with contextlib.closing(_started(shares, options)) as tasks:
            return _followed(folder, tasks, [len(paths[index::count]) for index in range(count)], progress)
    finally:
        with locked(_lock_of(store)):
            claim.close()
            _remove(folder)


def clear_left(store: FolderStore) -> None:
    """Remove the folders of commands that were killed, where no task of them is left that runs. Raises OSError.

    A Slurm job of theirs that still waits in the queue fails when it starts; its videos are decoded by who needs them.
    """
    if (store.folder / FOLDER).is_dir():
        with locked(_lock_of(store)):
            for folder in (store.folder / FOLDER).glob("*/"):
                with claimed(folder, _remove):
                    pass


def _lock_of(store: FolderStore) -> Path:
    return store.folder / "locks" / FOLDER


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # others are there
        folder.parent.rmdir()


def _started(shares: Sequence[Share], options: TaskOptions) -> Tasks:
    kinds: dict[str, Callable[[Sequence[Share], TaskOptions], Tasks]]
    kinds = {"local": _Processes, "ray": _RayTasks, "slurm": _Jobs}
    return kinds[options.engine](shares, options)


def _followed(
    folder: Path, tasks: Tasks, listed: Sequence[int], progress: Callable[[Tally, str], None]
) -> tuple[Tally, list[str]]:
    gone: dict[int, float] = {}  # since when a task is over that has not told that it did its part
    states: list[TaskState | None] = [None] * len(listed)
    while True:
        over, now = tasks.over(), time.monotonic()  # first, as a task writes before it ends
        states = [
            state if state is not None and state.ended else read_task(folder, index)
            for index, state in enumerate(states)
        ]
        ended = {index for index, state in enumerate(states) if state is not None and state.ended}
        gone = {index: gone.get(index, now) for index in over if index not in ended}  # a requeued one is back
        lost = [index for index, since in gone.items() if now - since >= tasks.late]
        seen = {index for index, state in enumerate(states) if state is not None}
        running = len(seen.difference(ended, lost))
        waiting = len(listed) - running - len(ended) - len(lost)
        parts = ((running, "running"), (waiting, "waiting"), (len(ended), "done"), (len(lost), "lost"))
        tally = sum((state.tally for state in states if state is not None), Tally())
        progress(tally, f"tasks: {', '.join(f'{count} {word}' for count, word in parts if count)}")
        if len(ended) + len(lost) == len(listed):
            return tally, [_failure(index, listed, states[index], over[index], folder) for index in sorted(lost)]
        time.sleep(_TICK)


def _failure(index: int, listed: Sequence[int], state: TaskState | None, how: str, folder: Path) -> str:
    """The sentence on a task that did not come to its end."""
    name = f"task {index + 1} of {len(listed)}"
    if state is None:
        return f"{name} {how} before it began: its machine may not see {folder.parent.parent}"
    left = f"{listed[index] - state.tally.done:,} of its {counted(listed[index], 'video')} are left"
    return f"{name} on {state.host} {f'failed ({state.error})' if state.error else how}; {left}"


class _Processes:
    """Tasks that are processes of this machine."""

    late = 0.0

    def __init__(self, shares: Sequence[Share], options: TaskOptions) -> None:
        found = context(preload="bench.run.preparation_task")
        self._processes: list[Any] = []
        with contextlib.ExitStack() as undone:
            undone.callback(self.close)
            with processes_starting(found):
                for share in shares:
                    process = found.Process(target=prepare_in_process, args=(share,))
                    process.start()
                    self._processes.append(process)
            undone.pop_all()

    def over(self) -> dict[int, str]:
        from bench.run.engines.local import ending

        codes = {index: process.exitcode for index, process in enumerate(self._processes)}
        return {index: ending(code)[1] for index, code in codes.items() if code is not None}

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


class _RayTasks:
    """Tasks of a Ray cluster, each with a CPU for every decoding process."""

    late = _LATE

    def __init__(self, shares: Sequence[Share], options: TaskOptions) -> None:
        from bench.run.engines.ray_cluster import ENVIRONMENT, Needs, address_of, connect, nodes_of_cluster

        os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
        self._opened = contextlib.ExitStack()
        try:
            connect(address_of(options.request(Path())), Placement("cpu", None, "fp32"), self._opened)
            import ray

            self._ray = ray
            most = max((node.cpus for node in nodes_of_cluster().values()), default=0)
            needs = Needs(options.workers or max(1, most))
            if needs.cpus > most:
                raise UserError([f"workers is {needs.cpus}: no node of the Ray cluster has more than {most} CPUs"])
            shares = [replace(share, workers=needs.cpus) for share in shares]
            task = ray.remote(num_cpus=needs.cpus, max_retries=_LOSSES)(prepare_share)
            self._tasks = [task.remote(share) for share in shares]
        except BaseException:
            self._opened.close()
            raise

    def over(self) -> dict[int, str]:
        ready, _ = self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
        found = {}
        for index in (self._tasks.index(one) for one in ready):
            try:
                self._ray.get(self._tasks[index])
                found[index] = "ended"
            except self._ray.exceptions.RayTaskError as error:
                found[index] = f"failed ({' '.join(str(error.cause).split())})"
            except self._ray.exceptions.RayError as error:
                found[index] = f"was lost ({' '.join(str(error).split())[:300]})"
        return found

    def close(self) -> None:
        for task in self._tasks:
            with contextlib.suppress(self._ray.exceptions.RayError, TypeError, ValueError):
                self._ray.cancel(task, force=True)
        self._opened.close()


class _Jobs:
    """Tasks that are jobs of a Slurm cluster, submitted as arrays."""

    late = _LATE

    def __init__(self, shares: Sequence[Share], options: TaskOptions) -> None:
        from bench.run.engines import slurm, slurm_request

        self._slurm, self._call = slurm, slurm_request.call
        folder = shares[0].folder
        writer, most = slurm_request.executor(folder / slurm.LOGS, options.request(folder)), slurm.longest_array()
        self._ids: list[str] = []
        try:
            for first in range(0, len(shares), most):
                jobs = writer.map_array(prepare_in_job, shares[first : first + most])
                self._ids += [job.job_id for job in jobs]
        except Exception as error:  # submitit's own, or the system's
            self.close()
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError([f"Slurm does not take the jobs: {lines[-1]}"]) from error

    def over(self) -> dict[int, str]:
        found = self._slurm.states(self._ids) or {}
        return {
            index: f"ended as Slurm's job {id} ({found[id][0]})"
            for index, id in enumerate(self._ids)
            if id in found and found[id][0] in self._slurm.ENDED
        }

    def close(self) -> None:
        if self._ids:
            self._call("scancel", *self._ids)
