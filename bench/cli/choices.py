"""Flags' texts, checked by us so that what is wrong is told together with the command's other mistakes."""

from __future__ import annotations

from collections.abc import Sequence

from backbones.registry import did_you_mean


def not_among(what: str, word: str, words: Sequence[str]) -> list[str]:
    """The sentence on a word that is none of `words`; nothing where it is one."""
    if word in words:
        return []
    return [f"{what} is {word!r}: expected one of {', '.join(words)}{did_you_mean(word, words)}"]
