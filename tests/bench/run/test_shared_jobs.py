"""The runner and cells that share a forward pass: who trains with whom, and what becomes of each."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from bench.cli.listeners import PlainListener
from bench.data.cache import FrameCache
from bench.measure.machine import device_name
from bench.measure.placement import Placement
from bench.run.engines.base import Event, Job
from bench.run.engines.jobs import CANCEL, ask_to_stop
from bench.run.engines.runner import Runner
from bench.run.outcome import Outcome
from bench.run.status import status
from bench.run.store import Run
from bench.spec import Cell
from bench.tune.trials import studies
from bench.tune.tuner import TrialTuner
from tests.bench import make
from tests.bench.command import quotes
from tests.bench.tune.rows import matrix, planned


def _frozen(seed: int = 0, lr: float = 1e-3, **changes: Any) -> Cell:
    return make.cell(strategy="frozen", options={}, seed=seed, recipe={"head_lr": lr}, **changes)


# four of one pass, one of another, one that has a backbone to itself
SHARING = tuple(_frozen(lr=lr) for lr in (1e-3, 2e-3, 4e-3, 8e-3))
CELLS = (*SHARING[:2], make.cell(), _frozen(seed=1), *SHARING[2:])
Ends = Callable[[Job, Job], tuple[Any, dict[str, Any]]]


def _trained(job: Job, part: Job) -> tuple[Any, dict[str, Any]]:
    return "trained", {"value": make.done(part.cell)}


def _failed(**values: Any) -> tuple[Any, dict[str, Any]]:
    return "failed", {"status": "failed", "error": "ValueError: no", "traceback": "", **values}


class Engine:
    """An engine that ends all the parts of a job in one look; `ends` says how each does."""

    trains_together = True

    def __init__(self, ends: Ends = _trained, slots: int = 1) -> None:
        self.slots, self.ends = slots, ends
        self.jobs: deque[Job] = deque()
        self.given: list[list[Cell]] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.given.append([part.cell for part in job.parts])
        assert len(self.jobs) <= self.slots

    def events(self, timeout: float) -> Iterator[Event]:
        if self.jobs:
            job = self.jobs.popleft()
            for part in job.parts:
                yield Event(part, *self.ends(job, part))

    def preempt(self) -> None:
        self.ends = lambda job, part: ("preempted", {"error": "stopped"})

    def cancel(self, cell: Cell) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = Run(tmp_path / "run")
    found.open(make.matrix(), CELLS, "bench run", {})
    for cell in CELLS:
        found.write_measured(cell, make.measured(device=device_name("cpu"), trained_params=1000))
    return found


def _executed(run: Run, engine: Any, cells: tuple[Cell, ...] = CELLS, **options: Any) -> Outcome:
    placement = Placement("cpu", None, "fp32")
    runner = Runner(
        run, engine, placement, "bench run", FrameCache(), PlainListener(sys.stdout), **options
    )  # fmt: skip
    return runner.execute(cells)


def _states(run: Run) -> list[str]:
    return [cell.state for cell in status(run)]


def test_cells_of_one_pass_are_one_job_in_the_place_of_the_first(run: Run) -> None:
    engine = Engine()
    outcome = _executed(run, engine)
    assert engine.given == [list(SHARING), [CELLS[2]], [CELLS[3]]]
    assert not outcome.failures and not outcome.notes and _states(run) == ["done"] * 6


def test_a_job_takes_one_slot_and_empty_ones_divide_it(run: Run) -> None:
    engine = Engine(slots=2)
    _executed(run, engine)
    assert engine.given == [list(SHARING), [CELLS[2]], [CELLS[3]]]
    run.open(make.matrix(), CELLS, "bench run", {}, others="dropped")
    engine = Engine(slots=4)
    _executed(run, engine)
    assert engine.given == [list(SHARING[:2]), list(SHARING[2:]), [CELLS[2]], [CELLS[3]]]


def test_none_share_where_that_is_switched_off_or_the_engine_cannot(run: Run) -> None:
    alone = [[cell] for cell in CELLS]
    engine = Engine()
    _executed(run, engine, share_pass=False)
    assert engine.given == alone
    run.open(make.matrix(), CELLS, "bench run", {}, others="dropped")
    engine = Engine()
    engine.trains_together = False
    _executed(run, engine)
    assert engine.given == alone


def test_cells_that_are_done_or_held_by_another_process_are_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.put(make.done(SHARING[1]))
    claimed = run.claim(SHARING[0])
    assert claimed is not None

    def sleep(_: float) -> None:  # while it is waited for, the other process ends
        run.put(make.done(SHARING[0]))
        claimed.release()

    monkeypatch.setattr("bench.run.engines.runner.time.sleep", sleep)
    engine = Engine()
    outcome = _executed(run, engine)
    assert engine.given == [list(SHARING[2:]), [CELLS[2]], [CELLS[3]]]
    assert outcome.skipped == 2 and _states(run) == ["done"] * 6


def test_two_commands_at_once_train_no_cell_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.run.engines.runner._PATIENCE", 0.01)
    both = Barrier(2)

    class Meeting(Engine):
        """Ends its first job once the other command has one as well."""

        def events(self, timeout: float) -> Iterator[Event]:
            if self.jobs and len(self.given) == 1:
                both.wait(60)
            yield from super().events(timeout)

    engines = [Meeting(), Meeting()]
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda engine: _executed(run, engine), engines))
    given = [cell.key for engine in engines for cells in engine.given for cell in cells]
    assert sorted(given) == sorted(cell.key for cell in CELLS)
    assert not any(outcome.failures for outcome in outcomes) and _states(run) == ["done"] * 6


def test_while_they_train_each_is_claimed_and_shown_as_running(run: Run) -> None:
    seen: list[list[str]] = []

    class Slow(Engine):
        def events(self, timeout: float) -> Iterator[Event]:
            for job in self.jobs:
                for number, part in enumerate(job.parts):
                    yield Event(part, "progress", {"stage": "training", "done": 0.1 * number})
                cells = {cell.folder: cell for cell in status(run)}
                found = [cells[part.cell.folder] for part in job.parts]
                assert [cell.job and cell.job.done for cell in found] == [0.1 * n for n in range(len(found))]
                seen.append([cell.state for cell in found])
            yield from super().events(timeout)

    _executed(run, Slow())
    assert seen == [["running"] * 4, ["running"], ["running"]]


def test_one_that_fails_takes_no_other_with_it(run: Run) -> None:
    engine = Engine(lambda job, part: _failed() if part.cell == SHARING[1] else _trained(job, part))
    outcome = _executed(run, engine)
    assert [result.cell for result in outcome.failures] == [SHARING[1]]
    assert engine.given.count([SHARING[1]]) == 0 and _states(run).count("done") == 5


@pytest.mark.parametrize("state", ["failed", "oom"])
def test_those_that_ended_together_are_tried_once_more_each_alone(run: Run, state: str) -> None:
    def ends(job: Job, part: Job) -> tuple[Any, dict[str, Any]]:
        if job.beside and part.cell != SHARING[0]:
            return _failed(status=state, error="the worker process died", apart=True)
        return _failed(status=state) if part.cell == SHARING[2] else _trained(job, part)

    engine = Engine(ends)
    outcome = _executed(run, engine)
    assert engine.given[0] == list(SHARING)
    assert sorted(map(str, engine.given[1:4])) == sorted(str([cell]) for cell in SHARING[1:])
    assert [(result.cell, result.status) for result in outcome.failures] == [(SHARING[2], state)]
    (note,) = outcome.notes
    assert quotes(note, "3 cells", "the worker process died")
    assert sorted(_states(run)) == sorted(["done"] * 5 + [state])
    # memory may have run out for several again: such a cell stays by itself
    again = Engine()
    run.put(make.failed(SHARING[0]))
    _executed(run, again)
    expected = [[SHARING[0]], [SHARING[2]]] if state == "oom" else [[SHARING[0], SHARING[2]]]
    assert again.given == expected


def test_an_interrupt_leaves_each_in_the_state_that_it_has_alone(run: Run) -> None:
    def ends(job: Job, part: Job) -> tuple[Any, dict[str, Any]]:
        ask_to_stop(run.folder)
        return _trained(job, part) if part.cell == SHARING[0] else ("progress", {"stage": "training", "done": 0.5})

    class Going(Engine):
        def events(self, timeout: float) -> Iterator[Event]:
            for job in list(self.jobs):
                for part in job.parts:
                    yield Event(part, *self.ends(job, part))

    outcome = _executed(run, Going(ends))
    assert outcome.interrupted and not outcome.notes
    found = {cell.folder: cell.state for cell in status(run)}
    assert [found[cell.folder] for cell in SHARING] == ["done", *["interrupted"] * 3]
    assert [found[cell.folder] for cell in (CELLS[2], CELLS[3])] == ["waiting"] * 2
    (run.folder / CANCEL).unlink()  # as by the command that opens it next
    again = Engine()
    assert not _executed(run, again).failures
    assert again.given[0] == list(SHARING[1:]) and _states(run) == ["done"] * 6


def test_trials_of_a_frozen_strategy_share_a_pass_and_seeds_do_not(tmp_path: Path) -> None:
    tuner = TrialTuner(studies(matrix(4), planned(("frozen", "joint"))))
    run = Run(tmp_path)
    tuner.resume(run)
    run.open(make.matrix(), tuner.cells, "bench run", {}, trials=tuner.every_trial)
    tuner.open(run)
    for cell in tuner.trials:
        run.write_measured(cell, make.measured(device=device_name("cpu")))
    engine = Engine()
    placement = Placement("cpu", None, "fp32")
    listener = PlainListener(sys.stdout)
    outcome = Runner(run, engine, placement, "bench run", FrameCache(), listener).execute(tuner.cells, tuner)
    first, *rest = engine.given
    assert [cell.trial and cell.trial.number for cell in first] == [0, 1, 2, 3]
    assert {cell.strategy for cell in first} == {"frozen"} and all(len(each) == 1 for each in rest)
    assert len(outcome.cells) == 4 and len(rest) == 8
