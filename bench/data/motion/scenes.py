"""The scenes of the data set `motion`: five kinds of movement, each of which names two classes.

The two classes of a pair are the same movement played forwards and backwards. Only the forward one is drawn; the other
is its frames reversed. The frames of the two therefore have the same distribution, as sets, down to the noise: nothing
but their order tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.motion.render import COLOURS, SHAPES, Floats, Sprite, draw_background, draw_colour, render

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
