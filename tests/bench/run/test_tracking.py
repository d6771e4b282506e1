"""Trackers that follow trainings: what they are told, once each, and that nothing of a run hangs on them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bench.plugins import load as load_plugins
from bench.run import start
from bench.run.engines.base import ENGINES
from bench.run.matrix import expand
from bench.run.outcome import Outcome
from bench.run.result import Result
from bench.run.store import LOG, Run
from bench.run.tracking import followers, names
from bench.run.tracking.followers import TRACKING, TrackedListener
from bench.run.tracking.log_reader import LogReader
from bench.run.tracking.trackers import configuration, final_numbers
from bench.spec import Cell, Matrix, Request
from tests.bench import make
from tests.bench.command import Command, quotes

PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")
STATES = ("preparing", "noted", "begun", "measuring", "expected", "progress", "ended", "waiting")


class Recorder:
    """Listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        assert name in STATES
        return lambda *arguments: self.told.append((name, arguments))


class FakeTracker:
    """Keeps what trackers are told, by tracker and cell; `broken` and `slow` are as they are called."""

    runs: ClassVar[dict[tuple[str, str], list[tuple[int, dict[str, float]]]]] = {}
    finished: ClassVar[list[tuple[str, str]]] = []
    tells_anew = False
    free: ClassVar[threading.Event]

    def __init__(self, name: str, folder: Path, cell: Cell, known: str = "") -> None:
        if name == "unreachable":
            raise SystemExit("no key")
        self.name, self.identity = name, known or f"run {len(self.runs)}"
        self.told = self.runs.setdefault((name, self.identity), [])

    def log(self, values: dict[str, float], step: int) -> None:
        if self.name == "broken":
            raise ConnectionError("no route\nto host")
        if self.name == "slow":
            self.free.wait(60)
        self.told.append((step, values))

    def finish(self) -> None:
        self.finished.append((self.name, self.identity))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(followers, "CellTracker", FakeTracker)
    FakeTracker.runs.clear()
    FakeTracker.finished.clear()
    FakeTracker.free = threading.Event()
    yield FakeTracker
    FakeTracker.free.set()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "_EVERY", 0.01)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of two cells."""
    run = Run(tmp_path / "table1")
    run.open(make.matrix(), [make.cell(), make.cell(seed=1)], "bench run", {})
    return run


def line(step: int, **values: float) -> dict[str, float]:
    return {"seconds": step / 10, "epoch": step / 4, "step": step, "steps": 8, "loss": 1 / step, "lr": 1e-3, **values}


def write(run: Run, cell: Cell, *lines: dict[str, float], whole: bool = True) -> None:
    """The log of a cell as a training has it after these lines."""
    text = "".join(json.dumps(each) + "\n" for each in lines)
    (run.cell_folder(cell) / LOG).write_text(text if whole else text[:-7])


def training(listener: TrackedListener, cell: Cell) -> None:
    listener.progress(cell, {"stage": "starting", "done": 0.0})
    listener.progress(cell, {"stage": "training", "done": 0.1, "loss": 1.0})


def interrupted(cell: Cell) -> Result:
    return make.done(cell).model_copy(update={"status": "interrupted", "error": "stopped", "metrics": None})


# --- reading a log ---


def test_a_growing_log_is_read_line_by_line_and_a_line_half_written_later(tmp_path: Path) -> None:
    file = tmp_path / LOG
    reader = LogReader(file)
    assert reader.read() == (False, [])
    file.write_text('{"step": 2, "loss": 0.5}\n{"epoch": 1.0, "val_top1": 40.0}\n{"step": 4, "lo')
    assert reader.read() == (False, [(2, {"loss": 0.5}), (2, {"epoch": 1.0, "val_top1": 40.0})])
    assert reader.read() == (False, [])
    with file.open("a") as stream:
        stream.write('ss": 0.25}\nnot JSON\n[1]\n{"step": 6, "loss": 0.125}\n')
    assert reader.read() == (False, [(4, {"loss": 0.25}), (6, {"loss": 0.125})])


@pytest.mark.parametrize("later", ["", '{"step": 4, "loss": 9.0}\n', '{"step": 4, "loss": 9.0}\n' * 9])
def test_a_log_that_was_cut_off_is_read_from_its_start(tmp_path: Path, later: str) -> None:
    """Also where it has grown beyond the place before the next look."""
    file = tmp_path / LOG
    first = '{"step": 2, "loss": 0.5}\n'
    file.write_text(first + '{"step": 4, "loss": 0.3}\n{"step": 6, "loss": 0.2}\n')
    reader = LogReader(file)
    reader.read()
    file.write_text(first + later)
    cut, lines = reader.read()
    assert cut and lines == [(2, {"loss": 0.5}), *[(4, {"loss": 9.0})] * later.count("\n")]
    assert reader.read() == (False, [])


# --- what a tracker is told ---


def test_the_configuration_is_the_canonical_json_flattened() -> None:
    cell = make.cell(recipe={"lr": 0.5, "betas": (0.8, 0.9)})
    found = configuration(cell)
    canonical = json.loads(cell.canonical())
    assert found["cell"] == cell.key
    assert found["recipe.lr"] == 0.5 and json.loads(str(found["recipe.betas"])) == [0.8, 0.9]
    assert found["options.ratio"] == canonical["options"]["ratio"] and found["data.root"] == "null"
    leaves = sum(1 for value in canonical.values() if not isinstance(value, dict))
    leaves += sum(len(value) for value in canonical.values() if isinstance(value, dict))
    assert len(found) == leaves + 1
    assert all(isinstance(value, bool | int | float | str) for value in found.values())


def test_each_tracker_gets_the_log_and_the_result_of_each_cell(run: Run, fake: type[FakeTracker]) -> None:
    told = Recorder()
    listener = TrackedListener(told, run, ("wandb", "mlflow"))  # type: ignore[arg-type]
    first, second = make.cell(), make.cell(seed=1)
    write(run, first, line(2), line(4, clips_per_s=50.0), whole=False)
    training(listener, first)
    training(listener, second)
    write(run, first, line(2), line(4, clips_per_s=50.0), {"epoch": 1.0, "val_top1": 30.0})
    listener.ended(make.done(first))
    listener.ended(interrupted(second))
    assert listener.close() == []
    assert len(fake.runs) == len(fake.finished) == 4
    own = {name: told for (name, _), told in fake.runs.items() if told}
    assert own.keys() == {"wandb", "mlflow"}
    for rows in own.values():
        assert [step for step, _ in rows] == [2, 4, 4, 4]
        assert rows[1][1]["clips_per_s"] == 50.0 and rows[0][1]["loss"] == 0.5 and "step" not in rows[0][1]
        assert rows[3][1] == final_numbers(make.done(first))
        assert rows[3][1]["top1"] == 61.25 and rows[3][1]["trained_params_m"] == pytest.approx(0.098765)
    assert [name for name, _ in told.told].count("ended") == 2


def test_a_cell_that_goes_on_is_the_same_run_of_its_tracker_and_no_step_comes_twice(
    run: Run, fake: type[FakeTracker]
) -> None:
    cell = make.cell()
    listener = TrackedListener(Recorder(), run, ("wandb",))  # type: ignore[arg-type]
    write(run, cell, line(2), line(4), line(6))
    training(listener, cell)
    listener.ended(interrupted(cell))
    listener.close()
    # the next command's training goes on from a checkpoint at step 4
    write(run, cell, line(2), line(4), line(5), line(7), line(8))
    listener = TrackedListener(Recorder(), run, ("wandb",))  # type: ignore[arg-type]
    training(listener, cell)
    listener.ended(make.done(cell))
    listener.close()
    ((_, rows),) = fake.runs.items()
    assert [step for step, _ in rows] == [2, 4, 6, 7, 8, 8]
    known = json.loads((run.cell_folder(cell) / TRACKING).read_text())
    assert known == {"wandb": {"run": "run 0", "step": 8}}


def test_a_training_without_any_progress_is_told_at_its_end(run: Run, fake: type[FakeTracker]) -> None:
    cell = make.cell()
    write(run, cell, line(8))
    listener = TrackedListener(Recorder(), run, ("wandb",))  # type: ignore[arg-type]
    listener.ended(make.done(cell))
    listener.close()
    ((_, rows),) = fake.runs.items()
    assert [step for step, _ in rows] == [8, 8]


def test_no_tracker_no_thread_and_no_file(run: Run) -> None:
    told = Recorder()
    listener = TrackedListener(told, run, ())  # type: ignore[arg-type]
    for name in STATES:
        given: dict[str, tuple[Any, ...]] = {
            "progress": (make.cell(), {"stage": "training"}),
            "ended": (make.done(),),
            "preparing": ("data", 1, 2),
            "measuring": (make.cell(), 1, 2),
            "begun": ([], 0, 1),
            "expected": (make.cell(), 1.0),
        }
        getattr(listener, name)(*given.get(name, ("text",)))
    assert [name for name, _ in told.told] == list(STATES)
    assert listener.close() == []
    assert not any(thread.name.startswith("bench-track") for thread in threading.enumerate())
    assert not list(run.folder.rglob(TRACKING))


# --- trackers that fail ---


@pytest.mark.parametrize(("tracker", "reason"), [("broken", "no route to host"), ("unreachable", "no key")])
def test_a_broken_tracker_is_one_note_and_the_others_get_everything(
    run: Run, fake: type[FakeTracker], tracker: str, reason: str
) -> None:
    listener = TrackedListener(Recorder(), run, (tracker, "wandb"))  # type: ignore[arg-type]
    for cell in (make.cell(), make.cell(seed=1)):
        write(run, cell, line(2), line(4))
        training(listener, cell)
        listener.ended(make.done(cell))
    (note,) = listener.close()
    assert quotes(note, tracker, "2 cells", reason) and "\n" not in note
    assert [len(rows) for (name, _), rows in fake.runs.items() if name == "wandb"] == [3, 3]


def test_a_slow_tracker_holds_nothing_up(run: Run, fake: type[FakeTracker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "_PATIENCE", 10.0)
    cell = make.cell()
    listener = TrackedListener(Recorder(), run, ("slow", "wandb"))  # type: ignore[arg-type]
    write(run, cell, line(2))
    begun = time.monotonic()
    training(listener, cell)
    listener.ended(make.done(cell))
    (note,) = listener.close()
    assert time.monotonic() - begun < 60
    assert quotes(note, "slow", "1 cell")
    ((_, rows),) = [found for found in fake.runs.items() if found[0][0] == "wandb"]
    assert len(rows) == 2


def test_a_file_of_steps_that_is_damaged_begins_a_run_anew(run: Run, fake: type[FakeTracker]) -> None:
    cell = make.cell()
    (run.cell_folder(cell) / TRACKING).write_text('{"wandb": 3}')
    write(run, cell, line(2))
    listener = TrackedListener(Recorder(), run, ("wandb",))  # type: ignore[arg-type]
    listener.ended(make.done(cell))
    assert listener.close() == []
    assert [len(rows) for rows in fake.runs.values()] == [2]


# --- the command ---


class _Engine:
    slots = 1

    def __init__(self, *_: Any) -> None: ...

    def submit(self, job: Any) -> None: ...

    def events(self, timeout: float) -> Any: ...

    def cancel(self, cell: Cell) -> None: ...

    def preempt(self) -> None: ...

    def close(self) -> None: ...


class _Jobs(_Engine):
    """Of a scheduler, whose jobs are commands of their own."""

    detached, state = False, ""

    def start(self) -> None: ...


@pytest.mark.parametrize(("engine", "tracks"), [(_Engine, 1), (_Jobs, 0)])
def test_a_schedulers_jobs_are_tracked_by_themselves_alone(
    engine: Any, tracks: int, fake: type[FakeTracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job executes its cells by the local engine, and with it has them tracked."""

    class Course:
        def __init__(self, run: Run, *arguments: Any, **_: Any) -> None:
            self._listener = arguments[4]

        def execute(self, cells: Any, *_: Any) -> Outcome:
            self._listener.ended(make.done(cells[0]))
            return Outcome()

    monkeypatch.setattr(start, "Runner", Course)
    load_plugins([PLUGIN])
    ENGINES.add("mine", engine)
    matrix = {"backbones": "vit", "strategies": "frozen", "datasets": "small", "device": "cpu"}
    request = Request(**matrix, engine="mine", cache="off", track="mlflow", out=tmp_path / "run")
    start.execute(request, expand(request.matrix), "bench run", Recorder())  # type: ignore[arg-type]
    assert len(fake.runs) == tracks


def test_a_tracker_that_is_not_there_is_refused(bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_installed", lambda found: "wandb" not in found)
    said = bench("run", "--track", "tensorbord,wandb,tensorboard", "--device", "cpu", "--dry-run")
    assert said.code == 2 and said.out == ""
    unknown, lacking = said.problems
    assert quotes(unknown, "tensorbord", "tensorboard")
    assert quotes(lacking, "wandb", "pip install", "wandb")


def test_the_trackers_change_no_key() -> None:
    plain, tracked = Request(backbones="vit"), Request(backbones="vit", track="tensorboard,mlflow")
    assert tracked.track == ("tensorboard", "mlflow") and tracked != plain
    assert tracked.matrix == plain.matrix
    assert "track" not in {*Cell.model_fields, *Matrix.model_fields}
