"""Counts of models without their numbers: what `--dry-run` prints, and where a profile begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch

from adapters.classifier import VideoClassifier
from bench.data.dataset import DATASETS
from bench.errors import UserError
from bench.measure.counts import UncountedOperation, macs, macs_by_part
from bench.measure.params import count, count_by_part
from bench.run.build import classifier
from bench.run.result import Counts, PartCounts
from bench.spec import Cell

Found = TypeVar("Found")


def input_size(cell: Cell) -> int | None:
    """Pixels of a side of what a cell's backbone is shown; None where it cannot be built."""
    try:
        bare = cell.model_copy(update={"weights": "none"})
        return without_numbers(partial(classifier, bare, 1), lambda model: model.backbone.input_size)
    except Exception:  # a plugin's code can raise anything; who needs the model tells it
        return None


def without_numbers(build: Callable[[], VideoClassifier], count: Callable[[VideoClassifier], Found]) -> Found:
    """Return what `count` finds in the model that `build` builds, on torch's meta device: no memory, no time.

    A plugin's code may need numbers, to build or to compute: then the model is built with random ones.

    Raises what both raise of a model with numbers, and UncountedOperation at once.
    """
    try:
        with torch.device("meta"):
            return count(build())
    except UncountedOperation:
        raise
    except Exception:
        return count(build())


def by_part(cell: Cell) -> Counts:
    """The counts of a cell's model, part by part, of its head for `cell.classes`.

    Raises whatever building and counting the model raises.
    """
    bare = cell.model_copy(update={"weights": "none"})

    def found(model: VideoClassifier) -> Counts:
        multiplied, held = macs_by_part(model.deployed()), count_by_part(model)
        parts = {
            part: PartCounts(macs_view=multiplied[part], params=every, trained_params=trained)
            for part, (every, trained) in held.items()
        }
        return Counts(
            params=sum(part.params for part in parts.values()),
            trained_params=sum(part.trained_params for part in parts.values()),
            macs_view=sum(multiplied.values()),
            parts=parts,
        )

    return without_numbers(partial(classifier, bare, cell.classes or 1), found)


def _three_counts(model: VideoClassifier) -> tuple[int, int, int]:
    return (*count(model), macs(model.deployed()))


def counts(cells: Sequence[Cell]) -> dict[Cell, tuple[int, int, int]]:
    """Parameters, trained parameters and multiply-accumulates of a view, of each cell's model with random weights.

    Raises:
        UserError: models that cannot be built.
    """
    known: dict[str, tuple[int, int, int]] = {}
    found, problems = {}, []
    for cell in cells:
        shape = cell.model_copy(update={"seed": 0, "weights": "none"})
        if shape.model_key() not in known:
            try:
                classes = cell.classes or len(DATASETS.get(cell.dataset)(cell.data).classes)
                known[shape.model_key()] = without_numbers(partial(classifier, shape, classes), _three_counts)
            except Exception as error:  # a plugin's code can raise anything
                problems.append(f"{cell.label} cannot be built: {' '.join(f'{type(error).__name__}: {error}'.split())}")
                continue
        found[cell] = known[shape.model_key()]
    if problems:
        raise UserError(problems)
    return found
