"""Right and wrong predictions of a table's row, video by video, from the predictions that its cells kept."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
    """Predictions of a cell: the file is read once, and the arrays that are asked for.

    Raises:
        ValueError: the file is damaged; of an array that is read later, `right` raises it.
        OSError: there is none, or it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._arrays: dict[str, np.ndarray] = {}
        content = file.read_bytes()
        with self._damage():
            self._members = zipfile.ZipFile(io.BytesIO(content))
            self._known = set(self._members.namelist())
            self.names = _names(self._members.read("names.npy"))
            self.labels = self._array("labels")

    @property
    def probabilities(self) -> np.ndarray:
        """Of each video and class, (V, C), frames forwards."""
        with self._damage():
            return self._array("probabilities")

    @property
    def predictions(self) -> np.ndarray:
        """The likeliest class of each video, (V)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def right(self, metric: Metric) -> np.ndarray | None:
        """Return whether each video counts as right, (V); None where the cell has no such accuracy."""
        _, _, order = metric.partition("_") if metric.startswith("top1_") else ("", "", "")
        name = f"probabilities_{order}" if order else "probabilities"
        if f"{name}.npy" not in self._known:
            return None
        with self._damage():
            probabilities = self._array(name)
            if metric != "top5":
                return np.asarray(probabilities.argmax(axis=1) == self.labels)
            classes = probabilities.shape[1]
            if classes <= _TOP["top5"]:
                return None
            # of equals the lower index counts, as in the accuracy
            own = np.take_along_axis(probabilities, self.labels[:, None], axis=1)
            lower = np.arange(classes) < self.labels[:, None]
            before = (probabilities > own) | ((probabilities == own) & lower)
            return np.asarray(before.sum(axis=1) < _TOP["top5"])

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            found = _array(self._members.read(f"{name}.npy"))
            if len(found) != len(self.names):
                raise ValueError("arrays of different lengths")
            self._arrays[name] = found
        return self._arrays[name]

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error, ValueError) as error:
            raise ValueError(f"{self._file} is damaged ({error})") from error


def _array(content: bytes) -> np.ndarray:
    """The array of an .npy file. Of a thousand files, np.load reads the same header a thousand times."""
    start = 10 + int.from_bytes(content[8:10], "little")
    if content[:8] != b"\x93NUMPY\x01\x00":
        return np.asarray(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False))
    shape, by_columns, dtype = _header(content[:start])
    found = np.frombuffer(content, dtype, offset=start)
    return found.reshape(shape, order="F" if by_columns else "C")


@lru_cache(maxsize=256)
def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    file = io.BytesIO(content)
    np.lib.format.read_magic(file)
    return np.lib.format.read_array_header_1_0(file)


@lru_cache(maxsize=8)  # cells of one data set have the same ones
def _names(content: bytes) -> tuple[str, ...]:
    return _distinct([str(name) for name in _array(content)])


def predicted(run: CellFolders, results: Sequence[Result]) -> list[Predicted]:
    """Return the predictions of cells. Raises ValueError and OSError as `Predicted` does."""
    return [Predicted(run.cell_folder(result.cell) / PREDICTIONS) for result in results]


def outcomes(found: Sequence[Predicted], seeds: Sequence[int], metric: Metric) -> Outcomes | None:
    """Return the outcomes of cells that differ in the seed alone; None where one lacks the metric.

    Raises:
        ValueError: a video has different classes in two of them, so that they were not tested on the same data.
    """
    return outcomes_by_metric(found, seeds, [metric]).get(metric)


def outcomes_by_metric(
    found: Sequence[Predicted], seeds: Sequence[int], metrics: Sequence[Metric]
) -> dict[Metric, Outcomes]:
    """Return the outcomes of cells that differ in the seed alone, without the metrics that one of them lacks.

    Raises:
        ValueError: as in `outcomes`.
    """
    names = found[0].names
    same = all(each.names is names or each.names == names for each in found)
    if not same:
        common = set(names).intersection(*(each.names for each in found[1:]))
        names = tuple(name for name in names if name in common)
    columns = [slice(None) if same else _columns(each.names, names) for each in found]
    labels = found[0].labels[columns[0]]
    if any((each.labels[column] != labels).any() for each, column in zip(found, columns, strict=True)):
        raise ValueError("a video has another class in another seed")
    left_out = 0 if same else len(set().union(*(each.names for each in found))) - len(names)
    by_metric = {}
    for metric in metrics:
        right = [each.right(metric) for each in found]
        there = [each[column] for each, column in zip(right, columns, strict=True) if each is not None]
        if len(there) == len(found):
            by_metric[metric] = Outcomes(names, labels, np.stack(there), tuple(seeds), metric == "mean_class", left_out)
    return by_metric


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
