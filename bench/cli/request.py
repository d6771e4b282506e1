"""Flags and a YAML file -> a Request; flags win."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from backbones.registry import did_you_mean
from bench.errors import UserError
from bench.spec import Recipe, Request, problems_of


def assignments(texts: Iterable[str], flag: str, problems: list[str]) -> dict[str, Any]:
    """`name=value` texts as a mapping; values are read as YAML, so 0.5, true and [1, 2] are what they look like."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            problems.append(f"{flag} {text!r}: expected name=value")
            continue
        try:
            found[name.strip()] = number(yaml.safe_load(value))
        except yaml.YAMLError:
            problems.append(f"{flag} {text!r}: {value!r} is no value")
    return found


def number(value: Any) -> Any:
    """YAML 1.1 takes 3e-4 for a text, for want of a dot; here it is a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if isinstance(value, dict):
        return {name: number(inner) for name, inner in value.items()}
    return value


def read_yaml(file: Path, problems: list[str]) -> dict[str, Any]:
    """The fields of a request in a YAML file; what is wrong with it is added to `problems`."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"config {str(file)!r} cannot be read: {getattr(error, 'strerror', None) or error}")
        return {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problems.append(f"config {str(file)!r}{where} is no YAML: {getattr(error, 'problem', None) or error}")
        return {}
    if found is None:
        return {}
    if not isinstance(found, dict):
        problems.append(f"config {str(file)!r} holds a {type(found).__name__}: expected names and values")
        return {}
    return {str(name).replace("-", "_"): number(value) for name, value in found.items()}


def build(flags: Mapping[str, Any], config: Path | None, problems: list[str]) -> Request:
    """A request from the YAML file's fields and, above them, the flags that were given (not None).

    Raises:
        UserError: everything wrong with either, `problems` included.
    """
    fields = read_yaml(config, problems) if config is not None else {}
    for name in ("recipe", "options", "recipe_by_strategy"):
        if not isinstance(fields.get(name, {}), dict):
            problems.append(f"{name} is {fields.pop(name)!r}: expected names and values")
    recipe = {**fields.get("recipe", {}), **(flags.get("recipe") or {})}
    for name in sorted(recipe.keys() - Recipe.model_fields.keys()):
        known = tuple(Recipe.model_fields)
        problems.append(f"unknown name 'recipe.{name}': expected one of {', '.join(known)}{did_you_mean(name, known)}")
        recipe.pop(name)
    options = {**fields.get("options", {}), **(flags.get("options") or {})}
    given = {name: value for name, value in flags.items() if value is not None}
    merged = {**fields, **given, "recipe": recipe, "options": options}
    try:
        request = Request(**merged)
    except ValidationError as error:
        raise UserError([*problems, *problems_of(error, known=tuple(Request.model_fields))]) from None
    if problems:
        raise UserError([*problems, *_also_wrong(request)])
    return request


def _also_wrong(request: Request) -> tuple[str, ...]:
    """What expanding the request would find besides, so that a user hears of everything at once."""
    from bench.runner.start import plan

    try:
        plan(request)
    except UserError as error:
        return error.problems
    return ()
