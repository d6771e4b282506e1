"""Provenance of a number: the code, its commit and whether it was changed since, the machine, the weights."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from bench.measure.machine import processor, versions
from bench.run.result import Provenance
from bench.spec import Cell


def _git(*arguments: str) -> str | None:
    """A git command's output in the package's own folder (not the user's working directory); None where it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def commit() -> tuple[str | None, bool | None]:
    """The commit, and whether tracked or new files of the package differ from it.

    From the checkout where the package lies in one that tracks it, else from what the installer wrote down; None, None
    where neither tells.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is not None:
        head = _git("rev-parse", "HEAD")
        root = Path(__file__).parent.parent
        changes = _git(
            "status", "--porcelain", "--", *(str(root / room) for room in ("bench", "adapters", "backbones"))
        )
        return head, None if changes is None else bool(changes)
    try:
        written = distribution("aim-bench").read_text("direct_url.json")
    except PackageNotFoundError:
        return None, None
    vcs = json.loads(written).get("vcs_info", {}) if written else {}
    return vcs.get("commit_id"), False if vcs else None


class Stopwatch:
    """Begin of something, and the time for which it has been going on."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begun


def provenance(
    cell: Cell,
    since: Stopwatch,
    *,
    command: str,
    device: str,
    threads: int,
    batch_size: int | None = None,
    **known: Any,
) -> Provenance:
    """Return the provenance of a cell's result.

    Args:
        since: runs from the cell's begin.
        device: as tables name it.
        known: what else was found out before the cell ended; see `Provenance`.
    """
    head, dirty = commit()
    return Provenance(
        versions=versions(),
        commit=head,
        dirty=dirty,
        command=command,
        machine=processor(),
        device=device,
        precision=cell.precision,
        threads=threads,
        batch_size=batch_size,
        pretrained=cell.weights,
        started=since.started,
        wall_seconds=since.seconds,
        **known,
    )


def command() -> str:
    """The command line that runs, with the program's name alone in place of its path."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
