"""The run directory: where a matrix, its cells and their results lie, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from filelock import FileLock, Timeout

from bench.errors import UserError
from bench.files import PROBE, reason, why_not_writable, write_text
from bench.measure.machine import versions
from bench.measure.result import Measured
from bench.run.columns import HEADER
from bench.run.columns import line as csv_line
from bench.run.result import Result, SkippedVideo
from bench.spec import Cell, FrozenModel
from bench.version import commit

# what lies in the folder of a run that another process is just about to open
_BEGUN = (".run.", PROBE)

# nanoseconds for which a file that was written may be written again without its time telling: systems keep it in steps
_UNSETTLED = 2_000_000_000

_SHARE = 0.05  # of the wall time, which rewriting a table may take at most

# where runs lie, below the folder that the command is given in
RESULTS = Path("results")
# a cell's trained parameters, in its folder
ADAPTER = "adapter.safetensors"
# its log, its predictions
LOG, PREDICTIONS = "log.jsonl", "predictions.npz"
# the checkpoint of its training, likewise; gone when the cell is done
CHECKPOINT = "checkpoint"
# the videos that it could not read, likewise
SKIPPED = "skipped.csv"


class _Stamp(NamedTuple):
    """Marks that tell one state of a file from another: every write makes a new file."""

    changed: int
    size: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Stamp:
        return cls(status.st_mtime_ns, status.st_size, status.st_ino)


class Run:
    """A matrix on disk, under one folder. Several processes may work in it at once.

    Args:
        table: file of the table of its results; by default results.csv in its folder.

    Attributes:
        folder: results/<run>.
        csv: the table.
    """

    def __init__(self, folder: Path, table: Path | None = None) -> None:
        self.folder = folder
        self.csv = table or folder / "results.csv"
        # of a cell's folder by name: the state of its result when it was read last, and its line of results.csv
        self._lines: dict[str, tuple[_Stamp, str]] = {}

    def cell_folder(self, cell: Cell) -> Path:
        return self.folder / "cells" / cell.folder

    def check(self) -> None:
        """See whether the run could be written here, without leaving anything behind.

        Raises:
            UserError: the folder cannot be written, or holds something else than a run.
        """
        named = f"out is {str(self.folder)!r}"
        try:
            listed = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            listed = []  # what is in its place, if anything, is found below
        except OSError as error:
            raise UserError([f"{named}: cannot be read ({reason(error)})"]) from error
        if "run.json" in listed:
            self.description()
        elif not all(name.startswith(_BEGUN) for name in listed):
            raise UserError([f"{named}: the folder holds something else, expected a run or nothing"])
        if obstacle := why_not_writable(self.folder):
            raise UserError([f"{named}: cannot be written ({obstacle})"])

    def open(
        self,
        matrix: FrozenModel,
        cells: Iterable[Cell],
        command: str,
        machine: dict[str, Any],
        others: Literal["first", "last", "dropped"] = "first",
        trials: Iterable[Cell] = (),
    ) -> None:
        """Make the folders and run.json; a run that is there already is added to.

        Args:
            matrix: the request of the cells.
            others: where the cells that the run has already stand. Those that are dropped, and the results of all
                cells, do not belong to the run any more.
            trials: cells that search for a recipe. They are listed by themselves, and are in no table.

        Raises:
            UserError: the folder cannot be written, or holds something else than a run.
        """
        self.check()
        cells, trials = tuple(cells), tuple(trials)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.locked("run"):
                known = self.description() if (self.folder / "run.json").is_file() else {}
                ours, others_of = [cell.folder for cell in cells], known.get("cells", [])
                order = {"first": [*others_of, *ours], "last": [*ours, *others_of], "dropped": ours}
                described = {
                    "version": 1,
                    "matrix": matrix.model_dump(mode="json"),
                    "command": command,
                    "commands": [*known.get("commands", []), command],
                    "machine": machine,
                    "cells": list(dict.fromkeys(order[others])),
                }
                if searched := dict.fromkeys([*known.get("trials", []), *(cell.folder for cell in trials)]):
                    described["trials"] = list(searched)
                write_text(self.folder / "run.json", json.dumps(described, indent=2))
            self._make_folders((*cells, *trials), anew=others == "dropped")
        except OSError as error:
            raise UserError([f"out is {str(self.folder)!r}: cannot be written ({reason(error)})"]) from error

    def add(self, cells: Sequence[Cell]) -> None:
        """Add cells to a run that is open, behind the others in this order. Raises OSError and UserError."""
        ours = [cell.folder for cell in cells]
        with self.locked("run"):
            known = self.description()
            known["cells"] = [*(name for name in known["cells"] if name not in ours), *ours]
            write_text(self.folder / "run.json", json.dumps(known, indent=2))
        self._make_folders(cells)

    def _make_folders(self, cells: Iterable[Cell], anew: bool = False) -> None:
        for cell in cells:
            folder = self.cell_folder(cell)
            folder.mkdir(parents=True, exist_ok=True)
            if anew:
                (folder / "result.json").unlink(missing_ok=True)
            if not (folder / "cell.json").is_file():
                write_text(folder / "cell.json", cell.model_dump_json(indent=2))

    def description(self) -> dict[str, Any]:
        """run.json. Raises UserError where there is none to read."""
        file = self.folder / "run.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError([f"{str(self.folder)!r} is not a run: it has no run.json"]) from None
        except OSError as error:
            raise UserError([f"{str(file)!r} cannot be read: {reason(error)}"]) from error
        except (ValueError, RecursionError) as error:
            raise UserError([f"{str(file)!r} is damaged: it is not JSON ({error})"]) from error
        if not isinstance(found, dict) or not all(_texts(found.get(name)) for name in ("cells", "commands")):
            raise UserError([f"{str(file)!r} is damaged: expected a run's description with its cells and commands"])
        return found

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock of the run while the context lasts; one that another process holds is waited for."""
        with FileLock(self.folder / f".{name}.lock"):
            yield

    def changed(self) -> float:
        """Time of the last write of run.json, in seconds by the clock of its file system; 0 where there is none."""
        try:
            return (self.folder / "run.json").stat().st_mtime
        except OSError:
            return 0.0

    def held(self, folder: str) -> bool:
        """Test whether a process holds the lock of the cell of that folder."""
        file = self.folder / "cells" / folder / ".lock"
        if not file.exists():
            return False
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return True
        lock.release()
        return False

    def claim(self, cell: Cell) -> FileLock | None:
        """The cell's lock, held; None where another process holds it. It is free again when its holder dies."""
        lock = FileLock(self.cell_folder(cell) / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def result(self, cell: Cell) -> Result | None:
        """The cell's result; None where there is none, or none that can be read (it is then made anew)."""
        return _read_result(self._result_file(cell.folder))

    def ended(self, cell: Cell) -> Result | None:
        """The cell's result where it is not to be run again; None where it is."""
        found = self.result(cell)
        return found if found is not None and found.final else None

    def put(self, result: Result) -> None:
        """Put a result in its place, last of a cell's files. results.csv stays behind until it is written anew."""
        folder = self.cell_folder(result.cell)
        write_text(folder / "result.json", result.model_dump_json(indent=2))
        if result.status == "done":
            shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)

    def write(self, result: Result) -> None:
        """Put a result in its place, and bring results.csv up to date."""
        self.put(result)
        self.write_csv()

    def results(self) -> list[Result]:
        """Every result of the run, in the order of run.json."""
        return self.read()[0]

    def missing(self) -> tuple[str, ...]:
        """The listed cells, by the names of their folders, that have no result or none that can be read."""
        return self.read()[1]

    def read(self) -> tuple[list[Result], tuple[str, ...]]:
        """`results` and `missing`, every file read once."""
        listed = {name: _read_result(self._result_file(name)) for name in self.description()["cells"]}
        found = [result for result in listed.values() if result is not None]
        return found, tuple(name for name, result in listed.items() if result is None)

    def trials(self) -> list[Result]:
        """Every result of the trials of its recipes, in the order of run.json."""
        found = (_read_result(self._result_file(name)) for name in self.description().get("trials", ()))
        return [result for result in found if result is not None]

    def _result_file(self, name: str) -> Path:
        return self.folder / "cells" / name / "result.json"

    def write_csv(self, anew: bool = False) -> None:
        """Rewrite results.csv from the cells; results that are as they were the last time are not read again.

        Args:
            anew: read them all the same. A network's file system may tell for a minute that a file is as it was, while
                another machine has put a new one into its place.

        Raises OSError and, where run.json is gone or damaged, UserError.
        """
        with self.locked("run"):
            if anew:
                self._lines.clear()
            lines = (self._line(name) for name in self.description()["cells"])
            write_text(self.csv, HEADER + "".join(line for line in lines if line is not None))

    def _line(self, name: str) -> str | None:
        """A cell's line of results.csv; None where it has no result, or none that can be read."""
        file = self._result_file(name)
        stamp, known = self._lines.get(name, (None, None))
        try:
            if known is not None and _Stamp.of(os.stat(file)) == stamp:
                return known
            # of the file as it was opened: another one may take its place meanwhile
            with file.open(encoding="utf-8") as stream:
                stamp = _Stamp.of(os.fstat(stream.fileno()))
                text = stream.read()
            line = csv_line(Result.model_validate_json(text))
        except (OSError, ValueError):
            self._lines.pop(name, None)
            return None
        if time.time_ns() - stamp.changed > _UNSETTLED:
            self._lines[name] = stamp, line
        return line

    def measured(self, cell: Cell, device: str) -> Measured | None:
        """Return this code's earlier measurements of the cell's model on this device; cells of all seeds share them."""
        try:
            found = Measured.model_validate_json(self._measured_file(cell).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there, no JSON, not ours
            return None
        known = (found.device, found.versions, found.commit)
        return found if known == (device, versions(), commit()[0]) else None

    def write_measured(self, cell: Cell, measured: Measured) -> None:
        file = self._measured_file(cell)
        file.parent.mkdir(exist_ok=True)
        write_text(file, measured.model_dump_json(indent=2))

    def _measured_file(self, cell: Cell) -> Path:
        return self.folder / "measured" / f"{cell.model_key()}.json"


class ThrottledCsvWriter:
    """Rewrites results.csv when cells have ended, but for the time that this takes.

    A rewrite looks at every cell of the run: one for each cell that ends would take, over a run, a time that grows with
    the square of their number. So one is put off until the last one's time is a small share of what went by since, and
    the last one of all is done at the end.

    Args:
        run: whose table is written.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._behind = False
        self._ended = -math.inf
        self._took = 0.0

    def changed(self) -> None:
        """A cell has ended."""
        self._behind = True
        self.keep_up()

    def keep_up(self) -> None:
        """Rewrite what is behind, unless it is too early; call it from time to time. A failure shows in `finish`."""
        if self._behind and time.monotonic() - self._ended >= self._took * (1 / _SHARE - 1):
            with contextlib.suppress(OSError, UserError):
                self._write()

    def finish(self) -> str:
        """Rewrite it at the end, in any case: other processes, killed ones too, may have left it behind.

        Returns:
            Why that failed, in words; empty where it did not.
        """
        try:
            self._write(anew=True)
        except OSError as error:
            return f"{self._run.csv} cannot be written: {reason(error)}"
        except UserError as error:  # the folder was removed or damaged
            return "; ".join(error.problems)
        return ""

    def _write(self, anew: bool = False) -> None:
        begun = time.monotonic()
        try:
            self._run.write_csv(anew)
            self._behind = False
        finally:
            self._ended = time.monotonic()
            self._took = self._ended - begun


def _read_result(file: Path) -> Result | None:
    try:
        return Result.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, no UTF-8, no JSON, no result
        return None


def write_skipped(folder: Path, skipped: Sequence[SkippedVideo]) -> None:
    """skipped.csv in a cell's folder; none where nothing was skipped, not even an earlier one. Raises OSError."""
    if not skipped:
        (folder / SKIPPED).unlink(missing_ok=True)
        return
    import pandas as pd

    table = pd.DataFrame([video.model_dump() for video in skipped], columns=list(SkippedVideo.model_fields))
    write_text(folder / SKIPPED, table.to_csv(index=False, lineterminator="\n"))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
