"""Provenance of a number: the code, its commit and whether it was changed since, the machine, the weights and lists."""

from __future__ import annotations

import hashlib
import inspect
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from backbones.names import BackboneName
from backbones.weight_files import find
from bench.measure.machine import processor, versions
from bench.plugins import FILES
from bench.run.result import Attempt, Provenance
from bench.spec import Cell
from bench.version import commit


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
        known: what else was found out before the cell ended; see `Provenance`. `attempts` are those before this one.
    """
    head, dirty = commit()
    before: Sequence[Attempt] = known.pop("attempts", ())
    attempts = (*before, Attempt(started=since.started, seconds=since.seconds)) if before else ()
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
        attempts=attempts,
        tuning=cell.tuning,
        wall_seconds=sum(attempt.seconds for attempt in attempts) if attempts else since.seconds,
        **known,
    )


def command() -> str:
    """The command line that runs, with the program's name alone in place of its path."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def sources(
    backbone: BackboneName, videos: str = "", lists: Mapping[str, Sequence[Path]] | None = None, **code: object
) -> dict[str, str]:
    """Map each source to the first digits of the SHA-256 of its content, so that another content makes another cell.

    Args:
        backbone: its weights count where they are files, a user's or the package's, with the settings beside them.
        videos: the `content` of a data set that renders its own.
        lists: the files that say which videos a data set has, by what they are.
        code: what the family, the strategy and the data set are; they count where a plugin file registered them.
    """
    found = {}
    if (file := backbone.stored) is not None:
        found["weights"] = _hash_of_all(find(file).all)
    if videos:
        found["videos"] = videos
    for name, files in (lists or {}).items():
        found[name] = _hash_of_all(files)
    for kind, entry in code.items():
        owner = entry if inspect.isclass(entry) else type(entry)
        if (plugin := FILES.get(owner.__module__)) is not None:
            found[kind] = _hash(plugin, plugin.stat().st_mtime_ns)
    return found


def _hash_of_all(files: Sequence[Path]) -> str:
    hashes = [_hash(file, file.stat().st_mtime_ns) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


@cache
def _hash(file: Path, changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
