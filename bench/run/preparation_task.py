"""A task of `bench data prepare`: decodes its share of the videos and writes how far it is into a file beside them.

The locks of the cache's entries see to it that no video is decoded twice, by whatever tasks and commands. Imports no
torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.data.cache import frames
from bench.data.cache.choose import CacheFolders, claimed
from bench.data.cache.frames import Filled
from bench.data.cache.store import FolderStore
from bench.errors import UserError
from bench.files import write_text
from bench.measure.machine import cores
from bench.processes import StopRequested, end_with_parent

VIDEOS = "videos.json"  # the list of all the tasks' videos
_EVERY = 1.0  # seconds between two writes of how far a task is


@dataclass
class Tally:
    """Count of the videos that were looked at, by their outcome.

    Attributes:
        new, there, left_out: see `Filled`.
        size: bytes of the entries.
        broken: path and reason of those that cannot be read.
    """

    new: int = 0
    there: int = 0
    left_out: int = 0
    size: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.new + self.there + self.left_out + len(self.broken)

    def add(self, found: Filled) -> None:
        self.size += found.size
        self.new += found.outcome == "new"
        self.there += found.outcome == "there"
        self.left_out += found.outcome == "left out"
        self.broken += [(str(found.path), found.reason)] if found.outcome == "broken" else []

    def __add__(self, other: Tally) -> Tally:
        broken = [*self.broken, *other.broken]
        sums = (self.new + other.new, self.there + other.there, self.left_out + other.left_out, self.size + other.size)
        return Tally(*sums, broken)


@dataclass(frozen=True)
class Share:
    """One task's part: of the videos listed in `folder` every `count`-th, from the `index`-th on.

    Attributes:
        store: of the frames, in a folder that every machine of the engine sees.
        workers: decoding processes; None: one a core.
    """

    folder: Path
    index: int
    count: int
    store: FolderStore
    short_side: int | None
    workers: int | None


@dataclass
class TaskState:
    """Progress of a task, as it stands in its file.

    Attributes:
        host, pid: where it runs.
        ended: it has done its part.
        error: why it could not.
    """

    tally: Tally
    host: str
    pid: int
    ended: bool = False
    error: str = ""


def _file(folder: Path, index: int) -> Path:
    return folder / f"task-{index}.json"


def read_task(folder: Path, index: int) -> TaskState | None:
    """Return the progress that a task told last; None where it has told none."""
    try:
        found = json.loads(_file(folder, index).read_text(encoding="utf-8"))
        return TaskState(**{**found, "tally": Tally(**found["tally"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def prepare_share(share: Share) -> None:
    """Decode a share into the cache: the work of a task. One that was begun before goes on.

    Raises:
        UserError: this machine does not see the folder, or decoding processes do not come up.
    """
    host = socket.gethostname()
    try:
        listed = json.loads((share.folder / VIDEOS).read_text(encoding="utf-8"))
    except OSError as error:
        seen = "expected AIM_BENCH_CACHE to name a folder that all machines of the engine share"
        raise UserError([f"{host} does not see {share.folder}: {seen}"]) from error
    own = [Path(path) for path in listed[share.index :: share.count]]
    before = read_task(share.folder, share.index)
    again = before.tally.new if before else 0  # decoded by this task, before it was requeued or placed again
    state, written = TaskState(Tally(), host, os.getpid()), 0.0

    def write() -> None:
        write_text(_file(share.folder, share.index), json.dumps(asdict(state)))

    try:
        with CacheFolders() as folders, claimed(share.folder):  # which a command that is killed leaves to its tasks
            folders.disk(share.store.folder)
            write()
            for found in frames.fill(share.store, own, share.short_side, share.workers or cores()):
                if again and found.outcome == "there":
                    again, found = again - 1, Filled(found.path, "new", found.size)
                state.tally.add(found)
                if found.outcome == "left out":
                    break
                if time.monotonic() - written >= _EVERY:
                    write()
                    written = time.monotonic()
        state.ended = True
    except Exception as error:
        state.error = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise
    finally:
        with contextlib.suppress(OSError):
            write()


def prepare_in_process(share: Share) -> None:
    """`prepare_share` as the main function of a process of this machine."""
    from bench.run.engines.local import settle

    settle(share.folder / f"task-{share.index}.txt")
    end_with_parent()
    prepare_share(share)


def prepare_in_job(share: Share) -> None:
    """`prepare_share` as the main function of a Slurm job, which comes back into the queue at its time limit."""
    from bench.run.engines.slurm_request import call

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise StopRequested

    signal.signal(signal.SIGUSR1, stop)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    before = read_task(share.folder, share.index)
    try:
        prepare_share(share)
    except StopRequested:
        state = read_task(share.folder, share.index)
        if state is not None and state.tally.new > (before.tally.new if before else 0):  # else it would go on for ever
            call("scontrol", "requeue", os.environ["SLURM_JOB_ID"])
