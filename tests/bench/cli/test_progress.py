"""Time left, and the lines that tell it: in a log a line a minute at most, of a run the measuring included."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable

import pytest

from bench.cli import listeners, progress
from bench.cli.listeners import PlainListener
from bench.cli.progress import Lines, RunTimeLeft, TimeLeft, about
from bench.measure.result import Measured
from bench.run.events import ExpectedTime
from bench.run.result import Result
from bench.spec import Cell
from tests.bench import make

CELLS = [make.cell(seed=seed) for seed in range(6)]


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def strftime(self, _: str) -> str:
        return "12:00:00"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in (listeners, progress):
        monkeypatch.setattr(module, "time", found)
    return found


# --- the estimate ---


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("sized", [True, False])
def test_work_at_a_steady_pace_ends_when_it_was_said_to(clock: Clock, workers: int, sized: bool) -> None:
    """Pieces in three rounds of as many as there are workers; where sizes are told, those of one round are larger."""
    sizes = [400.0] * workers + [800.0 if sized else 400.0] * workers + [400.0] * workers
    left = TimeLeft({index: size if sized else None for index, size in enumerate(sizes)}, workers)
    end = clock.now + sum(sizes) / workers
    assert left.seconds() is None
    left.begin()
    for first in range(0, len(sizes), workers):
        for part in (0.25, 0.5, 1.0):
            clock.now += sizes[first] * (0.5 if part == 1 else 0.25)
            for index in range(first, first + workers):
                left.at(index, part)
            assert left.seconds() == pytest.approx(end - clock.now, abs=1e-9)
    assert left.seconds() == 0


def test_the_last_long_piece_goes_on_alone(clock: Clock) -> None:
    left = TimeLeft({"short": 1.0, "long": 5.0}, at_once=2)
    left.begin()
    clock.now += 10  # a unit takes ten seconds
    left.at("short", 1.0)
    left.at("long", 0.2)
    assert left.seconds() == pytest.approx(40)
    assert TimeLeft({"one": 1.0}, at_once=8)._at_once == 1


def test_what_failed_at_once_makes_nothing_faster(clock: Clock) -> None:
    left = TimeLeft(dict.fromkeys(range(10), None))
    left.begin()
    for key in range(8):
        left.drop(key)
    clock.now += 100
    left.at(8, 1.0)
    assert left.seconds() == pytest.approx(100)


def test_no_pace_is_told_too_early(clock: Clock) -> None:
    left = TimeLeft(dict.fromkeys(range(100), None))
    left.begin()
    clock.now += 1
    left.at(0, 0.1)
    assert left.seconds() is None
    clock.now += 29
    assert left.seconds() == pytest.approx(30 / 0.1 * 99.9)
    expecting = TimeLeft(dict.fromkeys(range(4), None))
    expecting.expect(0, 6.0, pace=2.0)  # the others are taken to be as large
    assert expecting.seconds() == pytest.approx(12)


def test_about_is_silent_where_nothing_is_known() -> None:
    assert about(None) == about(0.0) == about(0.4) == ""
    assert about(720) == "about 12 min left"


# --- a run ---


def test_a_runs_time_is_that_of_its_measuring_and_of_its_cells(clock: Clock) -> None:
    left = RunTimeLeft()
    left.begun(CELLS, 2)
    left.measuring(1, 3)
    assert left.sentence == ""  # nothing is known yet
    clock.now += 60
    left.expected(CELLS[0], 300)
    left.measuring(2, 3)
    # two more models of a minute, six cells of five minutes that share the CPU
    assert left.sentence == "about 32 min left (0 of 6 cells ended)"
    clock.now += 60
    left.measuring(3, 3)
    assert left.sentence == "about 31 min left (0 of 6 cells ended)"
    left.progress(CELLS[0], {"stage": "starting", "done": 0.0})
    assert left.sentence == "about 30 min left (0 of 6 cells ended)"
    clock.now += 600  # they take twice as long as expected
    left.finished(make.done(CELLS[0]))
    assert left.sentence == "about 50 min left (1 of 6 cells ended)"
    left.progress(CELLS[1], {"stage": "evaluating", "done": 0.0})
    assert left._cells._parts[CELLS[1].key] == pytest.approx(0.9)
    left.finished(make.failed(CELLS[1]))
    assert left.sentence == "about 40 min left (2 of 6 cells ended)"


def test_on_gpus_each_worker_has_the_speed_that_was_measured(clock: Clock) -> None:
    cells = [make.cell(seed=seed, device="cuda") for seed in range(8)]
    left = RunTimeLeft()
    left.begun(cells, 4)
    for cell in cells:
        left.expected(cell, 300)
    left.progress(cells[0], {"stage": "starting", "done": 0.0})
    assert str(left) == "about 10 min left"


def test_models_that_were_measured_before_take_no_time(clock: Clock) -> None:
    left = RunTimeLeft()
    left.begun(CELLS[:1], 1)
    left.expected(CELLS[0], 0.0)
    for index in (2, 4):
        left.measuring(index, 5)
        clock.now += 100
    left.measuring(5, 5)
    assert str(left) == "about 2 min left"  # the fifth model


def test_a_cell_is_expected_to_take_what_its_clips_do() -> None:
    from bench.data.dataset import Video, VideoDataset, register_dataset

    counts = {"train": 1000, "val": 7, "test": 50}

    @register_dataset("counted")
    class Counted(VideoDataset):
        name = "counted"
        summary = "for tests"
        classes = ("a", "b")

        def prepare(self, progress: object = None) -> None: ...

        def videos(self, split: str) -> tuple[Video, ...]:
            if self.source.root is not None:
                raise ZeroDivisionError
            return (None,) * counts[split]  # type: ignore[return-value]

    measured: Measured = make.measured(train_clips_per_s=10.0, infer_clips_per_s=40.0)
    expected = ExpectedTime()
    cell = make.cell(dataset="counted", clips=2, crops=3, recipe={"epochs": 3})
    assert expected(cell, measured) == pytest.approx(3 * 1000 / 10 + 50 * 6 * 3 / 40)
    plain_test = make.cell(dataset="counted", order_test=False, recipe={"epochs": 3})
    assert expected(plain_test, measured) == pytest.approx(3 * 1000 / 10 + 50 / 40)
    assert expected(make.cell(dataset="counted", data={"root": "/broken"}), measured) is None


# --- lines ---


def test_a_log_gets_the_time_left_once_a_minute(clock: Clock) -> None:
    stream = io.StringIO()
    listener = PlainListener(stream)
    listener.begun(CELLS, 0, 1)
    listener.measuring(CELLS[0], 1, 1)
    clock.now += 10
    for cell in CELLS:
        listener.expected(cell, 200.0)
    times = random.Random(0)
    begun, said = clock.now, 0
    for cell in CELLS:
        for part in range(40):
            clock.now += times.uniform(1, 9)
            listener.progress(cell, {"stage": "training", "done": part / 40})
        listener.ended(make.done(cell))
        lines = [line for line in stream.getvalue().splitlines() if "left (" in line]
        assert len(lines) <= 1 + (clock.now - begun) / 60
        assert len(lines) > said
        said = len(lines)
    lines = stream.getvalue().splitlines()
    told = [line for line in lines if "left (" in line]
    assert re.fullmatch(r"12:00:00 about 20 min left \(0 of 6 cells ended\)", told[0])
    assert len(told) > (clock.now - begun) / 60 * 0.8
    assert lines[0] == "12:00:00 6 cells to run; 1 worker"
    assert "left" not in lines[-1]


def test_a_note_of_several_lines_stands_below_its_time(clock: Clock) -> None:
    stream = io.StringIO()
    listener = PlainListener(stream)
    listener.noted("one\n  two\x1b[2J")
    listener.ended(make.failed(CELLS[0], error="three\nfour"))
    assert stream.getvalue().splitlines()[:2] == ["12:00:00 one", "           two\\x1b[2J"]
    assert stream.getvalue().splitlines()[2].endswith(": three four")
    listener.begun(CELLS[:1], 3, 1)
    assert stream.getvalue().splitlines()[-1] == "12:00:00 1 cell to run, 3 done before; 1 worker"


def test_preparing_tells_its_own_time_left(clock: Clock) -> None:
    stream = io.StringIO()
    listener = PlainListener(stream)
    for done in range(11):
        listener.preparing("motion", 100 * done, 1000)
        clock.now += 40
    lines = stream.getvalue().splitlines()
    assert lines[0] == "12:00:00 preparing motion: 0 of 1,000"
    assert lines[5] == "12:00:00 preparing motion: 500 of 1,000, about 3 min left"
    assert lines[-1] == "12:00:00 preparing motion: 1,000 of 1,000"


def test_long_work_tells_how_far_it_is_and_short_work_nothing(clock: Clock) -> None:
    stream = io.StringIO()
    show = Lines(stream)
    show("decoding", 0, 3000)
    for done in range(1, 301):
        clock.now += 1
        show("decoding", done, 3000, "1.0 videos/s")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "12:00:00 decoding: 10 of 3,000, 1.0 videos/s"
    assert lines[1] == "12:00:00 decoding: 70 of 3,000, 1.0 videos/s, about 49 min left"
    assert len(lines) == 5
    short = io.StringIO()
    show = Lines(short)
    for done in range(9):
        clock.now += 1
        show("decoding", done, 9)
    assert short.getvalue() == ""


def test_another_stage_has_its_own_pace_and_what_was_there_already_none(clock: Clock) -> None:
    stream = io.StringIO()
    show = Lines(stream)
    show("preparing", 0, 10)
    clock.now += 3000
    show("preparing", 10, 10)
    show("evaluating", 500, 1000)  # half was there when it began
    clock.now += 100
    show("evaluating", 600, 1000)
    assert stream.getvalue().splitlines()[-1] == "12:00:00 evaluating: 600 of 1,000, about 7 min left"
    clock.now += 100
    show("probing\x1b[2J")
    assert stream.getvalue().splitlines()[-1] == "12:00:00 probing\\x1b[2J"


def test_the_live_view_tells_the_same_time(clock: Clock) -> None:
    from rich.console import Console

    stream = io.StringIO()
    shown = listeners.LiveListener(Console(file=io.StringIO(), width=150, color_system=None))
    logged = PlainListener(stream)

    def both(call: Callable[[listeners.LiveListener | PlainListener], None]) -> None:
        call(shown)
        call(logged)

    result: Result = make.done(CELLS[0])
    cell: Cell = CELLS[1]
    both(lambda one: one.begun(CELLS, 0, 2))
    both(lambda one: one.measuring(CELLS[0], 1, 2))
    clock.now += 100
    both(lambda one: one.expected(CELLS[0], 1000.0))
    both(lambda one: one.measuring(CELLS[0], 2, 2))
    assert shown._bar.tasks[0].fields["left"] == "about 1.7 h left"
    assert stream.getvalue().splitlines()[-1] == "12:00:00 about 1.7 h left (0 of 6 cells ended)"
    both(lambda one: one.progress(CELLS[0], {"stage": "training", "done": 0.0}))
    clock.now += 400
    both(lambda one: one.ended(result))
    both(lambda one: one.progress(cell, {"stage": "training", "done": 0.0}))
    assert shown._bar.tasks[0].fields["left"] == "about 33 min left"
    assert "12:00:00 about 33 min left (1 of 6 cells ended)" in stream.getvalue().splitlines()
