"""A job on several processes of this machine: torch's elastic launcher starts them and ends all where one ends.

Its agent runs in the process that was given the job. One attempt is made: what went wrong is told as the job's failure,
and the same command goes on from the last checkpoint. Clips, labels and frozen weights never travel between the ranks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bench.plugins import load as load_plugins
from bench.processes import METHOD, STOP_SIGNALS, SharedFlag, context, end_with_parent
from bench.run.cell import assist, execute
from bench.run.context import WorkerContext
from bench.run.engines.base import Job
from bench.run.engines.local import Setup, ending, settle
from bench.run.result import Result
from bench.train.checkpoint import Preempted
from bench.train.compute import is_out_of_memory
from bench.train.ranks import RankLost, Ranks, RanksFailed

import bench.run.engines.worker  # noqa: F401  # isort: skip  (imported before the fork, not in every rank)

# seconds that a rank waits before it tells of a companion's end: the companion's own error must come first
_DEFERENCE = 5.0
_GRACE = 5  # seconds that ranks are given to end where one has


def execute_on_ranks(job: Job, setup: Setup, parent: WorkerContext, progress: Connection) -> Result:
    """Execute a job on a rank for each device of `setup.ranks`.

    Args:
        job: trains or is evaluated.
        setup: of the ranks.
        parent: of this process.
        progress: gets ("progress", values) from rank 0.

    Raises:
        Preempted: it was stopped from outside, its checkpoint written.
        RanksFailed: a rank failed, or was killed.
    """
    context(preload="bench.run.engines.ranks")  # which the launcher's processes are forked from
    size = len(setup.ranks)
    with tempfile.TemporaryDirectory(prefix="aim-bench-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=size,
            run_id=Path(folder).name,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            monitor_interval=0.05,
            start_method=METHOD,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle="SIGQUIT",  # the others are this process's own matter
            shutdown_timeout=_GRACE,
        )
        flags = parent.stoppable, parent.stopping
        try:
            launch = elastic_launch(config, _rank)
            found = launch(job, setup, parent.unrepeatable, dict(parent.broken), flags, progress, Path(folder))
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            if (told := _error_file(Path(folder), failure.local_rank)).is_file():
                raise RanksFailed(**json.loads(told.read_text())) from None
            status, how = ending(failure.exitcode)
            line = f"process {failure.local_rank} of the cell's {size} {how}"
            raise RanksFailed(line, status, line) from None
    if isinstance(stopped := found[0], str):
        raise Preempted(stopped)
    result: Result = found[0]
    return result


def _rank(
    job: Job,
    setup: Setup,
    unrepeatable: str,
    broken: dict[Path, str],
    flags: tuple[SharedFlag, SharedFlag],
    progress: Connection,
    folder: Path,
) -> Result | str | None:
    """One rank's part: the result of rank 0, and of all why they stopped where they were asked to.

    An error is also written into `folder`; what the launcher itself keeps of it does not tell a lack of memory.
    """
    settle(setup.output)
    end_with_parent()
    stoppable, _ = flags
    for number in STOP_SIGNALS:  # a training goes on until its parent, which got the signal too, has it stop
        signal.signal(number, lambda *_: None if stoppable.is_set() else os._exit(143))
    try:
        return _executed(job, setup, unrepeatable, broken, flags, progress)
    except Preempted as stopped:
        return str(stopped)
    except BaseException as error:
        if isinstance(error, RankLost):
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            time.sleep(_DEFERENCE)
        _error_file(folder, int(os.environ["RANK"])).write_text(json.dumps(_described(error)))
        raise


def _executed(
    job: Job,
    setup: Setup,
    unrepeatable: str,
    broken: dict[Path, str],
    flags: tuple[SharedFlag, SharedFlag],
    progress: Connection,
) -> Result | None:
    load_plugins(setup.plugins)
    number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device(setup.ranks[number])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(max(1, job.threads // size))
    if sys.platform == "linux":  # all are on this machine, whatever its name resolves to
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    ranks = Ranks(number, size, job.cell.seed)
    stoppable, stopping = flags
    with ExitStack() as cleanup:
        cleanup.callback(dist.destroy_process_group)
        own = WorkerContext(
            device,
            setup.reading,
            setup.command,
            job.cache,
            broken,
            cleanup.enter_context(ExitStack()),
            device_notes=setup.notes,
            checkpoint_minutes=setup.checkpoint_minutes,
            stoppable=stoppable,
            stopping=stopping,
            unrepeatable=unrepeatable,
            ranks=ranks,
        )

        def report(values: dict[str, Any]) -> None:
            if values["stage"] == "evaluating" and ranks.any(stopping.is_set()):
                raise Preempted("stopped from outside in its evaluation; the checkpoint of its training is kept")
            if ranks.first:
                progress.send(("progress", values))

        if ranks.first:
            return execute(job.cell, own, measured=job.measured, folder=job.folder, report=report)
        assist(job.cell, own, measured=job.measured, folder=job.folder, report=report)
        return None


def _error_file(folder: Path, rank: int) -> Path:
    return folder / f"error-{rank}.json"


def _described(error: BaseException) -> dict[str, str]:
    """The arguments of RanksFailed."""
    text = str(error).strip()
    return {
        "message": text or "no details",
        "status": "oom" if is_out_of_memory(error) else "failed",
        "line": f"{type(error).__name__}: {text.splitlines()[0] if text else 'no details'}",
        "traceback": "".join(traceback.format_exception(error)),
    }
