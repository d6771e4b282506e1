"""Counts of cells' models without their weights: what `--dry-run` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.build import classifier
from bench.data.base import DATASETS
from bench.errors import UserError
from bench.measure.flops import macs
from bench.measure.params import count
from bench.spec import Cell


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
                root = None if cell.data_root is None else Path(cell.data_root)
                model = classifier(shape, len(DATASETS.get(cell.dataset)(root).classes))
                known[shape.model_key()] = (*count(model), macs(model))
            except Exception as error:  # a plugin's code can raise anything
                problems.append(f"{cell.label} cannot be built: {' '.join(f'{type(error).__name__}: {error}'.split())}")
                continue
        found[cell] = known[shape.model_key()]
    if problems:
        raise UserError(problems)
    return found
