"""Predictions of cells video by video, packed for a page: a bit a video, and the classes that were taken instead."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from bench.report.page.thumbnails import thumbnails
from bench.report.runs import Runs
from bench.run.result import Result
from bench.run.store import ADAPTER, PREDICTIONS
from bench.spec import Cell
from bench.stats.outcomes import Predicted
from bench.text import one_line

_GUESSES = 1_500_000  # bytes of all mistaken classes together, without which the page does
_PICTURES = 200  # of videos, of all tests together


class VideoData(TypedDict):
    """Videos as the page's script takes them.

    Attributes:
        tests: the lists of videos: names, labels, class names, and pictures by a video's index.
        outcomes: of each cell: the index of its list; bits of the videos that it was right on and, where it did not
            predict all, bits of those that it predicted (base64, the lowest bit first); the classes that it took for
            the others, in their order (base64, little-endian). None of a cell without predictions.
        picture_note: why there are no pictures; empty where there are.
    """

    tests: list[dict[str, Any]]
    outcomes: list[dict[str, Any] | None]
    picture_note: str


@dataclass
class _Test:
    """Videos that cells were tested on, with their labels; grows by those that only later cells predicted."""

    cell: Cell
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    classes: int = 0  # from 0, of the labels and of what videos were taken for
    whole: tuple[str, ...] = ()  # of the first cell: most of the others have the same

    def place(self, found: Predicted) -> np.ndarray | None:
        """Return the indices of a cell's videos here; None where a video has another class than here."""
        labels = found.labels.tolist()
        if self.whole == found.names and self.labels[: len(labels)] == labels:
            return np.arange(len(labels))
        at = {name: index for index, name in enumerate(self.names)}
        if any(name in at and self.labels[at[name]] != label for name, label in zip(found.names, labels, strict=True)):
            return None
        for name, label in zip(found.names, labels, strict=True):
            if name not in at:
                at[name] = len(self.names)
                self.names.append(name)
                self.labels.append(label)
        self.whole = self.whole or found.names
        return np.array([at[name] for name in found.names], dtype=int)


@dataclass
class _Outcome:
    """A cell's predictions, (V) each: indices of its videos in their list, and the classes it took them for."""

    test: int
    videos: np.ndarray
    guesses: np.ndarray


def video_data(runs: Runs, results: Sequence[Result]) -> VideoData:
    """Return the videos and the outcomes of cells; predictions that are damaged or not there count as none."""
    tests: list[_Test] = []
    found = [_outcome(runs.cell_folder(result.cell) / PREDICTIONS, result.cell, tests) for result in results]
    wrong = sum(_wrong(each, tests).sum() for each in found if each is not None)
    classes = [_class_names(test, runs) for test in tests]
    width = np.dtype("<u1" if max(map(len, classes), default=0) <= 256 else "<u2")
    listed: list[dict[str, Any]] = [
        {
            "data": f"{test.cell.dataset} {test.cell.split}",
            "names": [one_line(name) for name in test.names],
            "labels": test.labels,
            "classes": [one_line(name) for name in names],
            "pictures": {},
        }
        for test, names in zip(tests, classes, strict=True)
    ]
    note = _add_pictures(listed, tests, found)
    kept = bool(wrong * width.itemsize <= _GUESSES)
    packed = [None if each is None else _packed(each, tests, width if kept else None) for each in found]
    return {"tests": listed, "outcomes": packed, "picture_note": note}


def _outcome(file: Path, cell: Cell, tests: list[_Test]) -> _Outcome | None:
    try:
        found = Predicted(file)
        right = found.right("top1")
    except (OSError, ValueError):
        return None
    if right is None or not len(right):
        return None
    guesses = found.probabilities.argmax(axis=1)
    for index, test in enumerate([*tests, _Test(cell)]):
        if (test.cell.dataset, test.cell.data, test.cell.split) != (cell.dataset, cell.data, cell.split):
            continue
        videos = test.place(found)
        if videos is not None:
            if index == len(tests):
                tests.append(test)
            test.classes = max(test.classes, found.probabilities.shape[1], int(found.labels.max()) + 1)
            return _Outcome(index, videos, guesses)
    return None


def _wrong(outcome: _Outcome, tests: Sequence[_Test]) -> np.ndarray:
    """Mask of a cell's videos that were taken for another class, (V)."""
    labels = np.asarray(tests[outcome.test].labels)[outcome.videos]
    return np.asarray(outcome.guesses != labels)


def _packed(outcome: _Outcome, tests: Sequence[_Test], width: np.dtype[Any] | None) -> dict[str, Any]:
    count = len(tests[outcome.test].names)
    order = np.argsort(outcome.videos)  # the script counts the mistaken ones in the list's order
    wrong = _wrong(outcome, tests)
    seen, right = np.zeros(count, bool), np.zeros(count, bool)
    seen[outcome.videos] = True
    right[outcome.videos] = ~wrong
    values: dict[str, Any] = {"test": outcome.test, "right": _bits(right)}
    if not seen.all():
        values["seen"] = _bits(seen)
    if width is not None:
        values["guesses"] = _base64(outcome.guesses[order][wrong[order]].astype(width).tobytes())
        values["bytes"] = width.itemsize
    return values


def _bits(values: np.ndarray) -> str:
    return _base64(np.packbits(values, bitorder="little").tobytes())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _class_names(test: _Test, runs: Runs) -> list[str]:
    """Class names by label: of the trained model, else of the data set as it lies there now, else numbers."""
    names = _of_adapter(runs.cell_folder(test.cell) / ADAPTER) or _of_dataset(test.cell)
    return [*names, *(f"class {label}" for label in range(len(names), test.classes))]


def _of_adapter(file: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            names = json.loads((opened.metadata() or {}).get("classes", "[]"))
    except (OSError, ValueError, SafetensorError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _of_dataset(cell: Cell) -> list[str]:
    from backbones.registry import UnknownName
    from bench.data.dataset import DATASETS, DataError

    try:
        return list(DATASETS.get(cell.dataset)(cell.data).classes)
    except (UnknownName, DataError, OSError, ValueError):
        return []


def _add_pictures(listed: list[dict[str, Any]], tests: Sequence[_Test], found: Sequence[_Outcome | None]) -> str:
    """Add pictures of the videos that cells disagree on most. Returns why there are none; empty where there are."""
    told = ""
    left = _PICTURES
    for index, test in enumerate(tests):
        right, seen = np.zeros(len(test.names)), np.zeros(len(test.names))
        for each in found:
            if each is not None and each.test == index:
                seen[each.videos] += 1
                right[each.videos] += ~_wrong(each, tests)
        share = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
        order = np.argsort(-share * (1 - share), kind="stable")
        chosen = [int(video) for video in order[:left] if 0 < right[video] < seen[video]]
        if not chosen:
            continue
        pictures, note = thumbnails(test.cell, [test.names[video] for video in chosen])
        told = told or note
        listed[index]["pictures"] = {
            video: pictures[test.names[video]] for video in chosen if test.names[video] in pictures
        }
        left -= len(listed[index]["pictures"])
    return told if left == _PICTURES else ""
