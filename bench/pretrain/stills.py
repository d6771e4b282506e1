"""Rendered still pictures and what they show: the image pretraining's data, without end.

A still holds no, one or two shapes on a textured background, drawn by the code that draws the data set `motion`, with
every quantity drawn by itself: no still comes from a movement, and none knows of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.motion.render import COLOURS, SHAPES, Sprite, draw_background, draw_colour, render

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
