"""Errors of pydantic as sentences for someone who types on a command line."""

from __future__ import annotations

import re
import reprlib
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from backbones.registry import did_you_mean

SIZE = "a size, such as 500MB, 20GB or 1.5GiB"
_UNITS = ("B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB")
# pydantic's kinds of errors, in the words of someone who types on a command line
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "path_type": "a path",
    "dict_type": "names and values",
    "tuple_type": "a list",
    "list_type": "a list",
    "missing": "one value more",
    "byte_size": SIZE,
}
_SHORTENED = reprlib.Repr()
_SHORTENED.maxlevel, _SHORTENED.maxlist, _SHORTENED.maxdict, _SHORTENED.maxstring = 4, 20, 20, 80
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def problems_of(error: ValidationError, where: str = "", known: tuple[str, ...] = ()) -> list[str]:
    """A pydantic error as sentences with the bad value and what was expected.

    Args:
        error: what pydantic found.
        where: put before the field's name ("recipe").
        known: valid field names, for "did you mean".
    """
    return [_sentence(found, where, known) for found in error.errors()]


def _sentence(found: ErrorDetails, where: str, known: tuple[str, ...]) -> str:
    kind, message = found["type"], found["msg"].removeprefix("Value error, ")
    loc = [str(part) for part in found["loc"] if not isinstance(part, int)]
    name = ".".join([*([where] if where else []), *loc])
    if kind == "extra_forbidden":
        return f"unknown name {name!r}: expected one of {', '.join(known)}{did_you_mean('.'.join(loc), known)}"
    if not loc:  # of the values together: the validator names them
        return f"{where}.{message}" if where else message
    if kind == "missing" and len(loc) == len(found["loc"]):
        return f"{name} is missing"
    inside = len(loc) < len(found["loc"]) and kind != "missing"
    return f"{name} {'holds' if inside else 'is'} {_shown(found['input'])}: {_expectation(found, message)}"


def _expectation(found: ErrorDetails, message: str) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "value_error":
        return message
    if kind in ("too_short", "too_long"):
        if kind == "too_short":
            return "expected at least one"
        return f"expected at most {context['max_length']} values"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        given = found["input"][:80] if isinstance(found["input"], str) else ""
        return f"expected {context['expected'].replace(chr(39), '')}{did_you_mean(given, choices)}"
    if kind == "byte_size_unit":
        return f"expected one of the units {', '.join(_UNITS)}{did_you_mean(context['unit'], _UNITS)}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}"
    for limit, words in _LIMITS.items():
        if limit in context:
            bound = context[limit]
            return f"expected {words} {f'{bound:g}' if isinstance(bound, float) else bound}"
    return f"expected {message.removeprefix('Input should be ')}"


def _shown(value: Any) -> str:
    """A value for a message, short enough for one."""
    value = str(value) if isinstance(value, PurePath) else list(value) if isinstance(value, tuple) else value
    # what came out of a file may be too deep or too large for `repr`
    text = _SHORTENED.repr(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
