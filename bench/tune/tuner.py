"""Tuner of a run: which trials are still to run, and which cells follow from those that ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.run.matrix import Plan
from bench.run.result import Result
from bench.run.store import Run
from bench.run.tuner import Tuned
from bench.spec import Cell, Request, Tuning
from bench.text import counted
from bench.tune import record
from bench.tune.choose import best
from bench.tune.record import Journal
from bench.tune.trials import Study, studies


def tuned(request: Request, plan: Plan) -> Plan:
    """Return a plan whose recipes are chosen by trials.

    Raises:
        UserError: Optuna is missing, or the space or the budget is wrong.
    """
    return replace(plan, tuner=TrialTuner(studies(request.matrix, plan.cells)))


class TrialTuner:
    """Tuner that chooses the best of a fixed number of trials; see `bench.run.tuner.Tuner`.

    Args:
        studies: one for each row of the table.
    """

    def __init__(self, studies: Sequence[Study]) -> None:
        self._studies = tuple(studies)
        self._of_trial = {trial.key: study for study in studies for trial in study.trials}
        self._results: dict[str, Result] = {}
        self._chosen: dict[str, Tuning] = {}
        self._journal: Journal | None = None

    @property
    def _open(self) -> list[Study]:
        return [study for study in self._studies if study.key not in self._chosen]

    @property
    def every_trial(self) -> tuple[Cell, ...]:
        return tuple(trial for study in self._studies for trial in study.trials)

    @property
    def trials(self) -> tuple[Cell, ...]:
        return tuple(trial for study in self._open for trial in study.trials)

    @property
    def cells(self) -> tuple[Cell, ...]:
        chosen = [study for study in self._studies if study.key in self._chosen]
        return tuple(cell for study in chosen for cell in study.tuned(self._chosen[study.key]))

    @property
    def waiting(self) -> tuple[Cell, ...]:
        return tuple(cell for study in self._open for cell in study.cells)

    @property
    def told(self) -> tuple[str, ...]:
        first = self._studies[0].budget
        lines = [
            f"tuning: {counted(first.trials, 'trial')} for each of {counted(len(self._studies), 'row')}, seed "
            f"{first.seed}; {first.sampler}, seed {first.sampler_seed}"
        ]
        for study in self._studies:
            space = ", ".join(f"{name} {dimension}" for name, dimension in study.budget.space.items())
            lines.append(f"  {study.label}: {counted(study.budget.epochs, 'epoch')}, {space}")
        return tuple(lines)

    def resume(self, run: Run) -> None:
        for study in self._studies:
            known = record.read(run, study)
            if known is not None and known.tuning is not None:
                self._chosen[study.key] = known.tuning
                continue
            for trial in study.trials:
                if (result := run.result(trial)) is not None:
                    self._results[trial.key] = result
            self._choose(study)

    def open(self, run: Run) -> None:
        self._journal = Journal(run)
        for study in self._studies:
            record.write(run, study, self._chosen.get(study.key))
        self._journal.open(self._studies, self._settled())

    def ended(self, run: Run, trial: Result) -> Sequence[Tuned]:
        study = self._of_trial[trial.cell.key]
        self._results[trial.cell.key] = trial
        if self._journal is not None and trial.final:
            self._journal.ended(study, trial)
        if study.key in self._chosen or (tuning := self._choose(study)) is None:
            return ()
        cells = study.tuned(tuning)
        record.write(run, study, tuning)
        run.add(self.cells)
        return [Tuned(planned, cell) for planned, cell in zip(study.cells, cells, strict=True)]

    def obstacles(self) -> list[str]:
        found = []
        for study in self._open:
            results = [self._results.get(trial.key) for trial in study.trials]
            broken = [result for result in results if result is not None and not result.final]
            if broken:
                why = (
                    f"{counted(len(broken), 'trial')} of {len(results):,} failed; the same command tries again, and "
                    "goes on with its cells once all have ended"
                )
            elif None in results:
                why = f"{results.count(None):,} of {counted(len(results), 'trial')} have not ended"
            else:
                why = f"none of {counted(len(results), 'trial')} has an accuracy: expected another tune_space"
            found.append(f"{study.label} is not tuned: {why}")
        return found

    def _choose(self, study: Study) -> Tuning | None:
        number = best(study, self._results)
        if number is None:
            return None
        self._chosen[study.key] = study.tuning(number)
        return self._chosen[study.key]

    def _settled(self) -> dict[str, Result]:
        return {key: result for key, result in self._results.items() if result.final}
