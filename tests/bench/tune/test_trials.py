"""Trials: the same points whoever asks for how many, cells of their own, the rest of the recipe as it is."""

from __future__ import annotations

import pytest
from scipy.stats import qmc

from bench.errors import UserError
from bench.spec import Dimension
from bench.tune.trials import sampled, studies, with_values
from tests.bench import make
from tests.bench.command import field_of, quotes
from tests.bench.tune.rows import matrix, planned, study

SPACE = {
    "head_lr": Dimension(scale="log", low=1e-4, high=1e-1),
    "lr": Dimension(scale="log", low=1e-3, high=1e-2),
    "weight_decay": Dimension(scale="linear", low=0.0, high=0.5),
}
FIRST = {"head_lr": 1e-2, "lr": 2e-3, "weight_decay": 0.1}


def test_the_points_are_those_of_a_scrambled_sobol_sequence() -> None:
    unit = qmc.Sobol(3, scramble=True, seed=7).random(8)
    found = sampled(SPACE, FIRST, 8, 7)
    for (u, v, w), point in zip(unit, found, strict=True):
        assert point["head_lr"] == pytest.approx(1e-4 * 1000**u, rel=6e-3)
        assert point["lr"] == pytest.approx(1e-3 * 10**v, rel=6e-3)
        assert point["weight_decay"] == pytest.approx(0.5 * w, rel=6e-3)


def test_a_point_follows_from_its_number_and_the_seed_alone() -> None:
    eight = sampled(SPACE, FIRST, 8, 0)
    assert sampled(SPACE, FIRST, 3, 0) == eight[:3]
    assert sampled(SPACE, {**FIRST, "lr": 9e-3}, 8, 0) == eight
    assert sampled(SPACE, FIRST, 8, 1) != eight
    assert len({point["lr"] for point in eight}) == 8
    assert sampled(SPACE, FIRST, 0, 0) == []


def test_choices_are_all_tried() -> None:
    space = {"options.ratio": Dimension(scale="choice", choices=(0.125, 0.25, 0.5)), "lr": SPACE["lr"]}
    found = sampled(space, {"options.ratio": 0.25, "lr": 2e-3}, 15, 0)
    assert {point["options.ratio"] for point in found} == {0.125, 0.25, 0.5}


def test_a_trial_is_a_cell_of_its_own_that_is_evaluated_on_validation_videos() -> None:
    found = study(4, cell={"clips": 3, "crops": 3, "view_side": 256})
    table = planned(clips=3, crops=3, view_side=256)
    assert len(found.trials) == 4
    keys = {cell.key for cell in (*found.trials, *table)}
    assert len(keys) == 6 and len({cell.folder for cell in found.trials}) == 4
    for number, trial in enumerate(found.trials):
        assert trial.trial is not None and trial.trial.number == number
        assert (trial.split, trial.stages, trial.order_test) == ("val", ("train", "evaluate"), False)
        assert (trial.clips, trial.crops, trial.view_side) == (1, 1, None)
        assert trial.model_key() == table[0].model_key()


def test_the_first_trial_is_the_recipe_as_it_is() -> None:
    found = study(2)
    assert found.trials[0].recipe == planned()[0].recipe and found.trials[1].recipe != planned()[0].recipe
    changed = {name for name, value in found.trials[1].recipe if value != getattr(found.trials[0].recipe, name)}
    assert changed == set(found.budget.space)


def test_the_trials_of_a_smaller_budget_are_those_of_a_larger_one() -> None:
    small, large = study(3), study(5)
    assert [trial.key for trial in large.trials[:3]] == [trial.key for trial in small.trials]
    assert small.key != large.key


@pytest.mark.parametrize(("seeds", "expected"), [((0, 1), 1000), ((1000, 0), 1001), ((1001, 1000), 1002)])
def test_trials_have_a_seed_that_the_table_has_not(seeds: tuple[int, ...], expected: int) -> None:
    (found,) = studies(matrix(3, seeds), planned(seeds=seeds))
    assert {trial.seed for trial in found.trials} == {expected} and found.budget.seed == expected


def test_every_row_has_the_same_budget() -> None:
    found = studies(matrix(3, tune_epochs=1), planned(("frozen", "joint", "lora")))
    assert [each.cells[0].strategy for each in found] == ["frozen", "joint", "lora"]
    assert {(len(each.trials), each.budget.trials, each.budget.epochs, each.budget.sampler_seed) for each in found} == {
        (3, 3, 1, 0)
    }
    rows = studies(matrix(1), [*planned(train_fraction=0.1), *planned(), *planned(frames=16)])
    assert [each.cells[0].train_fraction for each in rows] == [0.1, 1.0, 1.0]
    assert all([cell.seed for cell in each.cells] == [0, 1] for each in rows)


def test_a_shorter_trial_keeps_the_share_of_its_warm_up_and_the_embeddings_rate_its_ratio() -> None:
    cell = make.cell(recipe={"epochs": 10, "warmup_epochs": 2.0, "lr": 1e-3, "time_lr": 1e-2})
    found = with_values(cell, {"lr": 2e-3, "head_lr": 5e-3}, 5)
    assert (found.recipe.epochs, found.recipe.warmup_epochs) == (5, 1.0)
    assert (found.recipe.lr, found.recipe.head_lr, found.recipe.time_lr) == (2e-3, 5e-3, 2e-2)
    assert found.options == cell.options and with_values(cell, {"lr": 1e-3}, 10) == cell


def test_options_of_a_trial_are_whole() -> None:
    found = study(6, tune_space={"ratio": [0.125, 0.5]})
    ratios = [trial.options["ratio"] for trial in found.trials]
    assert ratios[0] == 0.25 and set(ratios[1:]) == {0.125, 0.5}
    assert all(trial.options.keys() == found.cells[0].options.keys() for trial in found.trials)
    models = {trial.options["ratio"]: trial.model_key() for trial in found.trials}
    assert len(set(models.values())) == 3


def test_a_tuned_cell_is_the_planned_one_with_the_values_that_were_chosen() -> None:
    found = study(3, cell={"recipe": {"drop_path": 0.1}})
    cells = found.tuned(found.tuning(2))
    for cell, before in zip(cells, found.cells, strict=True):
        assert cell.tuning is not None and cell.tuning.chosen == 2
        assert cell.recipe == found.trials[2].recipe != before.recipe
        undone = cell.model_copy(update={"recipe": before.recipe, "tuning": None})
        assert undone == before and cell.key != before.key
        assert cell.model_key() == before.model_key() == found.trials[2].model_key()
    as_it_is = found.tuned(found.tuning(0))[0]
    assert as_it_is.recipe == found.cells[0].recipe and as_it_is.key != found.cells[0].key


@pytest.mark.parametrize(
    ("changes", "recipe", "about"),
    [
        ({"tune_epochs": 3}, {}, "tune_epochs"),
        ({}, {"epochs": 0}, "tune"),
        (
            {"tune_space": {"lr": "fixed", "head_lr": "fixed", "weight_decay": "fixed"}},
            {"drop_path": 0.0},
            "tune_space",
        ),
    ],
)
def test_a_budget_that_gives_nothing_is_refused(changes: dict, recipe: dict, about: str) -> None:
    with pytest.raises(UserError) as error:
        studies(matrix(2, **changes), planned(("joint",), recipe=recipe))
    (problem,) = error.value.problems
    assert field_of(problem).startswith(about) and quotes(problem, "joint")


def test_a_warm_up_that_trials_vary_is_shortened_with_the_training() -> None:
    found = study(
        4, cell={"recipe": {"epochs": 4, "warmup_epochs": 1.0}}, tune_epochs=1, tune_space={"warmup_epochs": [0, 2]}
    )
    tried = [values["warmup_epochs"] for values in found.values]
    assert tried[0] == 1.0 and set(tried[1:]) == {0, 2}
    assert [trial.recipe.warmup_epochs for trial in found.trials] == [value / 4 for value in tried]
    for number, value in enumerate(tried):
        assert {cell.recipe.warmup_epochs for cell in found.tuned(found.tuning(number))} == {value}


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ({"recipe": {"batch_size": 1}}, ("joint", "mixup")),  # of which a batch has no second clip
        ({"cache_features": True, "recipe": {"crop_area": (1, 1)}}, ("joint", "mixup", "cache_features")),
    ],
)
def test_a_value_that_does_not_go_with_the_rest_is_told(cell: dict[str, object], names: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as told:
        study(4, cell=cell, tune_space={"mixup": "0..0.8"})
    assert all(quotes(problem, *names) for problem in told.value.problems)


def test_each_matrix_of_several_gets_the_same_effort() -> None:
    whole = matrix(4, matrices={"a": {"strategies": ["joint"]}, "b": {"tune": 8, "tune_space": {}}})
    with pytest.raises(UserError) as told:
        whole.parts()
    assert [field_of(problem) for problem in told.value.problems] == ["matrices.b.tune", "matrices.b.tune_space"]
