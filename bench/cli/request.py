"""Flags and a YAML file -> a Request; flags win."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import UserError
from bench.spec import Request, problems_of
from bench.spec.recipe_entries import read_entries
from bench.yaml_files import parse, read_mapping

# a YAML file may use the flags' names too
_FLAGS = {"dataset": "datasets", "option": "options", "plugin": "plugins"}
_RECIPE_FLAGS = ("epochs", "batch_size", "lr")
_MAPPINGS = ("recipe", "recipe_by_strategy", "options")


def scalar(text: str) -> Any:
    """A flag's text as YAML would read it; the text itself where that is not a value."""
    try:
        return parse(text)
    except ValueError:
        return text


def assignments(texts: Iterable[str], flag: str, problems: list[str]) -> dict[str, Any]:
    """`name=value` texts as a mapping; values are read as YAML, so 0.5, true and [1, 2] are what they look like."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            problems.append(f"{flag} {text!r}: expected name=value")
            continue
        if name.strip() in found:
            problems.append(f"{flag} {text!r}: {name.strip()} is given twice, expected it once")
        try:
            found[name.strip()] = parse(value)
        except ValueError as error:
            problems.append(f"{flag} {text!r}: {value!r} is not a value ({error})")
    return found


def _fields(found: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Names as in a file -> fields of a request; a name without a value counts as not given."""
    fields: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    for written, value in found.items():
        name = written.replace("-", "_")
        into = recipe if name in _RECIPE_FLAGS else fields
        name = _FLAGS.get(name, name)
        if name in into:
            problems.append(f"config: {written!r} says {name!r} a second time, expected it once")
        if value is not None:
            into[name] = value
    for name in _MAPPINGS:
        if not isinstance(fields.get(name, {}), dict):
            problems.append(f"{name} is {fields.pop(name)!r}: expected names and values")
    by_strategy = fields.get("recipe_by_strategy", {})
    for name in [name for name, changes in by_strategy.items() if not isinstance(changes, dict)]:
        if (changes := by_strategy.pop(name)) is not None:
            problems.append(f"recipe_by_strategy.{name} is {changes!r}: expected names and values")
    for name in sorted(recipe.keys() & fields.get("recipe", {}).keys()):
        problems.append(f"config: {name!r} is there by itself and in the recipe, expected it once")
    if recipe:
        fields["recipe"] = {**fields.get("recipe", {}), **recipe}
    return fields


def build(flags: Mapping[str, Any], config: Path | None, problems: list[str]) -> Request:
    """A request from the YAML file's fields and, above them, the flags that were given (not None).

    Raises:
        UserError: everything wrong with either, `problems` included, and everything that stands in the way of running
            the request. Nothing was written.
    """
    problems = list(problems)
    fields: dict[str, Any] = {}
    if config is not None:
        fields = _fields(read_mapping(config, "config", problems), problems)
        fields["recipes"] = read_entries(fields.get("recipes", {}), f"{config}:recipes", problems)
    given = {name: value for name, value in flags.items() if value is not None}
    by_strategy: dict[str, dict[str, Any]] = fields.get("recipe_by_strategy", {})
    fields["recipe_by_strategy"] = {
        strategy: {name: value for name, value in changes.items() if name not in given.get("recipe", {})}
        for strategy, changes in by_strategy.items()
    }
    for name in ("recipe", "options"):
        given[name] = {**fields.get(name, {}), **given.get(name, {})}
    request = _validated({**fields, **given}, problems)
    problems += _obstacles(request)
    if problems:
        raise UserError(problems)
    return request


def _validated(fields: dict[str, Any], problems: list[str]) -> Request:
    """The request; fields that are wrong are told, and their defaults stand in so that the others can be checked."""
    try:
        return Request(**fields)
    except ValidationError as error:
        names = (*Request.model_fields, *_RECIPE_FLAGS)
        problems += problems_of(error, known=names)
        wrong = {found["loc"][0] for found in error.errors()}
        return Request(**{name: value for name, value in fields.items() if name not in wrong})


def _obstacles(request: Request) -> list[str]:
    """Return the problems that would stand in the way of running the request."""
    from bench.run.start import plan

    try:
        plan(request)
    except UserError as error:
        return list(error.problems)
    return []
