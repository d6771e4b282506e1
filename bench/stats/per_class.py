"""Accuracy of every class, and what its videos are taken for, from the predictions that a cell kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.stats.outcomes import Predicted


@dataclass(frozen=True)
class ClassAccuracy:
    """Predictions of one class's videos.

    Attributes:
        label: of the class, from 0.
        name: of the class.
        videos: of the class, that could be read.
        right: of them, those that are predicted right.
        confused_with: class that most of the others are taken for, of equals the one of the lower label; None where all
            are right.
        confused: so many of them.
    """

    label: int
    name: str
    videos: int
    right: int
    confused_with: str | None
    confused: int

    @property
    def top1(self) -> float | None:
        """In percent; None of a class without videos."""
        return 100 * self.right / self.videos if self.videos else None


def per_class(file: Path, names: Sequence[str]) -> list[ClassAccuracy]:
    """Return the accuracy of every class, in the order of the labels.

    Args:
        file: predictions.npz of a cell.
        names: of the classes, by label.

    Raises:
        ValueError: the file is damaged.
        OSError: there is none, or it cannot be read.
    """
    found = Predicted(file)
    matrix = confusions(found.labels, found.predictions, len(names))
    accuracies = []
    for label, name in enumerate(names):
        row = matrix[label].copy()
        videos, right = int(row.sum()), int(row[label])
        row[label] = 0
        most = int(row.argmax())
        confused = int(row[most])
        accuracies.append(ClassAccuracy(label, name, videos, right, names[most] if confused else None, confused))
    return accuracies


def confusions(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Count the videos of each class that are taken for each class: (classes, classes) from labels (V,) and (V,)."""
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (labels, predictions), 1)
    return counts
