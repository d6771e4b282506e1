"""State of every cell of a run, from the run directory alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench.run.engines.base import ENGINES
from bench.run.engines.jobs import JobFile, JobState, ask_to_stop
from bench.run.engines.jobs import read as read_job
from bench.run.store import CHECKPOINT, Run
from bench.spec import Cell, Trial

# queued: in a scheduler's queue; stopped: its process is gone and has left no result
State = Literal["waiting", "queued", "running", "stopped", "done", "failed", "oom", "interrupted"]
STATES: tuple[State, ...] = ("running", "queued", "waiting", "stopped", "interrupted", "failed", "oom", "done")


@dataclass(frozen=True)
class CellStatus:
    """State of one cell.

    Attributes:
        folder: name of its folder.
        label: for people.
        state: see `State`.
        job: who executes it, where somebody does or did.
        step: of its last checkpoint, where it has one.
        top1: in percent, of a cell that is done; of a trial on the validation videos.
        error: of one that failed, in a line.
        trial: whether it searches for a recipe.
    """

    folder: str
    label: str
    state: State
    job: JobState | None = None
    step: int | None = None
    top1: float | None = None
    error: str | None = None
    trial: bool = False


def status(run: Run) -> list[CellStatus]:
    """The state of every cell, trials first, in the run's order. Raises UserError where run.json cannot be read."""
    known = run.description()
    trials = [replace(_of(run, name), trial=True) for name in known.get("trials", ())]
    return [*trials, *(_of(run, name) for name in known["cells"])]


def cancel(run: Run) -> list[CellStatus]:
    """Ask every process that executes cells of the run to stop, and take its jobs out of a scheduler's queue.

    Returns:
        The cells that ran or were queued.

    Raises:
        OSError: the run cannot be written.
        UserError: run.json cannot be read.
    """
    cells = [cell for cell in status(run) if cell.state in ("running", "queued")]
    ask_to_stop(run.folder)
    queued: dict[str, dict[str, str]] = {}
    for cell in cells:
        if cell.state == "queued" and cell.job is not None and cell.job.id is not None:
            queued.setdefault(cell.job.engine, {})[cell.folder] = cell.job.id
    for name, ids in queued.items():
        withdraw = getattr(ENGINES.get(name), "withdraw", None) if name in ENGINES else None
        if withdraw is not None:
            withdraw(list(dict.fromkeys(ids.values())))
            for folder in ids:
                JobFile(run.folder / "cells" / folder, name).clear()
    return cells


def _of(run: Run, name: str) -> CellStatus:
    folder = run.folder / "cells" / name
    # of thousands of cells: the few fields that are shown, without validating the rest
    result = _json(folder / "result.json")
    label = _label(folder, result, name)
    step = _json(folder / CHECKPOINT / "checkpoint.json").get("step")
    job = read_job(folder)
    found = result.get("status")
    if found == "done":
        return CellStatus(name, label, "done", top1=(result.get("metrics") or {}).get("top1"))
    if run.held(name):
        return CellStatus(name, label, "running", job, step)
    if job is not None and job.stage == "queued":
        return CellStatus(name, label, "queued", job, step)
    if found in ("failed", "oom", "interrupted"):
        return CellStatus(name, label, found, job, step, error=result.get("error"))
    return CellStatus(name, label, "waiting" if job is None and step is None else "stopped", job, step)


def _label(folder: Path, result: dict[str, Any], name: str) -> str:
    cell = result.get("cell") or _json(folder / "cell.json")
    try:
        trial = Trial.model_construct(**found) if (found := cell.get("trial")) else None
        return Cell.model_construct(**{**cell, "trial": trial}).label
    except (AttributeError, KeyError, TypeError, ValueError):
        return name


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
