"""Base of all specifications, the types of their fields with their options, and pydantic's errors as sentences."""

from __future__ import annotations

import json
import os
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NoReturn, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails

from backbones.registry import did_you_mean


class FrozenModel(BaseModel):
    """Immutable base of all specifications: hashable, strict about names (an unknown field is an error)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> str:
        """Return the values as JSON with sorted keys and no spaces: equal values, equal text."""
        values = self.model_dump(mode="json", exclude=self._left_out())
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    def _left_out(self) -> set[str]:
        """Return the later fields that are not set: so the canonical texts of before stay what they were."""
        return set()

    def __hash__(self) -> int:  # of the text, as a mapping among the values has no hash
        return hash(self.canonical())


Precision = Literal["fp32", "bf16", "fp16"]
Decoder = Literal["auto", "decord", "pyav", "torchcodec"]
DECODERS: tuple[str, ...] = get_args(Decoder)
# "own": bilinear and antialiased. "released": bilinear alone, as the released code has it from cv2 through mmcv
Pixels = Literal["own", "released"]
PIXELS: tuple[Pixels, ...] = get_args(Pixels)
MATRIX, DATA, RECIPE, RUNNING = "The matrix", "The data", "The recipe", "Running"
PANELS = ("", MATRIX, DATA, RECIPE, RUNNING)  # headings of the options in --help, in their order
MAX_FRAMES = 1024  # of a clip
MAX_SIDE = 8192  # pixels of a frame


@dataclass(frozen=True)
class Flag:
    """Details of the option that a field has on the command line, as `Annotated[int, Flag(RECIPE)]`.

    A field without one has an option too: `bench.cli.options` makes it of the field's name, type, default and
    description.

    Attributes:
        panel: heading above it in `--help`, one of PANELS.
        name: its name, where that is not the field's.
        short: a letter for it.
        metavar: name of its value in `--help`, where the type does not tell.
        help: text in `--help`, where that is not the field's description.
        default: words for the default, where the field's own value does not tell; empty: not shown.
        repeated: takes one value each time that it is given, in place of a comma list.
        one_way: a switch that has no --no-NAME, as it is off unless it is given.
        argument: has its place on the command line instead of a name.
        hidden: has no option: the field is for files alone.
        members: model of the mapping's values; each field of it with a Flag has an option by itself.
    """

    panel: str = ""
    name: str = ""
    short: str = ""
    metavar: str | None = None
    help: str = ""
    default: str | None = None
    repeated: bool = False
    one_way: bool = False
    argument: bool = False
    hidden: bool = False
    members: type[BaseModel] | None = None


def _listed(value: Any) -> Any:
    """Turn a comma list, a single value or a list into a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()] or _refuse("expected at least one")
    if isinstance(value, bool | int | float):
        value = [value]
    if not isinstance(value, list | tuple):
        _refuse("expected a comma list or a list")
    if any(isinstance(item, bool) for item in value):
        _refuse("expected no true or false in it")
    return list(value)


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if again := [f"{value:g}" for value in dict.fromkeys(values) if values.count(value) > 1]:
        _refuse(f"expected each once, {', '.join(again)} is there twice")
    return values


def _expanded(value: Path | None) -> Path | None:
    """Expand a path as the shell would: `~` is the home folder."""
    if value is None:
        return None
    if "\0" in str(value):
        _refuse("expected no null character in it")
    return Path(os.path.expanduser(value))


def device_name(value: str) -> str:
    """Return the name of a device. Raises ValueError where it is not one."""
    if re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?|mps", value) is None:
        _refuse(f"expected auto, cpu, cuda, cuda:N or mps{did_you_mean(value, ('auto', 'cpu', 'cuda', 'mps'))}")
    return value


def checked_device(value: str, problems: list[str]) -> str:
    """Return a device's name; `auto`, and a sentence in `problems`, where it is not one."""
    try:
        return device_name(value)
    except ValueError as error:
        problems.append(f"device is {value!r}: {error}")
        return "auto"


def _workers(value: Any, least: int = 1) -> Any:
    number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value.strip()) else value
    if number == "auto" or (isinstance(number, int) and not isinstance(number, bool) and least <= number <= 256):
        return number
    return _refuse(f"expected auto or a whole number from {least} to 256")


def _loader_workers(value: Any) -> Any:
    return _workers(value, least=0)


def _side(value: Any) -> Any:
    return _refuse("expected a whole number") if isinstance(value, bool) else value  # pydantic takes True for 1


def _cache(value: str, info: ValidationInfo) -> str:
    if value == "off" and info.data.get("cache_format") == "jpeg":
        _refuse("cache_format jpeg needs a cache, expected auto, disk or ram")
    return value


def _size(value: Any) -> Any:
    """Refuse what is more than a size: ByteSize alone takes `20GB-30GB` for 20GB, and true for 1 byte."""
    if isinstance(value, bool) or (isinstance(value, str) and not re.fullmatch(r"\s*\d*\.?\d+\s*\w*\s*", value)):
        _refuse(f"expected {SIZE}")
    return value


def _refuse(expected: str) -> NoReturn:
    """End a validator; `problems_of` puts the field and its value before the text."""
    raise ValueError(expected)


_Seed = Annotated[int, Field(ge=0, lt=2**31)]
_Frames = Annotated[int, Field(ge=1, le=MAX_FRAMES)]
_Fraction = Annotated[float, Field(gt=0, le=1)]
_List = (BeforeValidator(_listed), AfterValidator(_once))

Names = Annotated[tuple[str, ...], *_List, Field(min_length=1)]
Seeds = Annotated[tuple[_Seed, ...], *_List, Field(min_length=1)]
Fractions = Annotated[tuple[_Fraction, ...], BeforeValidator(_listed), AfterValidator(_different), Field(min_length=1)]
FrameCounts = Annotated[tuple[_Frames, ...], *_List]
InputSize = Annotated[Annotated[int, Field(ge=1, le=MAX_SIDE)] | None, BeforeValidator(_side)]
Plugins = Annotated[tuple[str, ...], *_List]
Trackers = Annotated[tuple[str, ...], *_List]
UserPath = Annotated[Path, AfterValidator(_expanded)]
Cache = Annotated[Literal["auto", "ram", "disk", "off"], AfterValidator(_cache)]
CacheLimit = Annotated[Annotated[ByteSize, Field(gt=0)] | None, BeforeValidator(_size)]
Workers = Annotated[int | Literal["auto"], BeforeValidator(_workers)]
LoaderWorkers = Annotated[int | Literal["auto"], BeforeValidator(_loader_workers)]


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
    """Turn a pydantic error into sentences with the bad value and what was expected.

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
    """Return a value as a message shows it, short enough for one."""
    value = str(value) if isinstance(value, PurePath) else list(value) if isinstance(value, tuple) else value
    # what came out of a file may be too deep or too large for `repr`
    text = _SHORTENED.repr(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
