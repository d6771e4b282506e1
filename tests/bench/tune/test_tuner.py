"""The choice among trials, what a run keeps of it, and which cells follow when."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from bench.run.result import Result
from bench.run.store import Run
from bench.spec import Cell
from bench.tune import record
from bench.tune.choose import best
from bench.tune.trials import Study, studies
from bench.tune.tuner import TrialTuner
from tests.bench import make
from tests.bench.command import quotes
from tests.bench.tune.rows import diverged, done, matrix, planned, study


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def begin(run: Run, *found: Study) -> TrialTuner:
    """A tuner as a command has it that opens the run."""
    tuner = TrialTuner(found)
    tuner.resume(run)
    run.open(make.matrix(), tuner.cells, "bench run", {}, trials=tuner.every_trial)
    tuner.open(run)
    return tuner


def end(run: Run, tuner: TrialTuner, result: Result) -> list[Cell]:
    """The cells that follow from a trial's result."""
    run.put(result)
    return [cell for _, cell in tuner.ended(run, result)]


def test_the_best_trial_is_the_most_accurate_and_of_equal_ones_the_first() -> None:
    found = study(4)
    results = {trial.key: done(trial, top1) for trial, top1 in zip(found.trials, (50, 70, 60, 70), strict=True)}
    assert best(found, results) == 1
    assert best(found, dict(list(results.items())[:3])) is None
    results[found.trials[1].key] = diverged(found.trials[1])
    assert best(found, results) == 3
    results[found.trials[0].key] = make.failed(found.trials[0])
    assert best(found, results) is None
    assert best(found, {trial.key: diverged(trial) for trial in found.trials}) is None


def test_an_accuracy_of_test_videos_chooses_nothing() -> None:
    found = study(1)
    tested = found.trials[0].model_copy(update={"split": "test"})
    with pytest.raises(ValueError, match="validation"):
        best(found, {found.trials[0].key: done(tested, 50)})


def test_cells_follow_when_the_trials_of_their_own_row_have_ended(run: Run) -> None:
    joint, lora = studies(matrix(2), planned(("joint", "lora")))
    tuner = begin(run, joint, lora)
    assert (len(tuner.trials), tuner.cells, len(tuner.waiting)) == (4, (), 4)
    assert not end(run, tuner, done(lora.trials[0], 40)) and not end(run, tuner, done(joint.trials[0], 90))
    cells = end(run, tuner, done(lora.trials[1], 55))
    assert [(cell.strategy, cell.seed) for cell in cells] == [("lora", 0), ("lora", 1)]
    assert all(cell.recipe == lora.trials[1].recipe for cell in cells)
    assert tuner.trials == joint.trials and {cell.strategy for cell in tuner.waiting} == {"joint"}
    first = end(run, tuner, done(joint.trials[1], 10))
    assert all(cell.recipe == joint.cells[0].recipe for cell in first)
    assert not tuner.trials and not tuner.waiting and not tuner.obstacles()
    # in the table's order, whichever came first
    assert run.description()["cells"] == [cell.folder for cell in (*first, *cells)]
    assert run.description()["trials"] == [trial.folder for trial in (*joint.trials, *lora.trials)]
    assert not run.results() and [result.cell for result in run.trials()] == [*joint.trials, *lora.trials]


def test_the_order_in_which_trials_end_changes_nothing(tmp_path: Path) -> None:
    found = study(4)
    results = [done(trial, top1) for trial, top1 in zip(found.trials, (50, 70, 60, 70), strict=True)]
    chosen = []
    for name, order in (("one", results), ("other", results[::-1])):
        run = Run(tmp_path / name)
        tuner = begin(run, found)
        chosen.append([cell.key for result in order for cell in end(run, tuner, result)])
    assert chosen[0] == chosen[1] and len(chosen[0]) == 2


def test_another_command_goes_on_where_one_stopped(run: Run) -> None:
    found = study(2)
    end(run, begin(run, found), done(found.trials[0], 40))
    again = begin(run, found)
    assert again.trials == found.trials
    run.put(done(found.trials[1], 60))  # of a process that was killed before it chose
    third = begin(run, found)
    assert not third.trials and [cell.recipe for cell in third.cells] == [found.trials[1].recipe] * 2
    known = record.read(run, found)
    assert known is not None and known.tuning == third.cells[0].tuning


def test_what_is_chosen_stays_chosen(run: Run) -> None:
    found = study(2)
    tuner = begin(run, found)
    end(run, tuner, done(found.trials[0], 70))
    cells = end(run, tuner, done(found.trials[1], 60))
    assert not end(run, tuner, done(found.trials[1], 60))
    run.put(done(found.trials[1], 99))
    assert begin(run, found).cells == tuple(cells)


def test_a_trial_that_failed_by_something_else_than_its_values_holds_its_row(run: Run) -> None:
    found = study(3)
    tuner = begin(run, found)
    assert quotes(tuner.obstacles()[0], found.label, "3 trials")
    for result in (done(found.trials[0], 40), make.failed(found.trials[1]), diverged(found.trials[2])):
        assert not end(run, tuner, result)
    (obstacle,) = tuner.obstacles()
    assert quotes(obstacle, found.label, "1 trial", 3)
    again = begin(run, found)
    assert [trial for trial in again.trials if run.ended(trial) is None] == [found.trials[1]]
    assert len(end(run, again, done(found.trials[1], 30))) == 2 and not again.obstacles()


def journal(run: Run) -> optuna.Study:
    """The run's only study as Optuna reads it."""
    file = optuna.storages.journal.JournalFileBackend(str(run.folder / "tuning" / "journal.log"))
    storage = optuna.storages.JournalStorage(file)
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


@pytest.mark.parametrize("lines", [0, 1, 2, 3])
def test_a_journal_that_was_cut_off_holds_nothing_up_and_is_made_good(run: Run, lines: int) -> None:
    found = study(2)
    tuner = begin(run, found)
    end(run, tuner, done(found.trials[0], 40))
    file = run.folder / "tuning" / "journal.log"
    whole = file.read_bytes().splitlines(keepends=True)
    assert len(whole) == 4  # the study, two trials, the end of one
    file.write_bytes(b"".join(whole[:lines]) + whole[lines][:9])
    other = TrialTuner([found])
    other.resume(run)
    other.open(run)
    assert [trial.value for trial in journal(run).trials] == [40, None]
    file.write_bytes(file.read_bytes()[:-9])
    assert len(end(run, tuner, done(found.trials[1], 60))) == 2
    assert [cell.recipe for cell in begin(run, found).cells] == [found.trials[1].recipe] * 2
    assert [trial.value for trial in journal(run).trials] == [40, 60]


def test_a_journal_that_a_killed_process_left_locked_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.folder.parent)
    found, here = study(1), Run(Path(run.folder.name))
    end(here, begin(here, found), done(found.trials[0], 40))
    (run.folder / "tuning" / "journal.log.lock").symlink_to("run/tuning/journal.log")
    other = study(2)
    begin(here, other)
    assert len(list((run.folder / "tuning").glob("*.json"))) == 2


def test_optunas_journal_has_every_trial(run: Run) -> None:
    found = study(3, tune_space={"ratio": [0.125, 0.5]})
    tuner = begin(run, found)
    end(run, tuner, done(found.trials[1], 62.5))
    end(run, tuner, diverged(found.trials[2]))
    begin(run, found)  # another command adds nothing twice
    told = journal(run)
    states = [trial.state.name for trial in told.trials]
    assert states == ["RUNNING", "COMPLETE", "FAIL"]
    assert told.best_value == 62.5 and told.best_trial.user_attrs == {"cell": found.trials[1].folder}
    assert told.best_params["options.ratio"] == found.trials[1].options["ratio"]
    assert told.best_params["lr"] == pytest.approx(found.trials[1].recipe.lr)
    assert told.direction.name == "MAXIMIZE"
