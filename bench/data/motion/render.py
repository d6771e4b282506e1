"""Pictures of flat shapes on a soft background, drawn from signed distances.

Lengths and places are fractions of the picture's side, x to the right and y down; colours are RGB in 0..1. T frames are
drawn in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Sprite:
    """One shape over T frames.

    Attributes:
        shape: a name in SHAPES.
        colour: RGB in 0..1.
        angle: radians, clockwise on the screen.
        x, y: the centre, (T,).
        radius: half the extent, (T,).
        opacity: 0 (not there) to 1, (T,).
    """

    shape: str
    colour: Floats
    angle: float
    x: Floats
    y: Floats
    radius: Floats
    opacity: Floats


# Each takes coordinates in units of the shape's radius and gives the distance to its outline, negative within. They are
# exact near straight edges and close enough to it elsewhere for the half pixel over which an edge is blended.
def _circle(u: Floats, v: Floats) -> Floats:
    return np.hypot(u, v) - np.float32(0.95)


def _square(u: Floats, v: Floats) -> Floats:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.82)


def _triangle(u: Floats, v: Floats) -> Floats:
    return np.maximum(np.abs(u) * np.float32(0.866) - v * np.float32(0.5), v) - np.float32(0.55)


def _diamond(u: Floats, v: Floats) -> Floats:
    # narrower than it is high, or it would be a turned square
    return np.float32(0.85) * np.abs(u) + np.float32(0.53) * np.abs(v) - np.float32(0.55)


def _cross(u: Floats, v: Floats) -> Floats:
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(u, v) - np.float32(1.0), np.minimum(u, v) - np.float32(0.34))


def _ring(u: Floats, v: Floats) -> Floats:
    return np.abs(np.hypot(u, v) - np.float32(0.74)) - np.float32(0.24)


def _star(u: Floats, v: Floats) -> Floats:
    """Five points: every point of the plane is folded into a tenth of the circle, where the outline is one line."""
    tip, notch, sector = 1.1, 0.5, np.pi / 5
    around = np.abs((np.arctan2(u, -v) + np.float32(sector)) % np.float32(2 * sector) - np.float32(sector))
    far = np.hypot(u, v)
    edge = np.array([notch * np.cos(sector) - tip, notch * np.sin(sector)])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    along, across = far * np.cos(around), far * np.sin(around)
    distance: Floats = (along - np.float32(tip)) * np.float32(normal[0]) + across * np.float32(normal[1])
    return distance


SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
}

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.92, 0.16, 0.14),
    "green": (0.14, 0.74, 0.22),
    "blue": (0.16, 0.28, 0.95),
    "yellow": (0.95, 0.88, 0.14),
    "magenta": (0.88, 0.18, 0.86),
    "cyan": (0.14, 0.86, 0.90),
}


def draw_colour(name: str, rng: np.random.Generator, jitter: float = 0.08) -> Floats:
    """A colour near the named one: (3,)."""
    return np.clip(np.array(COLOURS[name]) + rng.uniform(-jitter, jitter, 3), 0, 1).astype(np.float32)


@lru_cache(maxsize=8)
def _spread(size: int, knots: int) -> Floats:
    """Smooth interpolation from `knots` values to `size` pixels: (size, knots), rows summing to 1."""
    at = np.linspace(0, knots - 1, size)
    left = np.minimum(at.astype(int), knots - 2)
    part = at - left
    part = part * part * (3 - 2 * part)
    matrix = np.zeros((size, knots), np.float32)
    matrix[np.arange(size), left] = 1 - part
    matrix[np.arange(size), left + 1] = part
    return matrix


def draw_background(
    size: int, rng: np.random.Generator, brightness: tuple[float, float] = (0.25, 0.65), contrast: float = 0.13
) -> Floats:
    """A random smooth texture of muted colours: (3, size, size)."""
    knots = int(rng.integers(3, 7))
    grey = rng.uniform(*brightness)
    tint = rng.uniform(-0.06, 0.06, (3, 1, 1))
    values = (grey + tint + rng.uniform(-contrast, contrast, (3, knots, knots))).astype(np.float32)
    spread = _spread(size, knots)
    return spread @ values @ spread.T


def coverage(sprite: Sprite, size: int) -> Floats:
    """Return the part of each pixel that the sprite covers, 0..1, soft-edged, times its opacity: (T, size, size)."""
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / size
    dx = centres[None, None, :] - sprite.x[:, None, None]
    dy = centres[None, :, None] - sprite.y[:, None, None]
    scale = (1 / sprite.radius)[:, None, None]
    cos, sin = np.float32(np.cos(sprite.angle)), np.float32(np.sin(sprite.angle))
    distance = SHAPES[sprite.shape]((cos * dx + sin * dy) * scale, (cos * dy - sin * dx) * scale)
    pixels = distance * (sprite.radius * np.float32(size))[:, None, None]
    return np.clip(np.float32(0.5) - pixels, 0, 1) * sprite.opacity[:, None, None]


def render(sprites: Sequence[Sprite], background: Floats, noise: Floats) -> NDArray[np.uint8]:
    """Draw sprites, each over those before it.

    Args:
        background: (3, H, H), the same for every frame.
        noise: (T, 1 or 3, H, H), added to the finished picture.

    Returns uint8 (T, H, H, 3).
    """
    picture = np.repeat(background[None], len(noise), axis=0)
    for sprite in sprites:
        cover = coverage(sprite, background.shape[-1])[:, None]
        picture += cover * (sprite.colour[:, None, None] - picture)
    picture += noise
    picture *= 255
    np.clip(np.rint(picture, out=picture), 0, 255, out=picture)
    return np.ascontiguousarray(picture.astype(np.uint8).transpose(0, 2, 3, 1))
