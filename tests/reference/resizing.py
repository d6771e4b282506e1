"""Sizes and crops of mmcv and mmaction, and cv2's bilinear interpolation, from their definitions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray


def size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """The nearest whole numbers to the sides times short_side / min(sides), halves upwards: mmcv.rescale_size."""
    scale = Fraction(short_side, min(height, width))
    return floor(height * scale + Fraction(1, 2)), floor(width * scale + Fraction(1, 2))


def corners(height: int, width: int, crop: int, crops: int) -> list[tuple[int, int]]:
    """Top and left of mmaction's CenterCrop, or ThreeCrop in the order left, middle, right (top, middle, bottom)."""
    down, across = (height - crop) // 2, (width - crop) // 2
    if crops == 1:
        return [(down, across)]
    if height == crop:
        return [(0, 0), (0, across), (0, 2 * across)]
    return [(0, 0), (down, 0), (2 * down, 0)]


def bilinear(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """(H, W, 3) -> (height, width, 3): each pixel from the four around its place, centres of pixels at halves."""
    made = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            made[y, x] = _at(picture, (y + 0.5) * picture.shape[0] / height, (x + 0.5) * picture.shape[1] / width)
    return made


def _at(picture: NDArray[np.uint8], y: float, x: float) -> NDArray[np.float64]:
    top, left = floor(y - 0.5), floor(x - 0.5)
    down, across = y - 0.5 - top, x - 0.5 - left
    shares = {
        (top, left): (1 - down) * (1 - across),
        (top, left + 1): (1 - down) * across,
        (top + 1, left): down * (1 - across),
        (top + 1, left + 1): down * across,
    }
    lowest, rightmost = picture.shape[0] - 1, picture.shape[1] - 1
    found = np.zeros(3)
    for (row, column), share in shares.items():
        found += share * picture[min(max(row, 0), lowest), min(max(column, 0), rightmost)]
    return found
