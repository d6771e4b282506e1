"""Trials of a row of the table: their values, drawn before the first of them runs, and the cells that they are."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from adapters.base import STRATEGIES
from backbones.families import FAMILIES
from bench.errors import UserError
from bench.spec import Budget, Cell, Dimension, Matrix, Recipe, Trial, Tuning, problems_of
from bench.tune.space import OPTION, Space

SAMPLER = "scrambled Sobol sequence (optuna.samplers.QMCSampler), after the recipe as it is"
_FIRST_SEED = 1000  # of trials; a table's seeds are counted from 0


@dataclass(frozen=True)
class Study:
    """Search for the recipe of cells that differ in the seed alone.

    Attributes:
        cells: as planned, one a seed.
        budget: trials, epochs, seeds and space.
        trials: the cells of the trials, by number.
        values: of each trial, by the names of the space.
    """

    cells: tuple[Cell, ...]
    budget: Budget
    trials: tuple[Cell, ...]
    values: tuple[Mapping[str, Any], ...]

    @property
    def key(self) -> str:
        """First 10 hexadecimal digits of a hash of what the study is: the cells without their seed, and the budget."""
        text = without_seed(self.cells[0]).canonical() + self.budget.canonical()
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def label(self) -> str:
        """Name of the row for people."""
        return f"{self.cells[0].label.rpartition(' seed ')[0]} on {self.cells[0].dataset}"

    def tuning(self, number: int) -> Tuning:
        """Return the choice of a trial."""
        untuned, values = dict(self.values[0]), dict(self.values[number])
        return Tuning(**self.budget.model_dump(), untuned=untuned, chosen=number, values=values)

    def tuned(self, tuning: Tuning) -> tuple[Cell, ...]:
        """Return the cells with the recipe that was chosen, in the order of `cells`."""
        return tuple(with_values(cell, tuning.values).model_copy(update={"tuning": tuning}) for cell in self.cells)


def without_seed(cell: Cell) -> Cell:
    """Return a cell as all seeds of it share it."""
    return cell.model_copy(update={"seed": 0})


def studies(matrix: Matrix, cells: Iterable[Cell]) -> tuple[Study, ...]:
    """Return the studies of planned cells, in their order.

    Raises:
        UserError: everything wrong with the space and the budget; or Optuna is missing.
    """
    problems = optuna_missing(matrix)
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(without_seed(cell).key, []).append(cell)
    space = Space(matrix.tune_space, dict.fromkeys(row[0].strategy for row in rows.values()), problems)
    seed = next(seed for seed in range(_FIRST_SEED, _FIRST_SEED + len(matrix.seeds) + 1) if seed not in matrix.seeds)
    found = []
    for row in rows.values():
        dimensions = space.of(row[0])
        epochs = row[0].recipe.epochs
        if not dimensions and not problems:
            problems.append(f"tune_space leaves nothing of {row[0].method} to vary: expected a part that is not fixed")
        if epochs == 0:
            problems.append(f"tune is {matrix.tune}: {row[0].method} trains for 0 epochs, expected at least 1")
        elif matrix.tune_epochs is not None and matrix.tune_epochs > epochs:
            problems.append(
                f"tune_epochs is {matrix.tune_epochs}: {row[0].method} trains for {epochs}, expected at most {epochs}"
            )
        if problems:
            continue
        budget = Budget(
            trials=matrix.tune,
            epochs=matrix.tune_epochs or epochs,
            sampler=SAMPLER,
            sampler_seed=matrix.tune_seed,
            seed=seed,
            space=dimensions,
        )
        found.append(_study(row, budget, problems))
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    return tuple(found)


def _study(row: Sequence[Cell], budget: Budget, problems: list[str]) -> Study:
    untuned = {name: _value(row[0], name) for name in budget.space}
    values = [untuned, *sampled(budget.space, untuned, budget.trials - 1, budget.sampler_seed)]
    trials = []
    for number, changed in enumerate(values):
        try:
            trial = with_values(row[0], changed, budget.epochs)
        except ValidationError as error:  # a part that does not go with the recipe's others
            problems += [f"tune_space of {row[0].method}: {told}" for told in problems_of(error)]
            break  # which the next trial would be told with another value
        problems += _options(row[0], changed)[1]
        if row[0].cache_features and (drawn := trial.recipe.augmented()):
            problems.append(
                f"tune_space of {row[0].method} augments ({', '.join(drawn)}): kept features have none of it, expected "
                "no cache_features"
            )
        update = {
            "seed": budget.seed,
            "stages": ("train", "evaluate"),
            "split": "val",
            "clips": 1,
            "crops": 1,
            "view_side": None,
            "order_test": False,
            "trial": Trial(number=number, untuned=untuned),
        }
        trials.append(trial.model_copy(update=update))
    return Study(tuple(row), budget, tuple(trials), tuple(values))


def space_problems(matrix: Matrix, complete: bool) -> list[str]:
    """Return what is wrong with Optuna and a matrix's space where its cells cannot be planned.

    Of options nothing is said, as it is not known whose they would be.

    Args:
        complete: all plugins were loaded, so that a name of no option is one of nothing.
    """
    problems = optuna_missing(matrix)
    names = STRATEGIES.names()
    options = {option for name in names for option in STRATEGIES.get(name).options.model_fields}
    asked = {
        name: value
        for name, value in matrix.tune_space.items()
        if name in Recipe.model_fields or (complete and name.rpartition(".")[2] not in options)
    }
    Space(asked, names, problems)
    return problems


def optuna_missing(matrix: Matrix) -> list[str]:
    """Return a sentence where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is not None:
        return []
    return [f"tune is {matrix.tune}: Optuna is not installed; pip install 'aim-bench[tune]'"]


def _value(cell: Cell, name: str) -> Any:
    return cell.options[name.removeprefix(OPTION)] if name.startswith(OPTION) else getattr(cell.recipe, name)


def sampled(space: Mapping[str, Dimension], first: Mapping[str, Any], count: int, seed: int) -> list[dict[str, Any]]:
    """Draw points of a space: the i-th follows from space, seed and i alone, so that trials may end in any order.

    Args:
        first: the point before these, which is not drawn.
        count: of points.
        seed: of the sequence.
    """
    if count < 1:
        return []
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # its interface, of which little is used
        sampler = optuna.samplers.QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    # a study's first trial tells the sampler the whole space
    study.add_trial(optuna.trial.create_trial(params=within(space, first), distributions=distributions(space), value=0))
    drawn = [study.ask(distributions(space)).params for _ in range(count)]
    return [{name: _rounded(space[name], values[name]) for name in space} for values in drawn]


def distributions(space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Return a space in Optuna's terms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: CategoricalDistribution(each.choices)
        if each.scale == "choice"
        else FloatDistribution(each.low or 0.0, each.high or 0.0, log=each.scale == "log")
        for name, each in space.items()
    }


def within(space: Mapping[str, Dimension], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values moved into a space: Optuna keeps none outside of it, as the recipe's own may be."""
    found = {}
    for name, each in space.items():
        value = values[name]
        if each.scale == "choice":
            found[name] = value if value in each.choices else each.choices[0]
        else:
            found[name] = min(max(value, each.low), each.high)
    return found


def _rounded(dimension: Dimension, value: Any) -> Any:
    """A drawn value with three digits, as a recipe is written."""
    if dimension.scale == "choice" or dimension.low is None or dimension.high is None:
        return value
    return min(max(float(f"{value:.3g}"), dimension.low), dimension.high)


def with_values(cell: Cell, values: Mapping[str, Any], epochs: int | None = None) -> Cell:
    """Return a cell with values of a space, and trained for so many epochs.

    The temporal embedding's learning rate keeps its ratio to the others', and a shorter training the share of its
    warm-up.
    """
    recipe = cell.recipe
    changes = {name: value for name, value in values.items() if not name.startswith(OPTION)}
    if recipe.time_lr is not None and changes.get("lr", recipe.lr) != recipe.lr:
        changes["time_lr"] = min(10.0, float(f"{recipe.time_lr * changes['lr'] / recipe.lr:.3g}"))
    if epochs is not None and epochs < recipe.epochs:
        warmup = changes.get("warmup_epochs", recipe.warmup_epochs)
        changes |= {"epochs": epochs, "warmup_epochs": warmup * epochs / recipe.epochs}
    options, _ = _options(cell, values)
    return cell.model_copy(update={"recipe": Recipe(**{**recipe.model_dump(), **changes}), "options": options})


def _options(cell: Cell, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options of a cell with values of a space, and a sentence on each that does not fit."""
    changed = {name.removeprefix(OPTION): value for name, value in values.items() if name.startswith(OPTION)}
    if not changed:
        return cell.options, []
    strategy = STRATEGIES.get(cell.strategy)
    whole = strategy.options(**{**cell.options, **changed}).model_dump(mode="json")
    return strategy.fit_options(whole, FAMILIES.get(cell.backbone_name.family), (cell.frames,))
