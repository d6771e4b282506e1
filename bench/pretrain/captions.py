"""Captions of stills, and the words they are made of as numbers for a text tower."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.pretrain.stills import ATTRIBUTES, Shape, Still

CONTEXT = 32  # tokens of a caption, START and END included

_OPENINGS = ("", "a picture of", "there is", "this shows", "on a soft background,")
_PLACES = ("at the", "near the", "in the")


def _phrase(shape: Shape, rng: np.random.Generator) -> str:
    """One shape in words, every attribute named, the place before or after the rest."""
    words = {name: ATTRIBUTES[name][value] for name, value in shape.values.items()}
    looks = [words["opacity"], words["size"], words["colour"], words["shape"]]
    if "angle" in words:
        looks.insert(int(rng.integers(3)), words["angle"])
    what = f"a {' '.join(looks)}"
    where = f"{rng.choice(_PLACES)} {words['row']} {words['column']}"
    return f"{what} {where}" if rng.random() < 0.7 else f"{where} {what}"


def caption(still: Still, rng: np.random.Generator) -> str:
    """A sentence on all that a still shows; the shapes come in a random order."""
    opening = str(rng.choice(_OPENINGS))
    if not still.shapes:
        return f"{opening} nothing".strip()
    order = rng.permutation(len(still.shapes))
    return f"{opening} {' and '.join(_phrase(still.shapes[i], rng) for i in order)}".strip()


def _words() -> tuple[str, ...]:
    sources = (*_OPENINGS, *_PLACES, "a and nothing", *(word for words in ATTRIBUTES.values() for word in words))
    return tuple(dict.fromkeys(word for source in sources for word in source.split()))


# 0 pads; open_clip's text tower reads a caption at the token with the highest number, so END is that one
_NUMBERS = {word: number for number, word in enumerate(_words(), start=1)}
START = len(_NUMBERS) + 1
END = START + 1
VOCABULARY = END + 1


def tokenise(texts: list[str]) -> Tensor:
    """Captions (B) -> int64 (B, CONTEXT): START, a number a word, END, then 0. Raises KeyError for an unknown word."""
    tokens = torch.zeros(len(texts), CONTEXT, dtype=torch.int64)
    for row, text in zip(tokens, texts, strict=True):
        numbers = [START, *(_NUMBERS[word] for word in text.split()), END]
        row[: len(numbers)] = torch.tensor(numbers)
    return tokens
