"""What a model costs, without training it: counts part by part, speed and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backbones.names import BackboneName
from bench.result import Measured
from bench.spec import Precision

if TYPE_CHECKING:
    from bench.measure.parts import Part


@dataclass(frozen=True)
class Subject:
    """A model to be profiled: a backbone and a strategy, for clips of so many frames and so many classes."""

    backbone: BackboneName
    strategy: str
    options: Mapping[str, Any]
    frames: int
    classes: int
    clips: int
    crops: int

    @property
    def views(self) -> int:
        return self.clips * self.crops

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.backbone} {self.strategy} {self.frames}f"


@dataclass(frozen=True)
class Profile:
    """What a model costs.

    Attributes:
        subject: the model.
        macs: multiply-accumulates of one view, part by part.
        params: parameters, and those that train, part by part.
        measured: speed and memory; None where they were not asked for, or memory had no room for one clip.
        footnotes: what a reader of the numbers would not expect.
        failed: whether speed and memory could not be measured.
    """

    subject: Subject
    macs: dict[Part, int]
    params: dict[Part, tuple[int, int]]
    measured: Measured | None = None
    precision: Precision | None = None
    footnotes: tuple[str, ...] = ()
    failed: bool = False

    @property
    def macs_view(self) -> int:
        return sum(self.macs.values())

    @property
    def total_params(self) -> int:
        return sum(every for every, _ in self.params.values())

    @property
    def trained_params(self) -> int:
        return sum(trained for _, trained in self.params.values())
