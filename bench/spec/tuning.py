"""Tuning of a recipe as a part of cells: the space, the trial that a cell is, the choice that a cell trains with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.spec.fields import FrozenModel


class Dimension(FrozenModel):
    """Values that trials try of one part of a recipe, or of one option of a strategy."""

    scale: Literal["log", "linear", "choice"]
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Dimension:
        if self.scale == "choice":
            if not self.choices:
                raise ValueError("expected at least one value")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("expected a range from a lower to a higher number")
        elif self.scale == "log" and self.low <= 0:
            raise ValueError("expected a range above 0, as its scale is logarithmic")
        return self

    def __str__(self) -> str:
        if self.scale == "choice":
            return " | ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in self.choices)
        return f"{self.low:g}..{self.high:g}{' (log)' if self.scale == 'log' else ''}"


@dataclass(frozen=True)
class Search:
    """Declaration of a recipe's field that trials try values of it, as `Annotated[float, Search(factor=10)]`.

    A field that a recipe sets to 0 is off, and stays off.

    Attributes:
        factor: the range is from value / factor to value * factor, on a logarithmic scale; or
        upto: from 0 to value * upto, on a linear one.
        most: end of every range.
    """

    factor: float | None = None
    upto: float | None = None
    most: float = 10.0

    @property
    def scale(self) -> Literal["log", "linear"]:
        """The scale of a range of this field."""
        return "linear" if self.factor is None else "log"

    def around(self, value: float) -> Dimension | None:
        """Return the range about a recipe's value; None where the recipe has it off."""
        if not value:
            return None
        if self.factor is None:
            high = _short(max(value, min(value * (self.upto or 1), self.most)))
            return Dimension(scale="linear", low=0.0, high=high)
        return Dimension(
            scale="log", low=_short(value / self.factor), high=_short(max(value, min(value * self.factor, self.most)))
        )


def _short(value: float) -> float:
    return float(f"{value:.6g}")


class Trial(FrozenModel):
    """Mark of a cell that is a trial: it is evaluated on validation videos, and never sees the test's."""

    number: int = Field(ge=0, description="within its study; 0 is the recipe as it is")
    untuned: dict[str, Any] = Field(description="values of the recipe and the strategy that trials vary")


class Budget(FrozenModel):
    """Effort that goes into the recipe of one row of a table."""

    trials: int
    epochs: int = Field(description="of a trial")
    sampler: str
    sampler_seed: int
    seed: int = Field(description="of the trials' trainings; none of the table has it")
    space: dict[str, Dimension]


class Tuning(Budget):
    """Choice among trials that a cell trains with."""

    untuned: dict[str, Any] = Field(description="values before")
    chosen: int = Field(description="number of the best trial")
    values: dict[str, Any] = Field(description="its values")
