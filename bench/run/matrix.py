"""From the axes of a matrix to its cells, with every mistake reported at once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from adapters.base import STRATEGIES, Strategy
from adapters.heads import HEADS, Head
from backbones.families import FAMILIES
from backbones.names import BackboneName
from backbones.registry import did_you_mean
from bench.data.dataset import DATASETS, VideoDataset
from bench.data.decode.open import why_unusable
from bench.data.validate import source_problems, too_many_clips
from bench.errors import UserError
from bench.measure.placement import Placement, bf16_notes
from bench.run.provenance import sources
from bench.run.selection import (
    asked_of,
    brought_options,
    check_entries,
    chosen_backbones,
    chosen_options,
    chosen_size,
    fitted_options,
    nameless,
    names,
    placement_of,
    refusal,
)
from bench.spec import Cell, Matrix, Recipe, problems_of
from bench.spec.recipe_entries import Defaults
from bench.spec.source import checked_views, parse_views

if TYPE_CHECKING:
    from bench.run.model_files.base import TrainedModel
    from bench.run.tuner import Tuner


@dataclass(frozen=True)
class Plan:
    """The cells that a command asks for, and what stands behind their names.

    Attributes:
        placement: the device.
        defaults: that were filled in, in words.
        notes: what a reader of a cell's numbers must know of its weights, by the cell's key.
        model_files: that were opened to plan their evaluation, by path.
        origins: of each cell, the source of its values ("frames", "views", "options.scale", "recipe.lr"): an entry of
            the recipes, `file:entry`, or a field of the matrix. A value that is not there has it from its data set.
        tuner: chooses the cells' recipes by trials; None leaves them as they are.
    """

    cells: tuple[Cell, ...]
    placement: Placement
    defaults: tuple[str, ...]
    origins: tuple[Mapping[str, str], ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    model_files: Mapping[str, TrainedModel] = field(default_factory=dict)
    tuner: Tuner | None = None


def expand(matrix: Matrix, elsewhere: Placement | None = None, data: bool = True) -> Plan:
    """The cells of a matrix, backbone by backbone, in the order asked for.

    Args:
        elsewhere: the device, where the cells run on machines that cannot be asked from here.
        data: see that the data sets can be found; cells that read no videos do without.

    Raises:
        UserError: every unknown name, impossible value and impossible combination of the matrix.
    """
    problems: list[str] = []
    defaults: list[str] = []
    strategies = [STRATEGIES.get(name) for name in names(matrix.strategies, STRATEGIES, problems)]
    heads = [HEADS.get(name) for name in names(matrix.heads, HEADS, problems)]
    datasets = [DATASETS.get(name)(matrix.source) for name in names(matrix.datasets, DATASETS, problems)]
    lost = matrix.missing() or (source_problems(datasets, matrix.source) if data else [])
    problems += lost
    # what is wrong by itself is told even where the names beside it are wrong too and no cell comes of them
    _check_recipes(matrix, problems)
    before = len(problems)
    check_entries(matrix.recipes, problems)
    wrong_entries = len(problems) > before
    options = chosen_options(matrix.options, strategies, problems, heads)
    placement = elsewhere or placement_of(matrix.device, matrix.precision, problems)
    defaults += bf16_notes(placement)
    if unusable := why_unusable(matrix.decoder):
        problems.append(unusable)
    if not datasets:
        chosen_backbones(matrix.backbones, "base", "", problems, [])
    cells: list[Cell] = []
    origins: list[Mapping[str, str]] = []
    for dataset in datasets:
        defaults += () if lost else dataset.notes()
        backbones = chosen_backbones(matrix.backbones, dataset.size, f"on {dataset.name}", problems, defaults)
        sizes = {backbone: chosen_size(backbone, matrix.input_size, problems) for backbone in backbones}
        for backbone, strategy, head in product(backbones, strategies, heads):
            told = refusal(strategy, head, backbone, sizes[backbone], options.get(head))
            if told := told or (None if lost else nameless(head, dataset)):
                # of those that a group brought the ones remain that go together
                asked_for = strategy.name in matrix.strategies and head.name in matrix.heads
                where = problems if asked_for else defaults
                where += [] if told in where else [told]
                continue
            own = _defaults(matrix, dataset, backbone, strategy.name)
            recipe, recipe_from = _recipe(matrix, dataset, own, strategy.name, problems)
            # a wrong option of an entry is told by itself
            if recipe is None or strategy not in options or head not in options or placement is None or wrong_entries:
                continue
            keeps = matrix.cache_features and strategy.frozen_backbone and head.frozen_backbone
            if matrix.cache_features:
                _check_kept(keeps, recipe, strategy, head, problems, defaults)
            counts = matrix.frames or (own.frames,)
            views = parse_views(matrix.views) if matrix.views else own.views
            problems += [] if (told := too_many_clips(views.clips, dataset)) is None or told in problems else [told]
            brought = brought_options(own, dataset.name, backbone, strategy, matrix.options, defaults)
            taken = {**options[strategy], **brought}
            taken = fitted_options(taken, strategy, backbone.family, counts, problems)
            if lost:
                continue
            code = {"family": FAMILIES.get(backbone.family), "strategy": strategy, "head": head, "dataset": dataset}
            found = sources(backbone, dataset.content, dataset.files(), **code)
            added = [
                Cell(
                    backbone=backbone.architecture,
                    weights=lasting(backbone.file) if backbone.file else backbone.weights,
                    strategy=strategy.name,
                    options=taken,
                    head=head.name,
                    head_options=options[head],
                    dataset=dataset.name,
                    data=matrix.source,
                    frames=frames,
                    input_size=sizes[backbone],
                    clips=views.clips,
                    crops=views.crops,
                    view_side=views.short_side,
                    seed=seed,
                    train_fraction=fraction,
                    recipe=recipe,
                    device=placement.type,
                    precision=placement.precision,
                    decoder=matrix.decoder,
                    order_test=matrix.order_test,
                    cache_format=matrix.cache_format,
                    cache_features=keeps,
                    compile=_pays(matrix, placement, backbone, dataset) if matrix.compile is None else matrix.compile,
                    checkpoint_activations=matrix.checkpoint_activations,
                    kernels=matrix.kernels,
                    sources=found,
                )
                for frames, fraction, seed in product(counts, matrix.train_fractions, matrix.seeds)
            ]
            asked = {name: name for name in ("frames", "views") if getattr(matrix, name)}
            for part, kind in ((strategy, "options"), (head, "head_options")):
                for name in asked_of(part, matrix.options):
                    whole = f"{part.name}.{name}"
                    asked[f"{kind}.{name}"] = f"options.{whole if whole in matrix.options else name}"
            found_from = {**own.origins, **asked, **recipe_from}
            cells += added
            origins += [found_from] * len(added)
    if matrix.cache_features and cells and not any(cell.cache_features for cell in cells):
        methods = ", ".join(dict.fromkeys(cell.method for cell in cells))
        problems.append(
            f"cache_features is True, and {methods} trains in the backbone: expected at least one strategy that leaves "
            "it frozen, such as frozen or evl"
        )
    cells = _with_room_for_crops(cells, problems)
    if problems or placement is None:
        raise UserError(problems)
    return Plan(tuple(cells), placement, tuple(dict.fromkeys(defaults)), tuple(origins))


def _written(value: Any) -> str:
    """A value as a recipe's option has it."""
    return json.dumps(value).replace(" ", "")


def _check_kept(
    keeps: bool, recipe: Recipe, strategy: Strategy, head: Head, problems: list[str], defaults: list[str]
) -> None:
    """Tell which recipes cannot be trained on kept features, and which methods are not."""
    method = strategy.name if head.name == "linear" else f"{strategy.name}+{head.name}"
    if not keeps:
        note = f"cache_features: {method} trains in the backbone, on clips as without"
        defaults += [] if note in defaults else [note]
    elif drawn := recipe.augmented():
        told = ", ".join(f"{name}={_written(value)}" for name, value in drawn.items())
        off = Recipe(crop_area=(1, 1), flip=False)
        wanted = ", ".join(f"{name}={_written(getattr(off, name))}" for name in drawn)
        problem = f"cache_features is True: the recipe of {method} augments ({told}), expected {wanted}"
        problems += [] if problem in problems else [problem]


def _with_room_for_crops(cells: list[Cell], problems: list[str]) -> list[Cell]:
    """The cells, their views' short side left out where it is the model's input: one test, one cell.

    A picture that is smaller than the input is told, once a backbone.
    """
    found = []
    sizes: dict[str, int | None] = {}
    for cell in cells:
        if cell.view_side is not None:
            from bench.run.counts import input_size

            model = cell.model_key()
            sizes[model] = sizes[model] if model in sizes else input_size(cell)
            views, told = checked_views(cell.views, sizes[model], cell.backbone)
            problems += [] if told is None or told in problems else [told]
            cell = cell.model_copy(update={"view_side": views.short_side})
        found.append(cell)
    return found


def lasting(file: Path) -> str:
    """A path that means the same from any folder.

    A link to a file keeps its own name and neighbours: in the hub's cache it leads to a file that has neither.
    """
    if os.path.isdir(file):
        return os.path.realpath(file)
    return os.path.join(os.path.realpath(file.parent), file.name)


def _pays(matrix: Matrix, placement: Placement, backbone: BackboneName, dataset: VideoDataset) -> bool:
    """Return whether compiling saves more than it costs, which is a minute or two each for training and testing.

    A large model's training on a GPU takes hours. A tiny one's is over before it is compiled, and a CPU, on which
    nobody trains a large model, gains little (see benchmarks/README.md). Plain kernels run one by one unless asked for.
    """
    return matrix.kernels == "fast" and placement.type == "cuda" and backbone.model != "tiny" and not dataset.small


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


def _defaults(matrix: Matrix, dataset: VideoDataset, backbone: BackboneName, strategy: str) -> Defaults:
    """The data set's values with the user's entries laid over them."""
    entries = [entry for entry in matrix.recipes.values() if entry.dataset is None or dataset.name in entry.dataset]
    return dataset.defaults(backbone, strategy).changed_by(entries, backbone, strategy)


def _recipe(
    matrix: Matrix, dataset: VideoDataset, own: Defaults, strategy: str, problems: list[str]
) -> tuple[Recipe | None, dict[str, str]]:
    """The data set's recipe, with the command's changes and the command's for this strategy; and where they come from.

    Where one learning rate is asked for, the head's keeps its ratio to it; a training that is shorter than the data
    set's keeps the share of its warm-up. None where the changes are wrong.
    """
    by_strategy = matrix.recipe_by_strategy.get(strategy, {})
    asked = {**matrix.recipe, **by_strategy}
    origins = {name: f"recipe.{name}" for name in matrix.recipe}
    origins |= {name: f"recipe_by_strategy.{strategy}.{name}" for name in by_strategy}
    if not dataset.flip and asked.get("flip") is True:
        problems.append(f"recipe.flip is True: {dataset.name}'s labels name directions, expected false")
    try:
        base = Recipe(**{"flip": dataset.flip, **own.recipe})
        wanted = Recipe(**{**base.model_dump(), **asked})
    except ValidationError as error:
        if not problems:  # each change is right by itself, and only beside the data set's own it is not
            problems += problems_of(error, "recipe", tuple(Recipe.model_fields))
        return None, {}
    derived: dict[str, Any] = {}
    if "lr" in asked and "head_lr" not in asked:
        derived["head_lr"] = wanted.lr * (base.head_lr / base.lr)
        origins["head_lr"] = origins["lr"]
    if "epochs" in asked and "warmup_epochs" not in asked and wanted.epochs < base.epochs:
        derived["warmup_epochs"] = base.warmup_epochs * wanted.epochs / base.epochs
        origins["warmup_epochs"] = origins["epochs"]
    try:
        recipe = Recipe(**{**wanted.model_dump(), **derived})
    except ValidationError:
        problems.append(
            f"recipe.lr is {wanted.lr:g}: {strategy}'s head would learn at {derived['head_lr']:g}, "
            "expected a lower lr, or a head_lr of your own of at most 10"
        )
        return None, {}
    return recipe, {f"recipe.{name}": origin for name, origin in origins.items()}
