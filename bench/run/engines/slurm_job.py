"""A job of a Slurm cluster: runs its cells in the run directory, and comes back into the queue at its time limit.

- Near the limit Slurm sends SIGUSR1 to the job's main process: trainings write a checkpoint, and the job requeues
  itself, unless it came no further at all.
- SIGTERM has them write a checkpoint as well. It comes from a preemption, after which Slurm requeues the job, or from
  `scancel`, after which nobody does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.measure.placement import Placement, place
from bench.plugins import load as load_plugins
from bench.processes import STOP_SIGNALS, StopRequested
from bench.run.engines.jobs import JobFile
from bench.run.engines.jobs import read as read_job
from bench.run.engines.slurm import queued
from bench.run.engines.slurm_request import call, told
from bench.run.matrix import Plan
from bench.run.result import Result
from bench.run.start import execute
from bench.run.store import CHECKPOINT, Run
from bench.spec import Cell, Request


class _Log:
    """Listener of a job: a line for what ends and for what is to be known."""

    def noted(self, note: str) -> None:
        print(note, flush=True)

    def waiting(self, what: str) -> None:
        print(f"waiting for {what}", flush=True)

    def ended(self, result: Result) -> None:
        print(f"{result.status}: {result.cell.label}{f': {result.error}' if result.error else ''}", flush=True)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def run_cells(asked: str, names: tuple[str, ...], placement: Placement, command: str) -> None:
    """Run cells of a run that is open already: the main function of a job. It ends in an exit with a code.

    Args:
        asked: the request, as JSON.
        names: of the cells' folders.
        placement: their device, which must be there.
        command: the command line that submitted the job.
    """
    id = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if (array := os.environ.get("SLURM_ARRAY_JOB_ID")) else ""
    id = id or os.environ["SLURM_JOB_ID"]
    received: list[int] = []

    def stop(number: int, _: Any) -> None:
        received.append(number)
        if len(received) == 1:  # others, as at the limit itself, must not disturb the writing of checkpoints
            raise StopRequested

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    request = Request.model_validate_json(asked)
    run = Run(request.out or Path())
    folders = [run.folder / "cells" / name for name in names]
    before = _progress(folders)
    code = 0
    try:
        load_plugins(request.plugins)
        place(placement.torch_name, placement.precision)
        cells = [Cell.model_validate_json((folder / "cell.json").read_text(encoding="utf-8")) for folder in folders]
        if int(os.environ.get("SLURM_RESTART_COUNT", 0)):  # what failed in this job is not tried again by itself
            cells = [cell for cell in cells if not _failed_here(run, run.cell_folder(cell))]
        listener: Any = _Log()
        planned = Plan(tuple(cells), placement, ())
        _, outcome = execute(request, planned, command, listener, within=("slurm", id))
        for note in outcome.notes:
            print(note, flush=True)
        failed = bool(outcome.failures or outcome.unwritten)
        code = 75 if outcome.requeue else 130 if outcome.interrupted else int(failed)
    except KeyboardInterrupt:  # before the first cell began
        code = 75
    except UserError:
        traceback.print_exc()
        code = 2
    for folder in folders:  # those that it did not come to
        if (state := read_job(folder)) is not None and state.id == id:
            JobFile(folder, "slurm").clear()
    if received and received[0] == signal.SIGUSR1:
        if _progress(folders) == before:
            print("the job is not requeued: it came no further within its time limit", flush=True)
        else:
            _put_back(run, folders, id)
            said = call("scontrol", "requeue", os.environ["SLURM_JOB_ID"])
            how = told(said) if isinstance(said, Exception) else "it goes on from its checkpoints"
            print(f"requeued: {how}", flush=True)
    elif received and _comes_back():
        _put_back(run, folders, id)
    sys.exit(code)


def _failed_here(run: Run, folder: Path) -> bool:
    """Test whether a cell failed since the run was opened, which whoever submitted this job did."""
    return _status(folder) in ("failed", "oom") and (folder / "result.json").stat().st_mtime > run.changed()


def _comes_back() -> bool:
    """Test whether Slurm puts this job, which it ends, back into the queue: it counts the restart beforehand, or gives
    a job that it preempts some time before.
    """
    said = call("scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"])
    if isinstance(said, Exception):
        return False
    fields = dict(part.partition("=")[::2] for part in said.split())
    restarted = fields.get("Restarts", "0") != os.environ.get("SLURM_RESTART_COUNT", "0")
    preempted = fields.get("PreemptTime", "None") not in ("None", "N/A", "Unknown")
    return restarted or (preempted and fields.get("Requeue") == "1")


def _progress(folders: Sequence[Path]) -> list[str]:
    """Return the statuses and checkpoints of cells as texts; another one means that a cell came further."""
    found = []
    for folder in folders:
        text = _status(folder)
        with contextlib.suppress(OSError):
            text += (folder / CHECKPOINT / "checkpoint.json").read_text(encoding="utf-8")
        found.append(text)
    return found


def _status(folder: Path) -> str:
    """The status of a cell's result; empty where it has none."""
    with contextlib.suppress(OSError, ValueError):
        return Result.model_validate_json((folder / "result.json").read_text(encoding="utf-8")).status
    return ""


def _put_back(run: Run, folders: Sequence[Path], id: str) -> None:
    """Let `bench status` tell that the cells which this job has not finished wait in the queue."""
    for folder in folders:
        if _status(folder) != "done" and not _failed_here(run, folder):
            queued(folder, id)
