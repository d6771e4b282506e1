"""From the axes of a matrix to its cells, with every mistake reported at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from adapters.strategy import STRATEGIES, Strategy
from backbones.families import FAMILIES, resolve
from backbones.names import BackboneName, BadBackboneName
from backbones.registry import Registry, UnknownName, did_you_mean
from bench.data.base import DATASETS, VideoDataset
from bench.device import Placement, place
from bench.errors import UserError
from bench.spec import Cell, Matrix, Recipe, problems_of


@dataclass(frozen=True)
class Expansion:
    """The cells of a matrix, what stands behind their names, and the defaults that were filled in, in words."""

    cells: tuple[Cell, ...]
    placement: Placement
    defaults: tuple[str, ...]


def _names(asked: tuple[str, ...], registry: Registry[Any], problems: list[str]) -> list[str]:
    """The registered names that were asked for; `all` is every one."""
    found: list[str] = []
    for name in asked:
        if name == "all":
            found += registry.names()
            continue
        try:
            registry.get(name)
            found.append(name)
        except UnknownName as error:
            problems.append(str(error))
    return list(dict.fromkeys(found))


def _backbones(matrix: Matrix, dataset: VideoDataset, problems: list[str], defaults: list[str]) -> list[BackboneName]:
    asked: list[str] = []
    for text in matrix.backbones:
        asked += FAMILIES.names() if text == "all" else [text]
    found = []
    for text in dict.fromkeys(asked):
        try:
            name = resolve(text, dataset.size)
        except BadBackboneName as error:
            problems.append(str(error))
            continue
        if text != str(name):
            defaults.append(f"{text} = {name} on {dataset.name}")
        found.append(name)
    return list(dict.fromkeys(found))


def _recipe(matrix: Matrix, dataset: VideoDataset, family: str, strategy: str, problems: list[str]) -> Recipe | None:
    """Defaults, then the data set's changes, then the command's, then the command's for this strategy."""
    own = dict(dataset.recipe(family, strategy))
    asked = {**matrix.recipe, **matrix.recipe_by_strategy.get(strategy, {})}
    if "lr" in asked and "head_lr" not in asked:
        # one rate was asked for: the head keeps its ratio to it
        base = Recipe(**own)
        if isinstance(asked["lr"], int | float):
            asked["head_lr"] = asked["lr"] * base.head_lr / base.lr
    if "epochs" in asked and "warmup_epochs" not in asked and isinstance(asked["epochs"], int):
        # a shorter training than the data set's keeps the warm-up's share
        base = Recipe(**own)
        if 0 < asked["epochs"] < base.epochs:
            asked["warmup_epochs"] = base.warmup_epochs * asked["epochs"] / base.epochs
    if not dataset.flip and asked.get("flip"):
        problems.append(f"recipe.flip is True: {dataset.name}'s labels name directions, expected False")
    try:
        return Recipe(**{"flip": dataset.flip, **own, **asked})
    except ValidationError as error:
        problems += problems_of(error, "recipe", tuple(Recipe.model_fields))
        return None


def _options(matrix: Matrix, strategies: list[Strategy], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Each strategy's options, all of them, with the command's changes where the strategy takes them."""
    taken = {name for strategy in strategies for name in strategy.options.model_fields}
    for name in matrix.options:
        if name not in taken:
            listed = ", ".join(sorted(taken)) or "none"
            problems.append(f"unknown option {name!r}: the chosen strategies take {listed}{did_you_mean(name, taken)}")
    found = {}
    for strategy in strategies:
        asked = {name: value for name, value in matrix.options.items() if name in strategy.options.model_fields}
        try:
            found[strategy.name] = strategy.options(**asked).model_dump(mode="json")
        except ValidationError as error:
            problems += problems_of(error, "option", tuple(strategy.options.model_fields))
    return found


def expand(matrix: Matrix) -> Expansion:
    """The cells of a matrix, backbone by backbone, in the order asked for.

    Raises:
        UserError: every unknown name, impossible value and impossible combination of the matrix.
    """
    problems: list[str] = []
    defaults: list[str] = []
    strategies = [STRATEGIES.get(name) for name in _names(matrix.strategies, STRATEGIES, problems)]
    datasets = [DATASETS.get(name)(matrix.data_root) for name in _names(matrix.datasets, DATASETS, problems)]
    if matrix.data_root is not None and not matrix.data_root.is_dir():
        problems.append(f"data_root is {str(matrix.data_root)!r}: there is no such folder")
    for name in matrix.recipe_by_strategy:
        if name not in STRATEGIES:
            problems.append(
                f"recipe_by_strategy names {name!r}: expected one of {', '.join(STRATEGIES.names())}"
                f"{did_you_mean(name, STRATEGIES.names())}"
            )
    options = _options(matrix, strategies, problems) if strategies else {}
    try:
        placement = place(matrix.device, matrix.precision)
    except UserError as error:
        problems += error.problems
        placement = Placement("cpu", None, "fp32")
    if not datasets:  # the names of backbones are checked all the same
        for text in matrix.backbones:
            if text != "all" and text.partition(":")[0].partition("@")[0] not in FAMILIES:
                try:
                    FAMILIES.get(text.partition(":")[0].partition("@")[0])
                except UnknownName as error:
                    problems.append(str(error))
    cells: list[Cell] = []
    for dataset in datasets:
        backbones = _backbones(matrix, dataset, problems, defaults)
        for backbone in backbones:
            for strategy in strategies:
                if reason := strategy.refuses(backbone.family):
                    problems.append(f"{backbone.family} cannot take {strategy.name}: {reason}")
                    continue
                recipe = _recipe(matrix, dataset, backbone.family, strategy.name, problems)
                if recipe is None or strategy.name not in options:
                    continue
                cells += [
                    Cell(
                        backbone=backbone.architecture,
                        weights=str(backbone.file.resolve()) if backbone.file else backbone.weights,
                        strategy=strategy.name,
                        options=options[strategy.name],
                        dataset=dataset.name,
                        data_root=None if matrix.data_root is None else str(matrix.data_root.resolve()),
                        frames=frames,
                        clips=dataset.clips,
                        crops=dataset.crops,
                        seed=seed,
                        recipe=recipe,
                        device=placement.type,
                        precision=placement.precision,
                        order_test=matrix.order_test,
                    )
                    for frames in matrix.frames or (dataset.frames,)
                    for seed in matrix.seeds
                ]
    if problems:
        raise UserError(problems)
    return Expansion(tuple(cells), placement, tuple(dict.fromkeys(defaults)))
