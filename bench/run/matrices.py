"""Several matrices as one plan: the cells of each, every cell once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from adapters.base import STRATEGIES, Strategy
from adapters.heads import HEADS, Head
from bench.errors import UserError
from bench.measure.placement import Placement
from bench.run.matrix import Plan, expand
from bench.run.selection import asked_of, chosen_options, names
from bench.spec import Cell, Matrix


def expand_all(matrix: Matrix, elsewhere: Placement | None = None, data: bool = True) -> Plan:
    """The cells of a matrix, or of the matrices that it holds, in their order.

    An option that the fields beside `matrices` give is for those of them whose strategies or heads take it.

    Args:
        elsewhere, data: see `bench.run.matrix.expand`.

    Raises:
        UserError: everything that is wrong with any of them.
    """
    parts = matrix.parts()
    takers = {name: [index for index, part in enumerate(parts) if _takes(part, name)] for name in matrix.options}
    plans: list[Plan] = []
    problems: list[str] = []
    unknown = [name for name, found in takers.items() if not found] if matrix.matrices else []
    if unknown:
        everyone = [part for each in parts for part in _strategies(each)]
        heads = [head for each in parts for head in _heads(each)]
        chosen_options({name: matrix.options[name] for name in unknown}, everyone, problems, heads)
    for index, (part, own) in enumerate(zip(parts, matrix.matrices.values() or [{}], strict=True)):
        theirs = {
            name: value
            for name, value in part.options.items()
            if name in own.get("options", {}) or not matrix.matrices or index in takers[name]
        }
        try:
            plans.append(expand(part.model_copy(update={"options": theirs}), elsewhere, data))
        except UserError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise UserError(problems)
    if len(plans) == 1:
        return plans[0]
    cells: dict[Cell, Mapping[str, str]] = {}
    for plan in plans:
        for cell, origins in zip(plan.cells, plan.origins, strict=True):
            cells.setdefault(cell, origins)
    defaults = tuple(dict.fromkeys(default for plan in plans for default in plan.defaults))
    return replace(plans[0], cells=tuple(cells), origins=tuple(cells.values()), defaults=defaults)


def _strategies(part: Matrix) -> list[Strategy]:
    """The strategies of a matrix that there are."""
    return [STRATEGIES.get(name) for name in names(part.strategies, STRATEGIES, [])]


def _heads(part: Matrix) -> list[Head]:
    """Its heads that there are."""
    return [HEADS.get(name) for name in names(part.heads, HEADS, [])]


def _takes(part: Matrix, option: str) -> bool:
    """Test that a strategy or head of a matrix takes an option."""
    takers: list[Strategy | Head] = [*_strategies(part), *_heads(part)]
    return any(asked_of(each, {option: None}) for each in takers)
