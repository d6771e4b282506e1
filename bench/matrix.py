"""From the axes of a matrix to its cells, with every mistake reported at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from adapters.strategy import STRATEGIES, Strategy
from backbones.families import FAMILIES, resolve, why_unsupported
from backbones.names import BackboneName, BadBackboneName
from backbones.registry import Registry, UnknownName, did_you_mean
from bench.data.base import DATASETS, VideoDataset
from bench.device import Placement, place
from bench.errors import UserError
from bench.files import did_you_mean_path
from bench.sources import sources
from bench.spec import Cell, Matrix, Recipe, problems_of


@dataclass(frozen=True)
class Expansion:
    """The cells of a matrix, what stands behind their names, and the defaults that were filled in, in words."""

    cells: tuple[Cell, ...]
    placement: Placement
    defaults: tuple[str, ...]


def expand(matrix: Matrix) -> Expansion:
    """The cells of a matrix, backbone by backbone, in the order asked for.

    Raises:
        UserError: every unknown name, impossible value and impossible combination of the matrix.
    """
    problems: list[str] = []
    defaults: list[str] = []
    strategies = [STRATEGIES.get(name) for name in _names(matrix.strategies, STRATEGIES, problems)]
    datasets = [DATASETS.get(name)(matrix.data_root) for name in _names(matrix.datasets, DATASETS, problems)]
    root = _root(matrix, problems)
    # what is wrong by itself is told even where the names beside it are wrong too and no cell comes of them
    _check_recipes(matrix, problems)
    options = _options(matrix, strategies, problems)
    placement = _placement(matrix, problems)
    if not datasets:
        _backbones(matrix, "base", "", problems, [])
    cells: list[Cell] = []
    for dataset in datasets:
        backbones = _backbones(matrix, dataset.size, dataset.name, problems, defaults)
        for backbone, strategy in product(backbones, strategies):
            if refusal := strategy.refuses(backbone.family):
                problems.append(f"{backbone.family} cannot take {strategy.name}: {refusal}")
                continue
            recipe = _recipe(matrix, dataset, backbone.family, strategy.name, problems)
            if recipe is None or strategy.name not in options or placement is None:
                continue
            counts = matrix.frames or (dataset.frames,)
            taken = _with_tubelet(options[strategy.name], backbone.family, strategy.name, counts, problems)
            cells += [
                Cell(
                    backbone=backbone.architecture,
                    weights=os.path.realpath(backbone.file) if backbone.file else backbone.weights,
                    strategy=strategy.name,
                    options=taken,
                    dataset=dataset.name,
                    data_root=root,
                    frames=frames,
                    clips=1 if dataset.sampling == "uniform" else dataset.clips,  # one covers the video
                    crops=dataset.crops,
                    seed=seed,
                    recipe=recipe,
                    device=placement.type,
                    precision=placement.precision,
                    order_test=matrix.order_test,
                    sources=sources(
                        backbone,
                        dataset.content,
                        family=FAMILIES.get(backbone.family),
                        strategy=strategy,
                        dataset=dataset,
                    ),
                )
                for frames, seed in product(counts, matrix.seeds)
            ]
    if problems or placement is None:
        raise UserError(problems)
    return Expansion(tuple(cells), placement, tuple(dict.fromkeys(defaults)))


def _names(asked: Iterable[str], registry: Registry[Any], problems: list[str]) -> list[str]:
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
            near = did_you_mean(name, registry.names())
            problems.append(str(error) if near else f"{error}, or all{did_you_mean(name, ['all'])}")
    return list(dict.fromkeys(found))


def _backbones(matrix: Matrix, size: str, dataset: str, problems: list[str], defaults: list[str]) -> list[BackboneName]:
    asked: list[str] = []
    for text in matrix.backbones:
        asked += FAMILIES.names() if text == "all" else [text]
    found = []
    for text in dict.fromkeys(asked):
        try:
            name = resolve(text, size)
        except BadBackboneName as error:
            problems.append(str(error))
            continue
        # the tiny ones are our own; other models are built, which takes a library's import
        if name.model != "tiny" and (reason := why_unsupported(name.family, name.model)):
            problems.append(f"backbone {text!r}: {reason}")
            continue
        if text != str(name):
            defaults.append(f"{text} = {name} on {dataset}")
        found.append(name)
    return list(dict.fromkeys(found))


def _root(matrix: Matrix, problems: list[str]) -> str | None:
    if matrix.data_root is None:
        return None
    if os.path.exists(matrix.data_root) and not os.path.isdir(matrix.data_root):
        problems.append(f"data_root is {str(matrix.data_root)!r}: it is no folder")
    elif not os.path.isdir(matrix.data_root):
        problems.append(
            f"data_root is {str(matrix.data_root)!r}: there is no such folder{did_you_mean_path(matrix.data_root)}"
        )
    return os.path.realpath(matrix.data_root)


def _placement(matrix: Matrix, problems: list[str]) -> Placement | None:
    try:
        return place(matrix.device, matrix.precision)
    except UserError as error:
        problems += error.problems
        return None


def _check_recipes(matrix: Matrix, problems: list[str]) -> None:
    """The changes to the recipe by themselves: of all cells, and of every strategy that one is written for."""
    known = tuple(Recipe.model_fields)
    changes: list[tuple[str, Mapping[str, Any]]] = [("recipe", matrix.recipe)]
    for strategy, asked in matrix.recipe_by_strategy.items():
        changes.append((f"recipe_by_strategy.{strategy}", asked))
        if strategy not in STRATEGIES:
            names = STRATEGIES.names()
            problems.append(
                f"recipe_by_strategy names {strategy!r}: expected one of {', '.join(names)}"
                f"{did_you_mean(strategy, names)}"
            )
    for where, change in changes:
        try:
            Recipe(**change)
        except ValidationError as error:
            problems += problems_of(error, where, known)


def _recipe(matrix: Matrix, dataset: VideoDataset, family: str, strategy: str, problems: list[str]) -> Recipe | None:
    """Defaults, then the data set's changes, then the command's, then the command's for this strategy.

    Where one rate is asked for, the head's rate keeps its ratio to it; a training that is shorter than the data set's
    keeps the share of its warm-up. None where the changes are wrong.
    """
    base = Recipe(**{"flip": dataset.flip, **dataset.recipe(family, strategy)})
    asked = {**matrix.recipe, **matrix.recipe_by_strategy.get(strategy, {})}
    if not dataset.flip and asked.get("flip") is True:
        problems.append(f"recipe.flip is True: {dataset.name}'s labels name directions, expected false")
    try:
        wanted = Recipe(**{**base.model_dump(), **asked})
    except ValidationError as error:
        if not problems:  # each change is right by itself, and only beside the data set's own it is not
            problems += problems_of(error, "recipe", tuple(Recipe.model_fields))
        return None
    derived: dict[str, Any] = {}
    if "lr" in asked and "head_lr" not in asked:
        derived["head_lr"] = wanted.lr * (base.head_lr / base.lr)
    if "epochs" in asked and "warmup_epochs" not in asked and wanted.epochs < base.epochs:
        derived["warmup_epochs"] = base.warmup_epochs * wanted.epochs / base.epochs
    try:
        return Recipe(**{**wanted.model_dump(), **derived})
    except ValidationError:
        problems.append(
            f"recipe.lr is {wanted.lr:g}: {strategy}'s head would learn at {derived['head_lr']:g}, "
            "expected a lower lr, or a head_lr of your own of at most 10"
        )
        return None


def _options(matrix: Matrix, strategies: list[Strategy], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Each strategy's options, all of them, with the command's changes where the strategy takes them."""
    everyone = [STRATEGIES.get(name) for name in STRATEGIES.names()]
    # where no strategy was named rightly, a value is checked by any that takes the option
    chosen = strategies or everyone
    taken = dict.fromkeys(name for strategy in chosen for name in strategy.options.model_fields)
    for name in matrix.options:
        if name in taken:
            continue
        takers = [strategy.name for strategy in everyone if name in strategy.options.model_fields]
        if takers:
            problems.append(
                f"option {name!r}: none of the chosen strategies takes it, expected {', '.join(takers)} among them, "
                f"or one of their own options: {', '.join(taken) or 'none'}"
            )
        else:
            listed = ", ".join(taken) or "none"
            problems.append(f"unknown option {name!r}: the chosen strategies take {listed}{did_you_mean(name, taken)}")
    found = {}
    for strategy in chosen:
        asked = {name: value for name, value in matrix.options.items() if name in strategy.options.model_fields}
        try:
            found[strategy.name] = strategy.options(**asked).model_dump(mode="json")
        except ValidationError as error:
            problems += problems_of(error, "option", tuple(strategy.options.model_fields))
    return found


def _with_tubelet(
    options: dict[str, Any], family: str, strategy: str, frames: Iterable[int], problems: list[str]
) -> dict[str, Any]:
    """The options with the family's own tubelet where none is named; frames must be a multiple of it."""
    if "tubelet" not in options:
        return options
    own = FAMILIES.get(family).tubelet
    tubelet = own if options["tubelet"] is None else options["tubelet"]
    found = []
    if tubelet not in (1, own):
        found.append(f"option tubelet is {tubelet}: a patch of {family} covers one frame, expected 1")
    found += [
        f"frames is {count}: {strategy} on {family} takes frames in tubelets of {tubelet}, "
        f"expected a multiple of {tubelet}, or the option tubelet=1"
        for count in frames
        if tubelet == own and count % tubelet
    ]
    problems += [problem for problem in found if problem not in problems]
    return {**options, "tubelet": tubelet}
