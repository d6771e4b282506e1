"""Cells that are counted and not trained: parameters and multiply-accumulates, without data and without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from bench.data.dataset import DATASETS, DataError
from bench.errors import UserError, collected
from bench.measure.machine import describe
from bench.measure.placement import Placement
from bench.plugins import load as load_plugins
from bench.run import profile
from bench.run.matrices import expand_all
from bench.run.matrix import Plan
from bench.run.outcome import Outcome
from bench.run.start import default_folder
from bench.run.store import Run
from bench.spec import Cell, Recipe, Request

_NO_DEVICE = Placement("cpu", None, "fp32")  # nothing is computed


def plan(request: Request) -> Plan:
    """The request's cells as ones that are counted alone, each model once; its plugins loaded.

    Raises:
        UserError: everything wrong with the plugins, the matrix and the run's folder.
    """
    problems: list[str] = []
    planned = None
    with collected(problems):
        load_plugins(request.plugins)
    if request.engine != "local":
        problems.append(f"engine is {request.engine!r}: cells that are counted alone need none, expected 'local'")
    with collected(problems):
        planned = _each_model_once(request)
        Run(request.out or default_folder(planned.cells)).check()
    if planned is None or problems:
        raise UserError(problems)
    return planned


def _each_model_once(request: Request) -> Plan:
    """The models of a request's cells. Raises UserError on everything wrong with its matrix or the data sets."""
    cells: dict[Cell, Mapping[str, str]] = {}
    try:
        found = expand_all(request.matrix, _NO_DEVICE, data=False)
        for cell, origins in zip(found.cells, found.origins, strict=True):
            cells.setdefault(_counted(cell), origins)
    except DataError as error:
        raise UserError([str(error)]) from error
    return replace(found, cells=tuple(cells), origins=tuple(cells.values()))


def _counted(cell: Cell) -> Cell:
    """A cell with what its counts depend on alone. Raises DataError where its data set's classes cannot be counted."""
    kept = ("weights", "family", "strategy", "head")
    return Cell(
        backbone=cell.backbone,
        weights=cell.weights,
        strategy=cell.strategy,
        options=cell.options,
        head=cell.head,
        head_options=cell.head_options,
        dataset="",
        frames=cell.frames,
        input_size=cell.input_size,
        clips=cell.clips,
        crops=cell.crops,
        seed=0,
        recipe=Recipe(),
        device=_NO_DEVICE.type,
        precision=_NO_DEVICE.precision,
        sources={name: cell.sources[name] for name in kept if name in cell.sources},
        stages=(),
        classes=len(DATASETS.get(cell.dataset)(cell.data).classes),
    )


def execute(
    request: Request, planned: Plan, command: str, told: Callable[[int, Cell], None] = lambda done, cell: None
) -> tuple[Run, Outcome]:
    """Count the cells of a plan that have no result, and write the run.

    Args:
        told: called before each cell with the number of those that ended.

    Raises:
        UserError: the run's folder cannot be written.
    """
    run = Run(request.out or default_folder(planned.cells))
    run.open(request.matrix, planned.cells, command, describe())
    outcome = Outcome(cells=planned.cells)
    for done, cell in enumerate(planned.cells):
        told(done, cell)
        if (found := run.result(cell)) is not None and found.status == "done":
            outcome.skipped += 1
            continue
        one = replace(planned, cells=(cell,))
        (result,) = profile.execute(one, profile.counted(one, whole=True))
        run.put(result)
        if result.status != "done":
            outcome.failures.append(result)
    run.write_csv()
    return run, outcome
