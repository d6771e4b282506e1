"""Flags' texts, checked by us so that what is wrong is told together with the command's other mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from backbones.registry import did_you_mean

if TYPE_CHECKING:
    from bench.data.cache.choose import Asked, Place
    from bench.data.cache.codec import Format
    from bench.spec.source import Views

PLACES = ("auto", "ram", "disk", "off")
FORMATS = ("raw", "jpeg")


def not_among(what: str, word: str, words: Sequence[str]) -> list[str]:
    """The sentence on a word that is none of `words`; nothing where it is one."""
    if word in words:
        return []
    return [f"{what} is {word!r}: expected one of {', '.join(words)}{did_you_mean(word, words)}"]


def limit(text: str | None, problems: list[str]) -> int | None:
    """The bytes of a `--cache-limit`."""
    from pydantic import ValidationError

    from bench.spec import Request, problems_of

    try:
        return Request(cache_limit=text).cache_limit
    except ValidationError as error:
        problems += problems_of(error)
        return None


def asked_views(text: str | None, problems: list[str]) -> Views | None:
    """The views of a `--views`."""
    from bench.spec.source import parse_views

    try:
        return None if text is None else parse_views(text)
    except ValueError as error:
        problems.append(f"views is {text!r}: {error}")
        return None


def asked_cache(place: str, size: str | None, format: str, problems: list[str]) -> Asked:
    """The cache that flags ask for; the default one where they are wrong."""
    from bench.data.cache.choose import Asked

    wrong = [*not_among("cache", place, PLACES), *not_among("cache_format", format, FORMATS)]
    if (place, format) == ("off", "jpeg"):
        wrong.append("cache is 'off': cache_format jpeg needs a cache, expected auto, disk or ram")
    problems += wrong
    found = limit(size, problems)
    return Asked() if wrong else Asked(cast("Place", place), found, cast("Format", format))
