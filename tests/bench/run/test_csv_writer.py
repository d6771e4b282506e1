"""results.csv beside cells that end: right when a command ends, however it does, and cheap until then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cli.listeners import PlainListener
from bench.data.cache import FrameCache
from bench.errors import UserError
from bench.measure.machine import device_name
from bench.measure.placement import Placement
from bench.processes import StopRequested
from bench.run import start
from bench.run import store as table
from bench.run.columns import to_csv
from bench.run.engines import runner
from bench.run.engines.base import Event, Job, WorkerFailed
from bench.run.engines.runner import Runner
from bench.run.outcome import Outcome
from bench.run.result import Result
from bench.run.store import Run, ThrottledCsvWriter
from bench.spec import Cell
from tests.bench import make
from tests.bench.command import Command, quotes

CELLS = tuple(make.cell(seed=seed) for seed in range(12))


def opened(folder: Path) -> Run:
    run = Run(folder)
    run.open(make.matrix(), CELLS, "bench run", {})
    return run


def is_right(run: Run) -> bool:
    return run.csv.read_text() == to_csv(run.results())


# --- when it is rewritten ---


class Clock:
    """Time that goes by where it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Slow(Run):
    """A run whose table takes its time."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__(Path("nowhere"))
        self.clock, self.seconds = clock, seconds
        self.times: list[float] = []
        self.broken: Exception | None = None

    def write_csv(self, anew: bool = False) -> None:
        self.clock.now += self.seconds
        if self.broken is not None:
            raise self.broken
        self.times.append(self.clock.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(table, "time", found)
    return found


@pytest.mark.parametrize("seconds", [0.001, 0.5, 4.0])
def test_rewriting_takes_a_twentieth_of_the_time_at_most(clock: Clock, seconds: float) -> None:
    run = Slow(clock, seconds)
    kept = ThrottledCsvWriter(run)
    begun = clock.now
    for _ in range(2000):
        clock.now += 0.1  # what a cell takes
        kept.changed()
    spent = seconds * (len(run.times) - 1)  # the first one is not put off
    assert spent <= 0.05 * (clock.now - begun)
    assert len(run.times) > 1
    gaps = [after - before for before, after in zip(run.times, run.times[1:], strict=False)]
    assert max(gaps) <= 20 * seconds + 0.1 + 1e-6  # and no later than that asks for
    before = len(run.times)
    assert kept.finish() == ""
    assert len(run.times) == before + 1


def test_what_was_put_off_is_made_up_for_while_nothing_ends(clock: Clock) -> None:
    run = Slow(clock, 1.0)
    kept = ThrottledCsvWriter(run)
    kept.changed()
    kept.changed()
    kept.keep_up()
    assert len(run.times) == 1
    clock.now += 19.1
    kept.keep_up()
    assert len(run.times) == 2
    clock.now += 1000
    kept.keep_up()  # nothing has ended since
    assert len(run.times) == 2


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), ("nowhere/results.csv", "No space left on device")),
        (UserError(["the error's own"]), ("the error's own",)),
    ],
)
def test_a_failure_ends_no_run_and_is_told_at_its_end(clock: Clock, error: Exception, told: tuple[str, ...]) -> None:
    run = Slow(clock, 1.0)
    kept = ThrottledCsvWriter(run)
    run.broken = error
    kept.changed()
    assert quotes(kept.finish(), *told)
    run.broken = None
    clock.now += 20
    kept.keep_up()  # still behind
    assert len(run.times) == 1
    assert kept.finish() == ""


# --- how a command ends ---


Ends = Callable[[Cell], tuple[Any, dict[str, Any]]]


class Instant:
    """An engine of one slot, which says at once how a job ended; `ends` makes the event, or raises."""

    slots = 1

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        assert not self._jobs
        self._jobs.append(job)

    def events(self, timeout: float) -> Iterator[Event]:
        for job in self._jobs:
            kind, values = self._ends(job.cell)
            self._jobs.clear()
            yield Event(job, kind, values)

    def cancel(self, cell: Cell) -> None:
        self._jobs.clear()

    def preempt(self) -> None:
        self._ends = lambda cell: ("preempted", {"error": "stopped from outside"})

    def close(self) -> None: ...


def trained(cell: Cell) -> tuple[str, dict[str, Any]]:
    return "trained", {"value": make.done(cell, top1=50.0 + cell.seed)}


def stopped_by(error: BaseException) -> Ends:
    def ends(cell: Cell) -> tuple[str, dict[str, Any]]:
        if cell.seed == 7:
            raise error
        return trained(cell)

    return ends


def broken(cell: Cell) -> tuple[str, dict[str, Any]]:
    if cell.seed % 2:
        return "failed", {"status": "failed", "error": "ValueError: no", "traceback": "Traceback"}
    return trained(cell)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of which every rewrite but the first is put off until the end."""
    monkeypatch.setattr(table, "_SHARE", 1e-9)
    found = opened(tmp_path / "run")
    found.write_measured(CELLS[0], make.measured(device=device_name("cpu")))
    return found


def executed(run: Run, ends: Ends) -> Outcome:
    listener = PlainListener(sys.stdout)
    return Runner(run, Instant(ends), Placement("cpu", None, "fp32"), "bench run", FrameCache(), listener).execute(
        CELLS
    )


def test_the_table_is_whole_when_all_cells_are_done(run: Run) -> None:
    outcome = executed(run, trained)
    assert (outcome.failures, outcome.unwritten, outcome.interrupted) == ([], "", False)
    assert [result.status for result in run.results()] == ["done"] * len(CELLS)
    assert is_right(run)


def test_the_table_is_whole_when_cells_failed(run: Run) -> None:
    outcome = executed(run, broken)
    assert [result.cell.seed for result in outcome.failures] == [1, 3, 5, 7, 9, 11]
    assert len(run.results()) == len(CELLS)
    assert is_right(run)


def test_the_table_is_whole_after_an_interrupt(run: Run) -> None:
    outcome = executed(run, stopped_by(KeyboardInterrupt()))
    assert outcome.interrupted
    assert [result.status for result in run.results()] == ["done"] * 7 + ["interrupted"]
    assert is_right(run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cell_that_ends_while_an_interrupt_comes_keeps_its_result(run: Run, number: signal.Signals) -> None:
    def ends(cell: Cell) -> tuple[str, dict[str, Any]]:
        if cell.seed == 7:
            os.kill(os.getpid(), number)
        return trained(cell)

    def stop(*_: Any) -> None:
        raise StopRequested

    before = signal.signal(number, signal.default_int_handler if number is signal.SIGINT else stop)
    try:
        outcome = executed(run, ends)
    finally:
        signal.signal(number, before)
    assert outcome.interrupted and outcome.requeue == (number is signal.SIGTERM)
    assert [result.status for result in run.results()] == ["done"] * 8
    assert is_right(run)


@pytest.mark.parametrize("seed", [7, 11])  # of the last cell, nobody looks for a signal any more
def test_a_worker_that_a_stop_signal_ended_as_well_has_not_failed(run: Run, seed: int) -> None:
    def ends(cell: Cell) -> tuple[str, dict[str, Any]]:
        if cell.seed < seed:
            return trained(cell)
        os.kill(os.getpid(), signal.SIGTERM)
        return "failed", {"status": "failed", "error": "the worker process ended with exit code 143", "traceback": ""}

    def stop(*_: Any) -> None:
        raise StopRequested

    before = signal.signal(signal.SIGTERM, stop)
    try:
        outcome = executed(run, ends)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert outcome.interrupted and outcome.requeue
    assert [result.status for result in run.results()] == ["done"] * seed + ["interrupted"]


def test_a_measurement_that_a_stop_signal_ended_as_well_has_not_failed(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")

    def ends(cell: Cell) -> tuple[str, dict[str, Any]]:
        os.kill(os.getpid(), signal.SIGINT)
        return "failed", {"status": "failed", "error": "the worker process ended with exit code 143", "traceback": ""}

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        outcome = executed(run, ends)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (outcome.interrupted, outcome.requeue, outcome.failures) == (True, False, [])
    assert list(run.results()) == []


def test_the_table_is_whole_where_no_worker_is_left(run: Run) -> None:
    with pytest.raises(WorkerFailed):
        executed(run, stopped_by(WorkerFailed("none is left", "")))
    assert len(run.results()) == 7
    assert is_right(run)


def test_until_then_the_table_is_behind(run: Run) -> None:
    """Or the tests above could not fail."""
    seen = []

    def ends(cell: Cell) -> tuple[str, dict[str, Any]]:
        seen.append(run.csv.read_text().count("\n") - 1 if run.csv.exists() else 0)
        return trained(cell)

    executed(run, ends)
    assert seen == [0] + [1] * (len(CELLS) - 1)


def test_the_table_is_kept_up_while_another_process_runs_the_last_cell(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Run(run.folder).claim(CELLS[-1])
    assert held is not None
    looks = []

    def sleep(_: float) -> None:
        looks.append(run.csv.read_text().count("\n") - 1)
        monkeypatch.setattr(table, "_SHARE", 1.0)  # by now it is not too early any more
        if len(looks) == 2:
            held.release()

    monkeypatch.setattr(runner.time, "sleep", sleep)
    executed(run, trained)
    assert looks == [1, len(CELLS) - 1]


def test_a_table_that_cannot_be_written_costs_no_cell(run: Run) -> None:
    run.csv.mkdir()
    outcome = executed(run, trained)
    assert len(run.results()) == len(CELLS)
    assert outcome.failures == []
    assert quotes(outcome.unwritten, run.csv, "Is a directory")


def test_a_command_whose_table_cannot_be_written_says_so(
    run: Run, bench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write(make.done(CELLS[0]))
    monkeypatch.setattr(start, "execute", lambda *_: (run, Outcome(unwritten="a reason")))
    arguments = ("run", "--backbones", "vit:tiny@none", "--strategies", "joint", "--out", run.folder)
    said = bench(*arguments)
    assert said.code == 1
    assert "a reason" in said.out.splitlines() and str(run.csv) not in said.out


# --- several processes ---

PUTS = (
    "import sys\nfrom pathlib import Path\nfrom bench.run import store as table\nfrom bench.run.store import Run\n"
    "from tests.bench import make\n"
    "table._SHARE = 1e-9\n"
    "run = Run(Path(sys.argv[1]))\nkept = table.ThrottledCsvWriter(run)\n"
    "for seed in map(int, sys.argv[3:]):\n"
    "    run.put(make.done(make.cell(seed=seed)))\n"
    "    kept.changed()\n"
    "if sys.argv[2] == 'ends': kept.finish()\n"
)


def process(run: Run, how: str, seeds: range) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PUTS, str(run.folder), how, *map(str, seeds)])


def test_the_table_is_whole_when_the_last_of_two_processes_ends(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    both = [process(run, "ends", seeds) for seeds in (range(0, 12, 2), range(1, 12, 2))]
    assert [one.wait(600) for one in both] == [0, 0]
    assert len(run.results()) == len(CELLS)
    assert is_right(run)


def test_what_a_killed_process_left_behind_the_next_command_makes_up_for(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    assert process(run, "is killed", range(12)).wait(600) == 0
    assert len(run.results()) == len(CELLS)
    assert not is_right(run)
    assert ThrottledCsvWriter(run).finish() == ""
    assert is_right(run)


# --- what is read ---


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the results that are opened, one after the other."""
    found: list[str] = []
    before = Path.open

    def opening(self: Path, *arguments: Any, **named: Any) -> Any:
        if self.name == "result.json":
            found.append(self.parent.name)
        return before(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", opening)
    return found


def aged(run: Run, result: Result) -> None:
    """Put a result in its place, as if a minute ago."""
    run.put(result)
    then = time.time() - 60
    os.utime(run.cell_folder(result.cell) / "result.json", (then, then))


def test_results_that_are_as_they_were_are_not_read_again(tmp_path: Path, reads: list[str]) -> None:
    run = opened(tmp_path / "run")
    for cell in CELLS[:10]:
        aged(run, make.done(cell))
    run.write_csv()
    assert len(reads) == len(set(reads)) == len(CELLS)  # two of them in vain
    reads.clear()
    run.write_csv()
    assert set(reads) == {CELLS[10].folder, CELLS[11].folder}
    reads.clear()
    aged(run, make.done(CELLS[3], top1=12.5))
    aged(run, make.done(CELLS[10]))
    (run.cell_folder(CELLS[4]) / "result.json").unlink()
    (run.cell_folder(CELLS[5]) / "result.json").write_text("{")
    reads.clear()
    run.write_csv()
    assert sorted(set(reads)) == sorted(CELLS[index].folder for index in (3, 5, 10, 11))
    assert is_right(run)
    assert [result.cell.seed for result in run.results()] == [0, 1, 2, 3, 6, 7, 8, 9, 10]


def test_at_the_end_every_result_is_read_whatever_the_system_tells_of_its_file(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    aged(run, make.done(CELLS[0], top1=11.5))
    run.write_csv()
    file = run.cell_folder(CELLS[0]) / "result.json"
    before = file.stat()
    file.write_text(file.read_text().replace('"top1": 11.5', '"top1": 22.5'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as another machine's disk may look for a while
    run.write_csv()
    assert "11.5" in run.csv.read_text()
    assert ThrottledCsvWriter(run).finish() == ""
    assert is_right(run) and "22.5" in run.csv.read_text()


def test_a_result_that_was_just_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of files goes in steps: two writes within one leave the same time."""
    monkeypatch.setattr(table, "_UNSETTLED", 10**12)  # however long a disk takes
    run = opened(tmp_path / "run")
    run.write(make.done(CELLS[0], top1=11.5))
    file = run.cell_folder(CELLS[0]) / "result.json"
    before = file.stat()
    file.write_text(file.read_text().replace('"top1": 11.5', '"top1": 22.5'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    run.write_csv()
    assert is_right(run) and "22.5" in run.csv.read_text()


@pytest.mark.parametrize("format_", ["terminal", "markdown", "csv"])
def test_a_report_reads_every_result_once(tmp_path: Path, bench: Command, reads: list[str], format_: str) -> None:
    run = opened(tmp_path / "run")
    for cell in CELLS:
        run.put(make.done(cell))
    assert bench("report", run.folder, "--format", format_).code == 0
    assert sorted(reads) == sorted(cell.folder for cell in CELLS)
