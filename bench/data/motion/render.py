"""Scenes of flat shapes on a soft background, drawn from signed distances: the pictures of `motion`.

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


Range = tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """Ranges that scenes are drawn from, uniformly; lengths are fractions of the picture's side.

    Attributes:
        frames, size: frames of a video and pixels of its side.
        angle: radians a shape is turned by, either way.
        noise: standard deviation of every frame's own noise, of a range of 0..1.
        radius: of a shape that keeps its size.
        margin: how near to the picture's edge a centre may come.
        travel: how far a moving shape goes from the first to the last frame.
        lane: how far from the picture's middle line its way may lie. Single frames, averaged, then tell which line it
            follows, though not which way; were the lane as wide as the picture, they would not.
        sideways: how far it may stray across its way, as a part of `travel`.
        drift: how far the shapes of the other classes may wander, so that standing still tells nothing.
        small, large: radius at the start and the end of growing.
        pair_radius, far, near: of the two shapes that approach: radius, first and last distance of their centres.
        faint, solid: opacity before and after appearing.
        fade_start, fade_end: when appearing begins and ends, in parts of the video.
    """

    frames: int = 17
    size: int = 40
    angle: float = 0.3
    noise: float = 0.025
    radius: Range = (0.12, 0.19)
    margin: float = 0.14
    travel: Range = (0.45, 0.66)
    lane: float = 0.1
    sideways: float = 0.15
    drift: float = 0.07
    small: Range = (0.07, 0.12)
    large: Range = (0.22, 0.33)
    pair_radius: Range = (0.09, 0.14)
    far: Range = (0.52, 0.66)
    near: Range = (0.18, 0.28)
    faint: Range = (0.0, 0.1)
    solid: Range = (0.9, 1.0)
    fade_start: Range = (0.0, 0.3)
    fade_end: Range = (0.7, 1.0)


def _constant(value: float, frames: int) -> Floats:
    return np.full(frames, value, np.float32)


def _line(start: float, end: float, frames: int) -> Floats:
    return np.linspace(start, end, frames, dtype=np.float32)


def _sprite(scene: Scene, rng: np.random.Generator, x: Floats, y: Floats, radius: Floats, opacity: Floats) -> Sprite:
    """A sprite of random shape, colour and angle on the given way."""
    return Sprite(
        shape=str(rng.choice(tuple(SHAPES))),
        colour=draw_colour(str(rng.choice(tuple(COLOURS))), rng),
        angle=rng.uniform(-scene.angle, scene.angle),
        x=x,
        y=y,
        radius=radius,
        opacity=opacity,
    )


def _wander(scene: Scene, rng: np.random.Generator, room: float) -> tuple[Floats, Floats]:
    """A slow straight way whose middle is at least `room` from the edges: x and y, (T,) each."""
    x, y = rng.uniform(room, 1 - room, 2)
    dx, dy = rng.uniform(-scene.drift / 2, scene.drift / 2, 2)
    return _line(x - dx, x + dx, scene.frames), _line(y - dy, y + dy, scene.frames)


def _move(scene: Scene, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """A shape's way from smaller to greater values of one coordinate: along it, across it, and the radius."""
    travel = rng.uniform(*scene.travel)
    start = rng.uniform(scene.margin, 1 - scene.margin - travel)
    stray = rng.uniform(-scene.sideways, scene.sideways) * travel
    middle = rng.uniform(0.5 - scene.lane, 0.5 + scene.lane)
    along = _line(start, start + travel, scene.frames)
    across = _line(middle - stray / 2, middle + stray / 2, scene.frames)
    return along, across, _constant(rng.uniform(*scene.radius), scene.frames)


def _move_right(scene: Scene, rng: np.random.Generator) -> list[Sprite]:
    along, across, radius = _move(scene, rng)
    return [_sprite(scene, rng, along, across, radius, _constant(1, scene.frames))]


def _move_down(scene: Scene, rng: np.random.Generator) -> list[Sprite]:
    along, across, radius = _move(scene, rng)
    return [_sprite(scene, rng, across, along, radius, _constant(1, scene.frames))]


def _grow(scene: Scene, rng: np.random.Generator) -> list[Sprite]:
    x, y = _wander(scene, rng, room=0.3)
    radius = _line(rng.uniform(*scene.small), rng.uniform(*scene.large), scene.frames)
    return [_sprite(scene, rng, x, y, radius, _constant(1, scene.frames))]


def _approach(scene: Scene, rng: np.random.Generator) -> list[Sprite]:
    x, y = _wander(scene, rng, room=0.44)
    half = _line(rng.uniform(*scene.far) / 2, rng.uniform(*scene.near) / 2, scene.frames)
    direction = rng.uniform(0, 2 * np.pi)
    dx, dy = half * np.float32(np.cos(direction)), half * np.float32(np.sin(direction))
    opaque = _constant(1, scene.frames)
    return [
        _sprite(
            scene, rng, x + sign * dx, y + sign * dy, _constant(rng.uniform(*scene.pair_radius), scene.frames), opaque
        )
        for sign in (-1, 1)
    ]


def _appear(scene: Scene, rng: np.random.Generator) -> list[Sprite]:
    x, y = _wander(scene, rng, room=0.25)
    time = _line(0, 1, scene.frames)
    start, end = rng.uniform(*scene.fade_start), rng.uniform(*scene.fade_end)
    faint, solid = rng.uniform(*scene.faint), rng.uniform(*scene.solid)
    opacity = faint + (solid - faint) * np.clip((time - start) / (end - start), 0, 1)
    return [_sprite(scene, rng, x, y, _constant(rng.uniform(*scene.radius), scene.frames), opacity.astype(np.float32))]


# (forward class, its twin) -> the forward movement
PAIRS: dict[tuple[str, str], Callable[[Scene, np.random.Generator], list[Sprite]]] = {
    ("move-right", "move-left"): _move_right,
    ("move-down", "move-up"): _move_down,
    ("grow", "shrink"): _grow,
    ("approach", "separate"): _approach,
    ("appear", "disappear"): _appear,
}

CLASSES: tuple[str, ...] = tuple(name for pair in PAIRS for name in pair)


def render_clip(name: str, rng: np.random.Generator, scene: Scene | None = None) -> NDArray[np.uint8]:
    """One video of a class: uint8 (T, H, H, 3).

    With generators in the same state, the two classes of a pair give each other's frames in reverse order.
    Raises ValueError for an unknown class.
    """
    scene = scene or Scene()
    for pair, movement in PAIRS.items():
        if name in pair:
            sprites = movement(scene, rng)
            background = draw_background(scene.size, rng)
            # one value for the three channels: noise of its own in each would fill the files with colour specks
            noise = rng.standard_normal((scene.frames, 1, scene.size, scene.size), dtype=np.float32)
            frames = render(sprites, background, noise * np.float32(scene.noise))
            return frames if name == pair[0] else frames[::-1]
    raise ValueError(f"unknown class {name!r}: expected one of {', '.join(CLASSES)}")
