"""Flags and a YAML file -> a Request; flags win."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bench.errors import UserError
from bench.files import did_you_mean_path, reason
from bench.spec import Request, problems_of

# a YAML file may use the flags' names too
_FLAGS = {"dataset": "datasets", "option": "options", "plugin": "plugins"}
_RECIPE_FLAGS = ("epochs", "batch_size", "lr")
_MAPPINGS = ("recipe", "recipe_by_strategy", "options")
# YAML 1.1 takes 3e-4 and 1e5 for texts, for want of a dot or a sign
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class _Loader(yaml.SafeLoader):
    """YAML in which a name that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the name {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(text: str) -> Any:
    """The value of a YAML text. Raises ValueError, its message in one line."""
    try:
        return _numbers(yaml.load(text, _Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        told = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ValueError(" ".join(f"{where}{told}".split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def scalar(text: str) -> Any:
    """A flag's text as YAML would read it; the text itself where that is not a value."""
    try:
        return parse(text)
    except ValueError:
        return text


def _numbers(value: Any) -> Any:
    """3e-4 as a number, and the names in mappings as texts."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if isinstance(value, dict):
        return {str(name): _numbers(inner) for name, inner in value.items()}
    return [_numbers(inner) for inner in value] if isinstance(value, list) else value


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


def read_yaml(file: Path, problems: list[str]) -> dict[str, Any]:
    """The fields of a request in a YAML file; what is wrong with it is added to `problems`."""
    try:
        found = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"config {str(file)!r} cannot be read: {reason(error)}{did_you_mean_path(file)}")
        return {}
    except UnicodeDecodeError:
        problems.append(f"config {str(file)!r} cannot be read: expected text in UTF-8")
        return {}
    except ValueError as error:
        problems.append(f"config {str(file)!r} is not YAML: {error}")
        return {}
    if found is None:
        return {}
    if not isinstance(found, dict):
        kind = "a list" if isinstance(found, list) else f"the value {found!r}"
        problems.append(f"config {str(file)!r} holds {kind}: expected names and values, such as seeds: 0,1")
        return {}
    return _fields(found, problems)


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
    fields = read_yaml(config, problems) if config is not None else {}
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
