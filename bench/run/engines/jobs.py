"""job.json in a cell's folder: who executes the cell just now, and how far it is. And a run's request to stop.

Everything that `bench status` and `bench cancel` know stands in the run directory, so that they work from any machine
that sees it, whatever the engine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from bench.files import write_text
from bench.spec import FrozenModel

JOB = "job.json"
CANCEL = "cancel"
_EVERY = 5.0  # seconds between two writes of a job's progress


class JobState(FrozenModel):
    """The process that executes a cell, and the progress that it told last."""

    engine: str
    id: str | None = Field(None, description="the scheduler's name of the job")
    host: str
    pid: int
    started: str = Field(description="UTC, ISO 8601")
    updated: str = Field(description="likewise, of the last progress")
    stage: str = Field("starting", description="waiting in a scheduler's queue, starting, training, evaluating")
    done: float = Field(0.0, description="of the stage, 0 to 1")
    epoch: float | None = None
    loss: float | None = None
    clips_per_s: float | None = None
    seconds_left: float | None = Field(None, description="of the stage, at its present pace")


class JobFile:
    """The job.json of one cell, kept up to date by whoever executes it.

    Args:
        folder: of the cell.
        engine: its name.
        id: the scheduler's name of the job, where there is one.
    """

    def __init__(self, folder: Path, engine: str, id: str | None = None) -> None:
        self._file = folder / JOB
        self._written = 0.0
        self._stage, self._since = "", time.monotonic()
        self._state = JobState(
            engine=engine, id=id, host=socket.gethostname(), pid=os.getpid(), started=_now(), updated=_now()
        )

    def write(self, progress: dict[str, Any]) -> None:
        """Take note of a job's progress, and of where it runs where that is told (id, host, pid).

        It is on the disk at once where the stage is another one, else every few seconds. A full disk is no matter:
        nothing but a view depends on it.
        """
        now = time.monotonic()
        stage, done = str(progress.get("stage", self._state.stage)), float(progress.get("done", 0.0))
        if stage != self._stage:
            self._stage, self._since = stage, now
        elif now - self._written < _EVERY:
            return
        elapsed = now - self._since
        told = ("id", "host", "pid", "epoch", "loss", "clips_per_s")
        known = {name: progress[name] for name in told if name in progress}
        left = elapsed * (1 - done) / done if done > 0 and elapsed > 0 else None
        self._state = self._state.model_copy(
            update={"stage": stage, "done": done, "updated": _now(), "seconds_left": left, **known}
        )
        self._written = now
        with contextlib.suppress(OSError):
            write_text(self._file, self._state.model_dump_json(indent=1) + "\n")

    def clear(self) -> None:
        """Remove it: the cell is executed no more."""
        with contextlib.suppress(OSError):
            for file in (self._file, *self._file.parent.glob(f".{JOB}.*.tmp")):  # left by one that was killed
                file.unlink(missing_ok=True)


def read(folder: Path) -> JobState | None:
    """The state of a cell's job; None where no process has left one."""
    try:
        return JobState.model_validate_json((folder / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None


def ask_to_stop(run: Path) -> None:
    """Ask every process that executes cells of the run to stop, as a stop signal does. Raises OSError."""
    write_text(run / CANCEL, _now() + "\n")


def asked_to_stop(run: Path, since: float) -> bool:
    """Test whether somebody asked since that time (of the clock that files' times are of)."""
    try:
        return (run / CANCEL).stat().st_mtime >= since
    except OSError:
        return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
