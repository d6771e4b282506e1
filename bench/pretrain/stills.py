"""Rendered still pictures and what they show: the image pretraining's data, without end.

A still holds no, one or two shapes on a textured background, drawn by the code that draws the data set `motion`, with
every quantity drawn by itself: no still comes from a movement, and none knows of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.data.motion.render import COLOURS, SHAPES, Sprite, draw_background, draw_colour, render
from bench.data.transforms import TestTransform

SIZE = 40  # pixels of a still's side, before it is resized as a test's frames are
NOISE = 0.025
NO_ANGLE = ("circle", "ring")

_RADIUS = (0.065, 0.35)
_MARGIN = 0.12
_ANGLE = 0.45  # radians, either way
_COUNTS = (0.04, 0.64, 0.32)  # of stills with no, one and two shapes

# attribute -> the words for its values; a quantity's range is cut into as many equal parts (of its logarithm for size)
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "size": ("minute", "tiny", "small", "medium", "large", "huge"),
    "column": ("leftmost", "left", "inner left", "centre", "inner right", "right", "rightmost"),
    "row": ("topmost", "top", "upper", "middle", "lower", "bottom", "bottommost"),
    "angle": ("tilted left", "upright", "tilted right"),
    "opacity": ("ghostly", "faint", "pale", "solid"),
    "count": ("nothing", "one shape", "two shapes"),
}


@dataclass(frozen=True)
class Shape:
    """One shape of a still: an index into `ATTRIBUTES` for each attribute it has, count aside."""

    values: dict[str, int]


@dataclass(frozen=True)
class Still:
    """A picture, uint8 (H, H, 3), and its shapes."""

    picture: NDArray[np.uint8]
    shapes: tuple[Shape, ...]


def _part(value: float, low: float, high: float, parts: int) -> int:
    return min(parts - 1, max(0, int((value - low) / (high - low) * parts)))


def _values(sprite: Sprite) -> dict[str, int]:
    """Return the attributes that a caption would name of a sprite of one frame."""
    x, y, radius, opacity = (float(v[0]) for v in (sprite.x, sprite.y, sprite.radius, sprite.opacity))
    parts = {name: len(words) for name, words in ATTRIBUTES.items()}
    low, high = np.log(_RADIUS)
    values = {
        "shape": tuple(SHAPES).index(sprite.shape),
        "size": _part(float(np.log(radius)), low, high, parts["size"]),
        "column": _part(x, _MARGIN, 1 - _MARGIN, parts["column"]),
        "row": _part(y, _MARGIN, 1 - _MARGIN, parts["row"]),
        "opacity": _part(opacity, 0, 1, parts["opacity"]),
    }
    if sprite.shape not in NO_ANGLE:
        values["angle"] = _part(sprite.angle, -_ANGLE, _ANGLE, parts["angle"])
    return values


def _one(value: float) -> NDArray[np.float32]:
    return np.array([value], np.float32)


def _sprite(rng: np.random.Generator, colour: str, largest: float) -> Sprite:
    x, y = rng.uniform(_MARGIN, 1 - _MARGIN, 2)
    return Sprite(
        shape=str(rng.choice(tuple(SHAPES))),
        colour=draw_colour(colour, rng),
        angle=rng.uniform(-_ANGLE, _ANGLE),
        x=_one(x),
        y=_one(y),
        radius=_one(float(np.exp(rng.uniform(*np.log((_RADIUS[0], largest)))))),
        # most are solid, as most things are; the rest is spread over all degrees
        opacity=_one(1.0 if rng.random() < 0.6 else rng.uniform(0.08, 1)),
    )


def draw_still(rng: np.random.Generator) -> Still:
    """A still: shapes, colours, places, sizes, angles and opacities are drawn independently of each other.

    Two shapes do not cover each other's centre, and share no colour.
    """
    count = int(rng.choice(len(_COUNTS), p=_COUNTS))
    colours = [str(colour) for colour in rng.permutation(tuple(COLOURS))[:count]]
    largest = _RADIUS[1] if count < 2 else 0.2
    sprites = [_sprite(rng, colour, largest) for colour in colours]
    while count == 2 and _apart(*sprites) < max(float(s.radius[0]) for s in sprites):
        sprites = [_sprite(rng, colour, largest) for colour in colours]
    noise = rng.standard_normal((1, 1, SIZE, SIZE), dtype=np.float32) * np.float32(NOISE)
    picture = render(sprites, draw_background(SIZE, rng), noise)[0]
    shapes = tuple(
        Shape({**_values(sprite), "colour": tuple(COLOURS).index(colour)})
        for sprite, colour in zip(sprites, colours, strict=True)
    )
    return Still(picture, shapes)


def _apart(first: Sprite, second: Sprite) -> float:
    return float(np.hypot(first.x[0] - second.x[0], first.y[0] - second.y[0]))


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


@dataclass(frozen=True)
class StillBatch:
    """B stills.

    Attributes:
        pictures: uint8 (B, 3, S, S).
        shown: attribute -> float (B, values): 1 for each value that some shape of the still has.
        captions: int64 (B, CONTEXT).
    """

    pictures: Tensor
    shown: dict[str, Tensor]
    captions: Tensor


def attributes_of(stills: list[Still]) -> dict[str, Tensor]:
    """Attribute -> float (B, values): 1 for each value that some shape of the still has; no row of `count` is empty."""
    shown = {name: torch.zeros(len(stills), len(words)) for name, words in ATTRIBUTES.items()}
    for row, still in enumerate(stills):
        shown["count"][row, len(still.shapes)] = 1
        for shape in still.shapes:
            for name, value in shape.values.items():
                shown[name][row, value] = 1
    return shown


class StillBatches(Dataset[StillBatch]):
    """`count` batches of `size` stills.

    Args:
        stream: a number that keeps training ("0") and held-out stills apart.
        side: S, of the backbone's input.
    """

    def __init__(self, count: int, size: int, side: int, seed: int, stream: int) -> None:
        self.count, self.size, self.seed, self.stream = count, size, seed, stream
        # what a test does to the frames of a clip: resize to the backbone's side
        self.resize = TestTransform(side)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> StillBatch:
        rng = np.random.default_rng((self.stream, self.seed, index))
        stills = [draw_still(rng) for _ in range(self.size)]
        pictures = torch.from_numpy(np.stack([still.picture for still in stills])).permute(0, 3, 1, 2)
        texts = tokenise([caption(still, rng) for still in stills])
        return StillBatch(self.resize(pictures)[0], attributes_of(stills), texts)

    def drawn(self, processes: int) -> Iterator[StillBatch]:
        """The batches in order, drawn ahead by `processes` processes beside this one (0: none).

        By torch's loader and not by `bench.data.decode_pool`: it gives results in order, and a still, which is computed
        from numbers, can neither hang a decoder nor crash one.
        """
        return iter(DataLoader(self, batch_size=None, num_workers=processes))
