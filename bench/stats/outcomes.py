"""Right and wrong predictions of a table's row, video by video, from the predictions that its cells kept."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np

from bench.run.result import Result
from bench.run.store import PREDICTIONS
from bench.spec import Cell

Metric = Literal["top1", "top5", "mean_class", "top1_reversed", "top1_shuffled"]
METRICS: tuple[Metric, ...] = get_args(Metric)
_TOP = {"top5": 5}


class CellFolders(Protocol):
    """A run, or several together."""

    def cell_folder(self, cell: Cell) -> Path:
        """Return the folder of a cell's files."""
        raise NotImplementedError


@dataclass(frozen=True)
class Outcomes:
    """Predictions of cells that differ in the seed alone, on the videos that all of them predicted.

    Attributes:
        names: (V), one for each video; a name that is listed several times has its number behind it.
        labels: (V), of the classes.
        right: (S, V), of each seed and video.
        seeds: (S).
        by_class: classes count alike, not videos.
        left_out: videos that only some of the seeds predicted.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    right: np.ndarray
    seeds: tuple[int, ...]
    by_class: bool = False
    left_out: int = 0

    def of(self, seeds: Sequence[int], names: Sequence[str]) -> Outcomes:
        """Return the outcomes of these seeds and videos, in their order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        place = {name: index for index, name in enumerate(self.names)}
        columns = [place[name] for name in names]
        right = self.right[np.ix_(rows, columns)]
        return Outcomes(tuple(names), self.labels[columns], right, tuple(seeds), self.by_class, self.left_out)


class Predicted:
    """Predictions of a cell, each file read once.

    Raises:
        ValueError: the file is damaged.
        OSError: there is none, or it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        try:
            with np.load(file) as found:
                self._arrays = {name: found[name] for name in found.files}
            self.labels = self._arrays["labels"]
            self.names = _distinct([str(name) for name in self._arrays["names"]])
            if any(len(array) != len(self.labels) for array in self._arrays.values()):
                raise ValueError("arrays of different lengths")
        except (KeyError, EOFError, zipfile.BadZipFile, ValueError) as error:
            raise ValueError(f"{file} is damaged ({error})") from error

    @property
    def probabilities(self) -> np.ndarray:
        """Of each video and class, (V, C), frames forwards."""
        return self._arrays["probabilities"]

    def right(self, metric: Metric) -> np.ndarray | None:
        """Return whether each video counts as right, (V); None where the cell has no such accuracy."""
        _, _, order = metric.partition("_") if metric.startswith("top1_") else ("", "", "")
        probabilities = self._arrays.get(f"probabilities_{order}" if order else "probabilities")
        if probabilities is None or (metric == "top5" and probabilities.shape[1] <= _TOP["top5"]):
            return None
        if metric == "top5":  # of equals the lower index counts, as in the accuracy
            first = np.argsort(-probabilities, axis=1, kind="stable")[:, : _TOP["top5"]]
            return np.asarray((first == self.labels[:, None]).any(axis=1))
        return np.asarray(probabilities.argmax(axis=1) == self.labels)


def predicted(run: CellFolders, results: Sequence[Result]) -> list[Predicted]:
    """Return the predictions of cells. Raises ValueError and OSError as `Predicted` does."""
    return [Predicted(run.cell_folder(result.cell) / PREDICTIONS) for result in results]


def outcomes(found: Sequence[Predicted], seeds: Sequence[int], metric: Metric) -> Outcomes | None:
    """Return the outcomes of cells that differ in the seed alone; None where one lacks the metric.

    Raises:
        ValueError: a video has different classes in two of them, so that they were not tested on the same data.
    """
    right = [each.right(metric) for each in found]
    if not right or any(each is None for each in right):
        return None
    common = set(found[0].names).intersection(*(each.names for each in found[1:]))
    names = tuple(name for name in found[0].names if name in common)
    columns = [_columns(each.names, names) for each in found]
    labels = found[0].labels[columns[0]]
    if any((each.labels[column] != labels).any() for each, column in zip(found, columns, strict=True)):
        raise ValueError("a video has another class in another seed")
    matrix = np.stack([each[column] for each, column in zip(right, columns, strict=True) if each is not None])
    every = set().union(*(each.names for each in found))
    return Outcomes(names, labels, matrix, tuple(seeds), metric == "mean_class", len(every) - len(names))


def _columns(names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    if tuple(names) == tuple(wanted):
        return np.arange(len(names))
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[name] for name in wanted], dtype=int)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, those that come again with their number."""
    if len(set(names)) == len(names):
        return tuple(names)
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return tuple(found)
