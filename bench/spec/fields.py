"""Types of the fields of a request: comma lists, devices, paths and sizes as people write them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from backbones.registry import did_you_mean
from bench.sizes import parse as parse_size
from bench.spec.views import parse as parse_views

Precision = Literal["fp32", "bf16", "fp16"]
Decoder = Literal["auto", "decord", "pyav", "torchcodec"]
DECODERS: tuple[str, ...] = get_args(Decoder)
# "own": bilinear and antialiased. "released": bilinear alone, as the released code has it from cv2 through mmcv
Pixels = Literal["own", "released"]
PIXELS: tuple[Pixels, ...] = get_args(Pixels)
MAX_FRAMES = 1024  # of a clip
MAX_SIDE = 8192  # pixels of a frame


def _listed(value: Any) -> Any:
    """A comma list, a single value or a list -> a list."""
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


def _place(value: Path | None) -> Path | None:
    """A path as the shell would have it: `~` is the home folder."""
    if value is None:
        return None
    if "\0" in str(value):
        _refuse("expected no null character in it")
    return Path(os.path.expanduser(value))


def device_name(value: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?|mps", value) is None:
        _refuse(f"expected auto, cpu, cuda, cuda:N or mps{did_you_mean(value, ('auto', 'cpu', 'cuda', 'mps'))}")
    return value


def checked_device(value: str, problems: list[str]) -> str:
    """A device's name; where it is none, that is told and the name is `auto`."""
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


def _off(value: Any) -> Any:
    return "off" if value is False else value  # which YAML makes of it


def _cache(value: str, info: ValidationInfo) -> str:
    if value == "off" and info.data.get("cache_format") == "jpeg":
        _refuse("cache_format jpeg needs a cache, expected auto, disk or ram")
    return value


def _views(value: Any) -> str | None:
    return None if value is None else str(parse_views(value))


def _limit(value: Any) -> Any:
    return None if value is None else parse_size(str(value))


def _refuse(expected: str) -> NoReturn:
    """End a validator; `problems_of` puts the field and its value before the text."""
    raise ValueError(expected)


_Seed = Annotated[int, Field(ge=0, lt=2**31)]
_Frames = Annotated[int, Field(ge=1, le=MAX_FRAMES)]
_List = (BeforeValidator(_listed), AfterValidator(_once))

Names = Annotated[tuple[str, ...], *_List, Field(min_length=1)]
Seeds = Annotated[tuple[_Seed, ...], *_List, Field(min_length=1)]
FrameCounts = Annotated[tuple[_Frames, ...], *_List]
InputSize = Annotated[Annotated[int, Field(ge=1, le=MAX_SIDE)] | None, BeforeValidator(_side)]
Plugins = Annotated[tuple[str, ...], *_List]
Place = Annotated[Path, AfterValidator(_place)]
Cache = Annotated[Literal["auto", "ram", "disk", "off"], BeforeValidator(_off), AfterValidator(_cache)]
CacheLimit = Annotated[int | None, BeforeValidator(_limit)]
Workers = Annotated[int | Literal["auto"], BeforeValidator(_workers)]
LoaderWorkers = Annotated[int | Literal["auto"], BeforeValidator(_loader_workers)]
TestViews = Annotated[str | None, BeforeValidator(_views)]
