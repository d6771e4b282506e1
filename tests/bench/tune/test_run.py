"""`bench run --tune`: trials first, a row's cells after its own trials, nothing again; and what is told of it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.data.cache import FrameCache
from bench.measure.placement import Placement
from bench.run.engines import measuring, runner
from bench.run.engines.base import Event, Job
from bench.run.engines.runner import Runner
from bench.run.outcome import Outcome
from bench.run.store import Run
from bench.spec import Cell
from bench.tune.trials import studies
from bench.tune.tuner import TrialTuner
from tests.bench import make
from tests.bench.command import Command, quotes
from tests.bench.tune.rows import matrix, planned

PLUGINS = Path(__file__).parents[1] / "plugins"


class InstantEngine:
    """Engine that ends its jobs in the order of their submission, each with an accuracy of its learning rate.

    Args:
        slots: jobs at once; the last one of these that are there ends first.
        fails: labels of cells that fail, with their errors.
        pause: seconds that a job takes.
    """

    def __init__(self, slots: int = 1, fails: dict[str, str] | None = None, pause: float = 0.0) -> None:
        self._pause = pause
        self.slots = slots
        self.jobs: deque[Job] = deque()
        self.trained: list[Cell] = []
        self.measured: list[str] = []
        self._fails = fails or {}

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def events(self, timeout: float) -> Iterator[Event]:
        if not self.jobs:
            return
        job = self.jobs.pop()
        time.sleep(self._pause)
        if job.kind == "measure":
            self.measured.append(job.cell.model_key())
            yield Event(job, "measured", {"value": make.measured()})
            return
        self.trained.append(job.cell)
        if (error := self._fails.get(job.cell.label)) is not None:
            yield Event(job, "failed", {"status": "failed", "error": error, "traceback": ""})
        else:
            top1 = min(100.0, 1000 * job.cell.recipe.lr)
            yield Event(job, "trained", {"value": make.done(job.cell, top1=top1)})

    def cancel(self, cell: Cell) -> None:
        raise NotImplementedError

    def preempt(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Listener:
    """Hears how many cells there are, and which were chosen."""

    def __init__(self) -> None:
        self.announced: list[Cell] = []
        self.choices: list[tuple[Cell, Cell]] = []

    def begun(self, cells: list[Cell], skipped: int, workers: int) -> None:
        self.announced = list(cells)

    def chosen(self, before: Cell, cell: Cell) -> None:
        self.choices.append((before, cell))

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def run(
    folder: Path,
    engine: InstantEngine,
    trials: int = 2,
    strategies: tuple[str, ...] = ("joint", "lora"),
    **changes: Any,
) -> tuple[Run, Outcome, Listener]:
    """A tuned run on an engine."""
    found = Run(folder)
    tuner = TrialTuner(studies(matrix(trials, **changes), planned(strategies)))
    tuner.resume(found)
    found.open(make.matrix(), tuner.cells, "bench run", {}, trials=tuner.every_trial)
    tuner.open(found)
    listener: Any = Listener()
    placement = Placement("cpu", None, "fp32")
    executed = Runner(found, engine, placement, "bench run", FrameCache(), listener).execute(tuner.cells, tuner)
    return found, executed, listener


def order(engine: InstantEngine) -> list[tuple[str, str]]:
    return [(cell.strategy, "cell" if cell.trial is None else "trial") for cell in engine.trained]


def test_trials_run_first_and_each_rows_cells_right_after_its_own(tmp_path: Path) -> None:
    engine = InstantEngine()
    found, outcome, listener = run(tmp_path, engine)
    expected = [(name, kind) for name in ("joint", "lora") for kind in ("trial", "trial", "cell", "cell")]
    assert order(engine) == expected
    assert len(listener.announced) == 8 and len(listener.choices) == 4
    assert list(outcome.cells) == [result.cell for result in found.results()]
    best = max((cell for cell in engine.trained[:2]), key=lambda cell: cell.recipe.lr)
    assert {cell.recipe for cell in engine.trained[2:4]} == {best.recipe}
    assert {cell.seed for cell in engine.trained[2:4]} == {0, 1}
    assert len(engine.measured) == 2  # trials share the measurements of their strategy
    assert not outcome.failures and not outcome.untuned
    assert (found.folder / "results.csv").read_text().count("\n") == 5


def test_trials_side_by_side_choose_the_same(tmp_path: Path) -> None:
    chosen = []
    for slots in (1, 3):
        engine = InstantEngine(slots)
        chosen.append({cell.key for cell in run(tmp_path / str(slots), engine, 3)[1].cells})
        assert len(engine.trained) == 10
    assert chosen[0] == chosen[1]


def test_two_commands_at_once_share_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_PATIENCE", 0.01)
    monkeypatch.setattr(measuring, "exclusive_machine_lock", lambda *_: contextlib.nullcontext())
    engines = [InstantEngine(pause=0.01), InstantEngine(pause=0.01)]
    with ThreadPoolExecutor(2) as pool:
        outcomes = [each[1] for each in pool.map(lambda engine: run(tmp_path, engine, 3), engines)]
    trained = [cell.key for engine in engines for cell in engine.trained]
    assert len(trained) == len(set(trained)) == 10
    assert outcomes[0].cells == outcomes[1].cells and len(outcomes[0].cells) == 4
    assert not any(outcome.untuned or outcome.failures for outcome in outcomes)
    assert [result.cell for result in Run(tmp_path).results()] == list(outcomes[0].cells)


def test_a_second_command_runs_nothing_again(tmp_path: Path) -> None:
    first, second = InstantEngine(), InstantEngine()
    _, outcome, _ = run(tmp_path, first)
    _, again, listener = run(tmp_path, second)
    assert not second.trained and not second.measured and not listener.announced
    assert again.cells == outcome.cells and again.skipped == 4
    other = InstantEngine()
    run(tmp_path, other, seeds=(0, 1), tune_seed=5)
    assert order(other).count(("joint", "trial")) == 1  # the recipe as it is was tried before


def test_a_broken_trial_holds_its_own_row_alone_and_a_diverged_one_none(tmp_path: Path, bench: Command) -> None:
    tuner = TrialTuner(studies(matrix(2), planned(("joint", "lora"))))
    joint, lora = tuner.trials[1].label, tuner.trials[3].label
    engine = InstantEngine(fails={joint: "OSError: no room", lora: "Diverged: the loss is nan at step 3"})
    found, outcome, _ = run(tmp_path, engine)
    assert order(engine) == [*[("joint", "trial")] * 2, *[("lora", "trial")] * 2, *[("lora", "cell")] * 2]
    assert [result.cell.strategy for result in outcome.failures] == ["joint"]
    (sentence,) = outcome.untuned
    assert quotes(sentence, "joint", "1 trial")
    assert quotes(bench("status", found.folder).out, "4 trials", "1 row")
    assert {cell.recipe for cell in outcome.cells} == {tuner.trials[2].recipe}
    again = InstantEngine()
    _, outcome, _ = run(tmp_path, again)
    assert order(again) == [("joint", "trial"), ("joint", "cell"), ("joint", "cell")] and not outcome.untuned
    assert [result.cell.strategy for result in found.results()] == ["joint", "joint", "lora", "lora"]


def test_status_report_and_caption_tell_of_it(tmp_path: Path, bench: Command) -> None:
    found, outcome, _ = run(tmp_path / "run", InstantEngine(), 3)
    status = bench("status", found.folder, "--all")
    assert quotes(status.out, "6 trials", "6 done") and quotes(status.out, "4 cells", "4 done")
    states = json.loads(bench("status", found.folder, "--format", "json").out)
    assert states[4]["label"] == found.trials()[4].cell.label
    assert "row" not in status.out
    assert [state["trial"] for state in states] == [True] * 6 + [False] * 4
    table = bench("report", found.folder).out
    assert quotes(table, "3 trials", 1000, "lr")
    said = bench("report", found.folder, "--tuning", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(said.out)))
    assert len(lines) == 6
    for strategy, cells in (("joint", outcome.cells[:2]), ("lora", outcome.cells[2:])):
        own = [line for line in lines if line["strategy"] == strategy]
        best = max(own, key=lambda line: float(line["val_top1"]))
        assert [line["chosen"] for line in own].count("True") == 1 and best["chosen"] == "True"
        assert {float(best["lr"])} == {cell.recipe.lr for cell in cells}
    for form in ("terminal", "markdown"):
        text = bench("report", found.folder, "--tuning", "--format", form).out
        assert quotes(text, "joint") and quotes(text, "lora") and quotes(text, "3 trials", 1000)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (("--tune", "-1"), -1),
        (("--tune", "2", "--tune-epochs", "9"), 9),
        (("--tune-epochs", "7"), 7),
        (("--tune-space", "lr=fixed"), "{'lr': 'fixed'}"),
        (("--tune", "2", "--tune-space", "ratoi=[0.5]"), "'ratio'"),
        (("--tune", "2", "--tune-space", "lr=1..0.1"), "'1..0.1'"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    arguments: tuple[str, ...], value: object, tmp_path: Path, bench: Command
) -> None:
    said = bench("run", "--backbones", "vit:tiny@none", "--strategies", "joint", *arguments, "--out", tmp_path / "run")
    assert said.code == 2 and quotes(said.problems[0], value)
    assert not (tmp_path / "run").exists()


def test_mistakes_in_the_space_and_elsewhere_are_told_together(tmp_path: Path, bench: Command) -> None:
    asked = ("run", "--backbones", "vit:tiny@none", "--strategies", "joint", "--tune", "2")
    said = bench(*asked, "--tune-space", "lrr=fixed", "--track", "tensrboard", "--config", "paper/table77")
    assert said.code == 2 and [problem.split(" ")[0] for problem in said.problems] == ["config", "track", "tune_space"]
    asked = ("run", "--backbones", "vit:tiny@none", "--strategies", "jiont", "--tune", "2")
    said = bench(*asked, "--tune-space", "lrr=fixed", "--tune-space", "joint.scale=declared")
    assert said.code == 2 and [problem.split(" ")[0] for problem in said.problems] == ["unknown", "tune_space"]
    said = bench(*asked, "--tune-space", "width=[1,2]", "--tune-space", "lr=1..0.1", "--plugin", "gone.py")
    assert [problem.split(" ")[0] for problem in said.problems] == ["plugin", "unknown", "tune_space.lr"]  # not width's


def test_what_no_trial_of_a_row_could_have_is_told_once(tmp_path: Path, bench: Command) -> None:
    asked = ("run", "--backbones", "vit:tiny@none", "--strategies", "joint", "--batch-size", "1", "--tune", "9")
    said = bench(*asked, "--tune-space", "mixup=0.1..0.8")
    assert said.code == 2 and [quotes(problem, "joint", "mixup") for problem in said.problems] == [True]


def test_a_run_without_trials_says_so(tmp_path: Path, bench: Command) -> None:
    found = Run(tmp_path / "run")
    found.open(make.matrix(), [make.cell()], "bench run", {})
    found.write(make.done(make.cell()))
    assert "trials" not in found.description()
    said = bench("report", found.folder, "--tuning")
    assert said.code == 2 and quotes(said.err, str(found.folder))


@pytest.mark.slow
def test_the_command_from_trials_to_the_table(tmp_path: Path, bench: Command) -> None:
    out = tmp_path / "run"
    plugins = [part for name in ("small", "hasty") for part in ("--plugin", PLUGINS / f"{name}.py")]
    arguments = ["run", "--dataset", "small", "--backbones", "vit:tiny@none", "--strategies", "frozen,joint", *plugins]
    arguments += ["--no-order-test", "--tune", "2", "--out", out]
    first = bench(*arguments)
    assert first.code == 0, first.out + first.err
    files = {file: file.stat().st_mtime_ns for file in out.glob("cells/*/predictions.npz")}
    assert len(files) == 6
    again = bench(*arguments)
    assert again.code == 0 and {file: file.stat().st_mtime_ns for file in files} == files
    results = Run(out).results()
    assert [result.cell.strategy for result in results] == ["frozen", "joint"]
    for result in results:
        assert result.provenance.tuning is not None and result.provenance.tuning == result.cell.tuning
        trials = [trial for trial in Run(out).trials() if trial.cell.strategy == result.cell.strategy]
        accuracies = [trial.metrics.top1 for trial in trials if trial.metrics]
        assert result.provenance.tuning.chosen == accuracies.index(max(accuracies))
    assert bench("report", out, "--tuning").code == 0
