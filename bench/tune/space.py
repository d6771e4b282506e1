"""Spaces of trials: declared by the recipe and the strategy, changed by the user."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from adapters.base import STRATEGIES, Strategy
from backbones.registry import did_you_mean
from bench.spec import Cell, Dimension, Recipe, problems_of
from bench.spec.tuning import Search

FIXED, DECLARED = "fixed", "declared"
OPTION = "options."  # before the name of a strategy's option
_EXPECTED = "expected LOW..HIGH, a list of values or fixed"


def searched() -> dict[str, Search]:
    """Return the fields of a recipe that declare their search, in its order."""
    found = {name: _search(name) for name in Recipe.model_fields}
    return {name: search for name, search in found.items() if search is not None}


def _search(field: str) -> Search | None:
    metadata = Recipe.model_fields[field].metadata if field in Recipe.model_fields else ()
    return next((each for each in metadata if isinstance(each, Search)), None)


def declared(strategy: Strategy) -> dict[str, Dimension]:
    """Return the options of a strategy that declare what trials try of them, by name.

    An option does so by `Field(..., json_schema_extra={"search": [values]})`.
    """
    found = {}
    for name, info in strategy.options.model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and isinstance(values := extra.get("search"), list):
            found[name] = Dimension(scale="choice", choices=tuple(values))
    return found


class Space:
    """Parts of a recipe that trials vary, as asked for.

    Args:
        asked: by the name of a recipe's field, of an option, or of a strategy and its option (`lora.rank`).
        strategies: names of the ones that are tuned.
        problems: gets a sentence for everything that is wrong with `asked`.
    """

    def __init__(self, asked: Mapping[str, Any], strategies: Iterable[str], problems: list[str]) -> None:
        self._strategies = {name: STRATEGIES.get(name) for name in strategies}
        self._recipe: dict[str, Dimension | None] = {}
        self._options: dict[str, dict[str, Dimension]] = {name: {} for name in self._strategies}
        for name, value in asked.items():
            if name in _fields():
                self._take_field(name, value, problems)
            else:
                self._take_option(name, value, problems)

    def _take_field(self, name: str, value: Any, problems: list[str]) -> None:
        if value == FIXED:
            self._recipe[name] = None
            return
        search = _search(name)
        dimension = _dimension(name, value, "linear" if search is None else search.scale, problems)
        if dimension is None:
            return
        for end in dimension.choices if dimension.scale == "choice" else (dimension.low, dimension.high):
            try:
                Recipe(**{name: end})
            except ValidationError as error:
                problems += [one for one in problems_of(error, "tune_space") if one not in problems]
                return
        self._recipe[name] = dimension

    def _take_option(self, name: str, value: Any, problems: list[str]) -> None:
        takers = {}
        for strategy in self._strategies.values():
            option = name.removeprefix(f"{strategy.name}.")
            if option in strategy.options.model_fields:
                takers[strategy.name] = option
        if not takers:
            options = [option for each in self._strategies.values() for option in each.options.model_fields]
            known = list(dict.fromkeys([*_fields(), *options]))
            problems.append(
                f"tune_space names {name!r}: expected a part of the recipe or an option of the strategies, one of "
                f"{', '.join(known)}{did_you_mean(name, known)}"
            )
            return
        if value == FIXED:
            return
        for strategy_name, option in takers.items():
            strategy = self._strategies[strategy_name]
            if value == DECLARED:
                if (own := declared(strategy).get(option)) is None:
                    problems.append(f"tune_space.{name} is {value!r}: {strategy.name} names no values, expected a list")
                    return
                self._options[strategy.name][option] = own
                continue
            if not isinstance(value, list | tuple) or not value:
                problems.append(f"tune_space.{name} is {value!r}: expected a list of values, declared or fixed")
                return
            for one in value:
                try:
                    strategy.options(**{option: one})
                except ValidationError as error:
                    problems += [told for told in problems_of(error, "tune_space") if told not in problems]
                    return
            self._options[strategy.name][option] = Dimension(scale="choice", choices=tuple(value))

    def of(self, cell: Cell) -> dict[str, Dimension]:
        """Return the space of a cell: a recipe's fields by name, options as `options.NAME`; empty where nothing is.

        Where the head alone trains, the learning rate of everything else is left as it is.
        """
        found: dict[str, Dimension] = {}
        for name, search in searched().items():
            if name == "lr" and STRATEGIES.get(cell.strategy).trains == "head":
                continue
            if name not in self._recipe and (own := search.around(getattr(cell.recipe, name))) is not None:
                found[name] = own
        found |= {
            name: dimension
            for name, dimension in self._recipe.items()
            if dimension is not None and not (name == "lr" and STRATEGIES.get(cell.strategy).trains == "head")
        }
        return found | {f"{OPTION}{name}": each for name, each in self._options.get(cell.strategy, {}).items()}


def _fields() -> list[str]:
    """Names of a recipe's fields that are one real number."""
    return [name for name, info in Recipe.model_fields.items() if info.annotation is float]


def _dimension(name: str, value: Any, scale: Any, problems: list[str]) -> Dimension | None:
    try:
        if isinstance(value, list | tuple):
            return Dimension(scale="choice", choices=tuple(value))
        first, _, last = value.partition("..") if isinstance(value, str) else ("", "", "")
        try:
            low, high = float(first), float(last)
        except ValueError:
            raise ValueError(_EXPECTED) from None
        if not math.isfinite(low) or not math.isfinite(high):
            raise ValueError(_EXPECTED)
        return Dimension(scale=scale, low=low, high=high)
    except ValidationError as error:
        problems += [f"tune_space.{name} is {value!r}: {told}" for told in problems_of(error)]
    except ValueError as error:
        problems.append(f"tune_space.{name} is {value!r}: {error}")
    return None
