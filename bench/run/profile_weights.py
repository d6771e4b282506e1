"""Weights of `bench profile --all`: speed does not depend on them, so random ones do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from backbones.families import FAMILIES, build
from backbones.names import BackboneName, BadBackboneName, UnsupportedModel, WeightsError, split

_RANDOM = "random weights (@none): they change no speed"


def without_weights(asked: Iterable[str]) -> list[str]:
    """The names as written, with `@none` where they name no weights; `all` is every family's."""
    found = []
    for text in asked:
        for name in FAMILIES.names() if text == "all" else [text]:
            found.append(f"{name}@none" if _names_none(name) else name)
    return found


def _names_none(text: str) -> bool:
    try:
        family, model, weights = split(text)
    except BadBackboneName:  # told when it is resolved
        return False
    if weights is not None or family not in FAMILIES:
        return False
    return model is None or FAMILIES.get(family).split_tag(model)[1] is None


def stand_in(name: BackboneName) -> tuple[BackboneName, str]:
    """The backbone with weights that can be had, and the footnote where they are random."""
    if name.random:
        return name, _RANDOM
    try:
        build(name)
    except (UnsupportedModel, WeightsError) as error:
        why = " ".join(str(error).split())
        return replace(name, weights="none"), f"{_RANDOM}, and {name.weights_label} cannot be had ({why})"
    return name, ""
