"""Mixup and cutmix of a batch, one number at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def labels(own: Sequence[int], share: float, classes: int) -> list[list[float]]:
    """y_i = l onehot(i) + (1 - l) onehot(i - 1); the first clip's neighbour is the last."""
    found = []
    for i in range(len(own)):
        row = [0.0] * classes
        row[own[i]] += share
        row[own[i - 1]] += 1 - share
        found.append(row)
    return found


def mixup(clips: NDArray[np.uint8], share: float) -> NDArray[np.float64]:
    """x_i = l x_i + (1 - l) x_(i - 1), not rounded."""
    found = np.empty(clips.shape)
    for i in range(len(clips)):
        for place in np.ndindex(clips.shape[1:]):
            found[i][place] = share * float(clips[i][place]) + (1 - share) * float(clips[i - 1][place])
    return found


def cutmix(clips: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Rows top..bottom and columns left..right, the ends exclusive, from clip i - 1."""
    top, bottom, left, right = box
    found = clips.copy()
    for i in range(len(clips)):
        for frame, colour, row, column in np.ndindex(clips.shape[1:]):
            if top <= row < bottom and left <= column < right:
                found[i, frame, colour, row, column] = clips[i - 1, frame, colour, row, column]
    return found
