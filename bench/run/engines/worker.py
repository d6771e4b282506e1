"""A worker process: gets one job at a time from the parent, sends back how it goes and how it ended.

This module imports what every job needs; the process that workers are forked from imports it once.
"""

from __future__ import annotations

import shutil
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import torch

import open_clip  # noqa: F401  # isort: skip  (imported before the fork, not in every worker)
import timm  # noqa: F401  # isort: skip

from bench.plugins import load as load_plugins
from bench.processes import STOP_SIGNALS, SharedFlag, end_with_parent, is_orphan
from bench.run.cell import execute, measure
from bench.run.context import WorkerContext
from bench.run.engines.base import Job
from bench.run.engines.local import Setup, settle
from bench.run.repeatable import as_repeatable_as_possible
from bench.run.result import Result
from bench.run.together import Member, execute_together
from bench.spec import Cell
from bench.train.checkpoint import Preempted
from bench.train.compute import is_out_of_memory
from bench.train.ranks import RanksFailed
from bench.version import commit

_PATIENCE = 0.2  # seconds by which a dying process may close one of its files before another


def main(connection: Connection, setup: Setup) -> None:
    """Answer jobs until the connection closes or the parent dies."""
    settle(setup.output)
    end_with_parent(setup.output.parent)
    load_plugins(setup.plugins)
    device = torch.device(setup.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    stoppable, stopping = SharedFlag(), SharedFlag()
    # an exit, so that half-written files are cleared away; a training is told, and leaves a checkpoint
    # and what it has done is sent, also where a scheduler's signal is followed by that of the run
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stopping.set() if stoppable.is_set() or stopping.is_set() else sys.exit(143))
    context: WorkerContext | None = None
    commit()  # as it is now, when the code was loaded
    connection.send(("ready", {}))
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            if is_orphan(_PATIENCE):
                shutil.rmtree(setup.output.parent, ignore_errors=True)
            return
        if context is None:  # the first job's cache stays: it may hold frames in this process
            context = WorkerContext(
                device,
                setup.reading,
                setup.command,
                job.cache,
                device_notes=setup.notes,
                checkpoint_minutes=setup.checkpoint_minutes,
                stoppable=stoppable,
                stopping=stopping,
            )
        connection.send(_run(job, setup, context, connection))
        if stopping.is_set():
            return


def _run(job: Job, setup: Setup, context: WorkerContext, connection: Connection) -> tuple[str, dict[str, Any]]:
    """The job's outcome: "measured" or "trained" with a value, or "failed" with the error's line and traceback.

    Of a job of several cells it is that of all whose own was not sent before.
    """
    torch.set_num_threads(job.threads)
    try:
        if job.beside:
            return _done_together(job, context, connection)
        return as_repeatable_as_possible(context, lambda: _done(job, setup, context, connection))
    except Exception as error:  # a broken cell must not take the others with it, whatever broke it
        return _told(error)
    finally:
        context.stoppable.clear()
        context.cleanup.close()
        if context.device.type == "cuda":
            torch.cuda.empty_cache()


def _told(error: Exception) -> tuple[str, dict[str, Any]]:
    """The outcome of a job that ended with an error."""
    if isinstance(error, Preempted):
        return "preempted", {"error": str(error)}
    if isinstance(error, RanksFailed):
        return "failed", {"status": error.status, "error": error.line, "traceback": error.traceback}
    line = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}"
    status = "oom" if is_out_of_memory(error) else "failed"
    return "failed", {"status": status, "error": line, "traceback": "".join(traceback.format_exception(error))}


def _done_together(job: Job, context: WorkerContext, connection: Connection) -> tuple[str, dict[str, Any]]:
    """Train the cells of a job from one forward pass; what becomes of each is sent when it ends."""
    numbers = {part.cell: number for number, part in enumerate(job.parts)}

    def send(cell: Cell, kind: str, values: dict[str, Any]) -> None:
        connection.send(("part", {"number": numbers[cell], "kind": kind, "values": values}))

    def report(cell: Cell, values: dict[str, Any]) -> None:
        _stop_in_evaluation(context, values)
        send(cell, "progress", values)

    members = [Member(part.cell, part.files, part.measured) for part in job.parts]
    for cell, found in execute_together(members, context, report):
        if isinstance(found, Result):
            send(cell, "trained", {"value": found})
            continue
        kind, values = _told(found)
        if values.get("status") == "oom":  # by itself it may have room
            values["apart"] = True
        send(cell, kind, values)
    return "failed", {"status": "failed", "error": "its training ended without an outcome", "traceback": None}


def _stop_in_evaluation(context: WorkerContext, values: dict[str, Any]) -> None:
    """Raise Preempted where a cell that is being evaluated is to stop."""
    if values["stage"] == "evaluating" and context.stopping.is_set():
        raise Preempted("stopped from outside in its evaluation; the checkpoint of its training is kept")


def _done(job: Job, setup: Setup, context: WorkerContext, connection: Connection) -> tuple[str, dict[str, Any]]:
    if job.kind == "measure":
        measured, _ = measure(job.cell, context)
        return "measured", {"value": measured}
    if job.measured is None and "measure" in job.cell.stages:
        raise ValueError("a training needs its model's measurements")
    if setup.ranks:
        from bench.run.engines.ranks import execute_on_ranks

        return "trained", {"value": execute_on_ranks(job, setup, context, connection)}

    def report(values: dict[str, Any]) -> None:
        _stop_in_evaluation(context, values)
        connection.send(("progress", values))

    result = execute(job.cell, context, measured=job.measured, folder=job.folder, report=report)
    return "trained", {"value": result}
