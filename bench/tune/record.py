"""Studies on disk: a file for each in the folder `tuning` of a run, with what was chosen, and Optuna's journal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.files import write_text
from bench.run.result import Result
from bench.run.store import Run
from bench.spec import Budget, Cell, FrozenModel, Tuning
from bench.tune.choose import accuracy
from bench.tune.trials import Study, distributions, within, without_seed

if TYPE_CHECKING:
    from optuna.storages import JournalStorage

FOLDER = "tuning"
JOURNAL = "journal.log"


class StudyRecord(FrozenModel):
    """A study as its file has it.

    Attributes:
        cell: as planned, without its seed.
        trials: names of the folders of the trials' cells, by number.
        tuning: the choice; None while trials have not ended.
    """

    cell: Cell
    budget: Budget
    trials: tuple[str, ...]
    tuning: Tuning | None = None


def _file(run: Run, key: str) -> Path:
    return run.folder / FOLDER / f"{key}.json"


def read(run: Run, study: Study) -> StudyRecord | None:
    """Return the record of a study; None where the run has none that can be read."""
    return _read(_file(run, study.key))


def _read(file: Path) -> StudyRecord | None:
    try:
        return StudyRecord.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def records(run: Run) -> list[StudyRecord]:
    """Return the records of a run's studies, in the order in which the run has their trials."""
    found = [record for file in sorted((run.folder / FOLDER).glob("*.json")) if (record := _read(file)) is not None]
    place = {name: index for index, name in enumerate(run.description().get("trials", ()))}
    return sorted(found, key=lambda record: place.get(record.trials[0] if record.trials else "", len(place)))


def write(run: Run, study: Study, tuning: Tuning | None) -> None:
    """Put a study's record in its place, where none with a choice is there. Raises OSError."""
    (run.folder / FOLDER).mkdir(exist_ok=True)
    if (known := read(run, study)) is not None and known.tuning is not None:
        return
    record = StudyRecord(
        cell=without_seed(study.cells[0]),
        budget=study.budget,
        trials=tuple(trial.folder for trial in study.trials),
        tuning=tuning,
    )
    write_text(_file(run, study.key), record.model_dump_json(indent=2))


class Journal:
    """Optuna's journal of all studies of a run: a copy of what the trials' results say, for Optuna's own tools.

    Args:
        run: in whose folder `tuning` it lies; processes that work in it take turns.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._storage: JournalStorage | None = None

    def open(self, studies: Sequence[Study], results: dict[str, Result]) -> None:
        """Add the studies and trials that it lacks, and how those ended that have. Raises OSError."""
        with self._run.locked("tuning"):
            if self._cut_off():
                ended = [self._run.ended(trial) for study in studies for trial in study.trials]
                results = {result.cell.key: result for result in ended if result is not None}
            self._add(studies, results)

    def _add(self, studies: Iterable[Study], results: dict[str, Result]) -> None:
        import optuna

        storage = self._opened()
        for study in studies:
            with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
                storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], self._name(study))
            id = storage.get_study_id_from_name(self._name(study))
            for number in range(len(storage.get_all_trials(id, deepcopy=False)), len(study.trials)):
                trial = optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=within(study.budget.space, study.values[number]),
                    distributions=distributions(study.budget.space),
                    user_attrs={"cell": study.trials[number].folder},
                )
                storage.create_new_trial(id, trial)
            for cell in study.trials:
                if (result := results.get(cell.key)) is not None:
                    self._end(storage, study, result)

    def _cut_off(self) -> bool:
        """Remove the lines from the first damaged one on, as a full disk leaves it; False where all are whole.

        Raises OSError.
        """
        file = self._run.folder / FOLDER / JOURNAL
        found = file.read_bytes() if file.exists() else b""
        kept = 0
        with contextlib.suppress(ValueError):
            for line in found.splitlines(keepends=True):
                json.loads(line)
                kept += len(line) if line.endswith(b"\n") else 0
        if kept < len(found):
            write_text(file, found[:kept].decode())
        return kept < len(found)

    def ended(self, study: Study, result: Result) -> None:
        """Write how a trial ended. Where that fails, the next `open` makes up for it: nothing follows from a copy."""
        with contextlib.suppress(Exception), self._run.locked("tuning"):
            self._end(self._opened(), study, result)

    def _end(self, storage: JournalStorage, study: Study, result: Result) -> None:
        from optuna.trial import TrialState

        assert result.cell.trial is not None
        id = storage.get_study_id_from_name(self._name(study))
        trial = storage.get_trial_id_from_study_id_trial_number(id, result.cell.trial.number)
        if storage.get_trial(trial).state.is_finished():
            return
        value = accuracy(result)
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        storage.set_trial_state_values(trial, state, None if value is None else [value])

    def _opened(self) -> JournalStorage:
        if self._storage is None:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

            class Held(JournalFileSymlinkLock):
                """The run's own lock, which is held: Optuna's outlives a process that is killed."""

                def acquire(self) -> bool:
                    return True

                def release(self) -> None: ...

            optuna.logging.set_verbosity(optuna.logging.ERROR)
            (self._run.folder / FOLDER).mkdir(exist_ok=True)
            file = str(self._run.folder / FOLDER / JOURNAL)
            self._storage = JournalStorage(JournalFileBackend(file, Held(file)))
        return self._storage

    @staticmethod
    def _name(study: Study) -> str:
        return f"{study.label} {study.key}"
