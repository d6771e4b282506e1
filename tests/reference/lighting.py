"""AlexNet's lighting noise from its equation, one pixel at a time (Krizhevsky et al., 2012, section 4.1).

[R, G, B] of every pixel gets [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T added, with p_i and l_i the eigenvectors of the
colours' covariance and the roots of its eigenvalues, here in 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

EIGENVECTORS = ((-0.5675, -0.5808, -0.5836), (0.7192, -0.0045, -0.6948), (0.4009, -0.8140, 0.4203))
ROOTS = (55.46, 4.794, 1.148)


def lit(clip: np.ndarray, alphas: Sequence[float]) -> np.ndarray:
    """uint8 (T, 3, H, W) and a1, a2, a3 -> uint8, rounded to the nearest level and cut off at 0 and 255."""
    out = np.empty_like(clip)
    for (t, colour, row, column), value in np.ndenumerate(clip):
        changed = float(value)
        for alpha, root, vector in zip(alphas, ROOTS, EIGENVECTORS, strict=True):
            changed += alpha * root * vector[colour]
        out[t, colour, row, column] = min(255, max(0, math.floor(changed + 0.5)))
    return out


def covariance(std: float) -> np.ndarray:
    """Of what is added to R, G and B, (3, 3), for alphas of that standard deviation."""
    return sum((std * root) ** 2 * np.outer(vector, vector) for root, vector in zip(ROOTS, EIGENVECTORS, strict=True))
