"""The Pareto front by its definition."""

from __future__ import annotations

from collections.abc import Sequence


def front(costs: Sequence[float], accuracies: Sequence[float]) -> set[int]:
    """The points that no other one dominates: as cheap and as accurate, and cheaper or more accurate."""
    points = list(zip(costs, accuracies, strict=True))
    return {
        index
        for index, (cost, accuracy) in enumerate(points)
        if not any(c <= cost and a >= accuracy and (c < cost or a > accuracy) for c, a in points)
    }
