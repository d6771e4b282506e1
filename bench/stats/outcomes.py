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
_BUFFER = 1 << 24  # bytes of an array that are made room for at once; a damaged file may claim any size


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
        partial: names of the videos that only some of the seeds predicted, which are left out.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    right: np.ndarray
    seeds: tuple[int, ...]
    by_class: bool = False
    partial: tuple[str, ...] = ()

    def of(self, seeds: Sequence[int], names: Sequence[str]) -> Outcomes:
        """Return the outcomes of these seeds and videos, in their order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        place = {name: index for index, name in enumerate(self.names)}
        columns = [place[name] for name in names]
        right = self.right[np.ix_(rows, columns)]
        return Outcomes(tuple(names), self.labels[columns], right, tuple(seeds), self.by_class, self.partial)


class Predicted:
    """Predictions of a cell: the file is read once, and the arrays that are asked for.

    Raises:
        ValueError: the file is damaged; of an array that is read later, `right` raises it.
        OSError: there is none, or it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._arrays: dict[str, np.ndarray] = {}
        self._likeliest: dict[str, np.ndarray] = {}
        self._content = file.read_bytes()
        with self._damage():
            with zipfile.ZipFile(io.BytesIO(self._content)) as opened:
                self._members = {member.filename: member for member in opened.infolist()}
            self.names = _names(_shared(*self._member("names")))
            self.labels = self._checked(_array(_shared(*self._member("labels"))))

    @property
    def probabilities(self) -> np.ndarray:
        """Of each video and class, (V, C), frames forwards."""
        with self._damage():
            return self._array("probabilities")

    @property
    def predictions(self) -> np.ndarray:
        """The likeliest class of each video, (V)."""
        with self._damage():
            return self._predicted("probabilities")

    def right(self, metric: Metric) -> np.ndarray | None:
        """Return whether each video counts as right, (V); None where the cell has no such accuracy."""
        _, _, order = metric.partition("_") if metric.startswith("top1_") else ("", "", "")
        name = f"probabilities_{order}" if order else "probabilities"
        if f"{name}.npy" not in self._members:
            return None
        with self._damage():
            if metric != "top5":
                return np.asarray(self._predicted(name) == self.labels)
            probabilities = self._array(name)
            classes = probabilities.shape[1]
            if classes <= _TOP["top5"]:
                return None
            # of equals the lower index counts, as in the accuracy
            own = np.take_along_axis(probabilities, self.labels[:, None], axis=1)
            lower = np.arange(classes) < self.labels[:, None]
            before = (probabilities > own) | ((probabilities == own) & lower)
            return np.asarray(before.sum(axis=1) < _TOP["top5"])

    def _predicted(self, name: str) -> np.ndarray:
        if name not in self._likeliest:
            self._likeliest[name] = self._array(name).argmax(axis=1)
        return self._likeliest[name]

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = self._checked(_array(_read(*self._member(name))))
        return self._arrays[name]

    def _checked(self, found: np.ndarray) -> np.ndarray:
        if len(found) != len(self.names):
            raise ValueError("arrays of different lengths")
        return found

    def _member(self, name: str) -> tuple[bytes, int, int, int]:
        """An array as it is stored, with its way of compression, its size and its checksum."""
        member = self._members[f"{name}.npy"]
        header = member.header_offset
        lengths = (self._content[header + 26 : header + 28], self._content[header + 28 : header + 30])
        start = header + 30 + sum(int.from_bytes(length, "little") for length in lengths)
        stored = self._content[start : start + member.compress_size]
        return stored, member.compress_type, member.file_size, member.CRC

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error, ValueError) as error:
            raise ValueError(f"{self._file} is damaged ({error})") from error


def _read(stored: bytes, method: int, size: int, checksum: int) -> bytes:
    """The content of a member of an archive: ZipFile takes as long to find the way to it as to read it."""
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"compressed in the way {method} of zip files, expected stored or deflated")
    content = stored if method == zipfile.ZIP_STORED else zlib.decompress(stored, -zlib.MAX_WBITS, min(size, _BUFFER))
    if len(content) != size or zlib.crc32(content) != checksum:
        raise ValueError("size or checksum do not fit")
    return content


# cells of one data set have the same names and labels: what is stored alike is read once
_shared = lru_cache(maxsize=16)(_read)


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
    partial = () if same else tuple(sorted(set().union(*(each.names for each in found)) - set(names)))
    by_metric = {}
    for metric in metrics:
        right = [each.right(metric) for each in found]
        there = [each[column] for each, column in zip(right, columns, strict=True) if each is not None]
        if len(there) == len(found):
            by_metric[metric] = Outcomes(names, labels, np.stack(there), tuple(seeds), metric == "mean_class", partial)
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
