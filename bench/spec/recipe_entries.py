"""Recipes as data: entries that say for which cells they hold, what they set, and where that was published.

Entries lie in bench/recipes/*.yaml; a data set of a plugin may bring its own, and a user's configuration too. Those
that match are laid one over the other, the later wins:

1. entries that name no data set, such as a strategy's own;
2. those of the data sets that a data set's class derives from, the farthest first;
3. those of the data set itself;
4. a user's, under `recipes` in a configuration file.

In each of these an entry that names more (families, models, sizes, strategies) comes after one that names fewer; beside
that they keep the order of the files' names and of the entries in a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError

from adapters.base import STRATEGIES, Trains
from backbones.names import BackboneName
from bench.spec.fields import MAX_FRAMES, FrozenModel, Names, problems_of
from bench.spec.recipe import Recipe
from bench.spec.source import TestViews, Views, parse_views
from bench.yaml_files import read_mapping

_KEYS = ("dataset", "family", "not_family", "model", "size", "strategy", "trains")
_LARGE = re.compile(r"(?i)(^|[-_])(l|large|h|huge|g|giant|bigg|gigantic|so\d+m|e)(?=$|[-_\d])")


def is_large(backbone: BackboneName) -> bool:
    """Return whether a model is of the size of ViT-L or above, as its name says."""
    return _LARGE.search(backbone.model) is not None


class RecipeEntry(FrozenModel):
    """Values that hold for some data sets, backbones and strategies; a key that is not set leaves the choice open."""

    source: str = Field("", description="paper and section or table, or the released configuration")
    dataset: Names | None = Field(None, description="names of data sets")
    family: Names | None = Field(None, description="families of backbones")
    not_family: Names | None = Field(None, description="families of backbones for which it does not hold")
    model: Names | None = Field(None, description="shell patterns of the models' names, such as ViT-B-*")
    size: Literal["large"] | None = Field(None, description="large: models of the size of ViT-L or above")
    strategy: Names | None = Field(None, description="names of strategies")
    trains: Trains | None = Field(None, description="strategies that train this: head, added or all")
    frames: int | None = Field(None, ge=1, le=MAX_FRAMES, description="of a clip")
    span: int | None = Field(None, ge=1, description="frames of the video that a dense clip covers; its stride follows")
    views: TestViews = Field(None, description="of the test, clips x crops, such as 3x1")
    options: dict[str, Any] = Field(default_factory=dict, description="of the strategies that take them")
    recipe: dict[str, Any] = Field(default_factory=dict, description="changes to the recipe")
    _where: str = PrivateAttr("")

    @property
    def where(self) -> str:
        """`file:entry`, as `read_entries` found it."""
        return self._where

    @property
    def keys(self) -> dict[str, Any]:
        """Keys that are set: the cells for which it holds."""
        return {name: value for name in _KEYS if (value := getattr(self, name)) is not None}

    def matches(self, backbone: BackboneName | None, strategy: str | None) -> bool:
        """Return whether it holds for a backbone and a strategy; None is one of which nothing is known."""
        family = "" if backbone is None else backbone.family
        model = "" if backbone is None else backbone.model
        trains = STRATEGIES.get(strategy).trains if strategy and self.trains else None
        return (
            (self.family is None or family in self.family)
            and (self.not_family is None or family not in self.not_family)
            and (self.model is None or any(fnmatchcase(model, pattern) for pattern in self.model))
            and (self.size is None or (backbone is not None and is_large(backbone)))
            and (self.strategy is None or strategy in self.strategy)
            and (self.trains is None or trains == self.trains)
        )


@dataclass(frozen=True)
class Defaults:
    """Values of a cell where its user says nothing.

    Attributes:
        frames: of a clip.
        span: frames of the video that a dense clip covers.
        views: of a test.
        options: brought to the strategies that take them.
        recipe: changes to the recipe.
        origins: the entry of each value that came from one: "frames", "views", "options.scale", "recipe.lr".
    """

    frames: int
    span: int
    views: Views
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def stride(self, frames: int) -> int:
        """Frames of the video from one frame of a dense clip to the next."""
        return max(1, self.span // frames)

    def changed_by(
        self, entries: Iterable[RecipeEntry], backbone: BackboneName | None, strategy: str | None
    ) -> Defaults:
        """Return the values under those of the entries that match; one that names more comes after the others."""
        found = self
        for entry in sorted(entries, key=lambda each: len(each.keys)):
            if entry.matches(backbone, strategy):
                found = found._under(entry)
        return found

    def _under(self, entry: RecipeEntry) -> Defaults:
        single: dict[str, Any] = {name: getattr(entry, name) for name in ("frames", "span")}
        single["views"] = None if entry.views is None else parse_views(entry.views)
        single = {name: value for name, value in single.items() if value is not None}
        names = [*single, *(f"options.{name}" for name in entry.options), *(f"recipe.{name}" for name in entry.recipe)]
        return replace(
            self,
            **single,
            options={**self.options, **entry.options},
            recipe={**self.recipe, **entry.recipe},
            origins={**self.origins, **dict.fromkeys(names, entry.where)},
        )


def read_entries(found: Any, where: str, problems: list[str]) -> dict[str, RecipeEntry]:
    """Return the entries that a YAML file holds, by name, in their order.

    Args:
        found: entry's name -> its fields.
        where: put before the entry's name: the file.
        problems: gets a sentence for everything that is wrong, with file and entry; such an entry is left out.
    """
    if not isinstance(found, Mapping):
        problems.append(f"{where} is {found!r}: expected names of entries, and the values of each")
        return {}
    entries = {}
    for name, values in found.items():
        place = f"{where}:{name}"
        if not isinstance(values, Mapping):
            problems.append(f"{place} is {values!r}: expected names and values, such as recipe: {{lr: 1e-4}}")
            continue
        try:
            entry = RecipeEntry(**values)
        except ValidationError as error:
            problems += problems_of(error, place, tuple(RecipeEntry.model_fields))
            continue
        try:
            recipe = Recipe(**entry.recipe)
        except ValidationError as error:
            problems += problems_of(error, f"{place}.recipe", tuple(Recipe.model_fields))
            continue
        entries[name] = entry.model_copy(update={"recipe": {field: getattr(recipe, field) for field in entry.recipe}})
        entries[name]._where = place
    return entries


@cache
def package_entries() -> tuple[RecipeEntry, ...]:
    """Return the entries of bench/recipes. Raises ValueError where a file of the package is damaged."""
    problems: list[str] = []
    entries: list[RecipeEntry] = []
    for file in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml")):
        found = read_mapping(file, "recipes", problems)
        entries += read_entries(found, f"recipes/{file.name}", problems).values()
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(entries)


def entries_of(dataset: str) -> Sequence[RecipeEntry]:
    """Return the package's entries that name a data set; for "" those that name none."""
    return [entry for entry in package_entries() if (dataset in entry.dataset if entry.dataset else not dataset)]
