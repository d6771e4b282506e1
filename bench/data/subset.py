"""Subset of a training list: a share of each class, drawn from a seed, the smaller ones within the larger."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from bench.data.dataset import Video


@dataclass(frozen=True)
class Subset:
    """Training videos of a fraction.

    Attributes:
        videos: in the list's order.
        of: videos that there are.
        scarce: classes whose share is less than one video, of which one is taken all the same.
    """

    videos: tuple[Video, ...]
    of: int
    scarce: int = 0


def subset(videos: Sequence[Video], fraction: float, seed: int) -> Subset:
    """Draw a fraction of each class: of its n videos fraction * n, rounded half up, and at least one.

    A video's place in the draw follows from seed and name alone. So a smaller fraction is within a larger one of the
    same seed, whatever trains on it, and a video that is missing on one machine changes nothing for the others.

    Args:
        videos: of the training list.
        fraction: above 0, at most 1, which is every video.
        seed: another one draws others.
    """
    if fraction == 1:
        return Subset(tuple(videos), len(videos))
    classes: dict[int, list[int]] = defaultdict(list)
    for index, video in enumerate(videos):
        classes[video.label].append(index)
    exact = Fraction(repr(fraction))  # as written: 0.05 of 30 is 1.5, whatever the binary number is
    chosen: list[int] = []
    for members in classes.values():
        drawn = sorted(members, key=lambda index: _place(videos[index], seed))
        chosen += drawn[: max(1, math.floor(exact * len(members) + Fraction(1, 2)))]
    scarce = sum(exact * len(members) < 1 for members in classes.values())
    return Subset(tuple(videos[index] for index in sorted(chosen)), len(videos), scarce)


def _place(video: Video, seed: int) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}\0{video.name}".encode()).digest(), video.name
