"""Choices of whoever asks for plots, and the refusal of a plot that a run has nothing for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.errors import UserError
from bench.stats.outcomes import Metric

FORMATS = ("png", "svg", "pdf")
# widths in inches, of a column and of a page of the usual two-column papers
WIDTHS = {"column": 3.3, "page": 6.9}
_SMALLEST, _LARGEST = 1.0, 50.0


class Lacking(Exception):
    """Refusal of a kind of plot for which the runs lack something.

    Attributes:
        problems: sentences on what that is.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


@dataclass(frozen=True)
class Size:
    """Size of a figure in inches; without a height each kind takes what it needs."""

    width: float = WIDTHS["page"]
    height: float | None = None

    @classmethod
    def parsed(cls, text: str) -> Size:
        """Read `column`, `page` or `5x4`. Raises UserError."""
        if text in WIDTHS:
            return cls(WIDTHS[text])
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*[x×]\s*(\d+(?:\.\d+)?)", text.strip())
        sides = [float(side) for side in found.groups()] if found else []
        if not sides or not all(_SMALLEST <= side <= _LARGEST for side in sides):
            raise UserError(
                [
                    f"size is {text!r}: expected {', '.join(WIDTHS)} or a width and a height in inches, such as 5x4, "
                    f"each {_SMALLEST:g} to {_LARGEST:g}"
                ]
            )
        return cls(*sides)


@dataclass(frozen=True)
class PlotRequest:
    """Choices that the kinds of plots have in common.

    Attributes:
        metric: the accuracy that is drawn.
        against: columns of costs for `pareto`; empty: all that the runs have.
        cells: keys, folders or labels of at most two cells, for `confusion`.
        rows: names of at most two rows, `[BACKBONE/]STRATEGY[ OPTION=VALUE ...]`, for `confusion`.
        size: of the figures.
    """

    metric: Metric = "top1"
    against: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    size: Size = field(default_factory=Size)
