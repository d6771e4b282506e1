"""Costs of a model, without training it: counts part by part, speed and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backbones.names import BackboneName
from bench.measure.result import Measured
from bench.spec import Precision, sized_label

if TYPE_CHECKING:
    from bench.measure.parts import Part


@dataclass(frozen=True)
class Subject:
    """A model to be profiled: a backbone and a strategy, for clips of so many frames and so many classes.

    Attributes:
        input_size: side of the frames, in pixels; None for the backbone's own.
        note: what a reader must know of its weights; empty where nothing is to be said.
    """

    backbone: BackboneName
    strategy: str
    options: Mapping[str, Any]
    frames: int
    classes: int
    clips: int
    crops: int
    input_size: int | None = None
    note: str = ""

    @property
    def views(self) -> int:
        return self.clips * self.crops

    @property
    def backbone_label(self) -> str:
        """The backbone, and its input size where that is not its own."""
        return sized_label(str(self.backbone), self.input_size)

    @property
    def label(self) -> str:
        """Name for people."""
        return f"{self.backbone_label} {self.strategy} {self.frames}f"


@dataclass(frozen=True)
class Conditions:
    """Conditions that the speeds of one table share, beside the code: the device, as tables name it, and its use."""

    device: str
    threads: int
    precision: Precision
    batch_size: int
    compile: bool = False
    checkpoint_activations: bool = False


@dataclass(frozen=True)
class Profile:
    """Costs of a model.

    Attributes:
        subject: the model.
        macs: multiply-accumulates of one view, part by part; empty where the model could not be counted.
        params: parameters, and those that train, part by part; empty likewise.
        measured: speed and memory; None where they were not asked for, or memory had no room for one clip.
        conditions: under which it was measured; None where that was not asked for.
        date: when, in UTC, ISO 8601.
        footnotes: what a reader of the numbers would not expect.
        failed: whether it could not be counted or measured.
    """

    subject: Subject
    macs: dict[Part, int]
    params: dict[Part, tuple[int, int]]
    measured: Measured | None = None
    conditions: Conditions | None = None
    date: str | None = None
    footnotes: tuple[str, ...] = ()
    failed: bool = False

    @property
    def precision(self) -> Precision | None:
        return None if self.conditions is None else self.conditions.precision

    @property
    def macs_view(self) -> int:
        return sum(self.macs.values())

    @property
    def total_params(self) -> int:
        return sum(every for every, _ in self.params.values())

    @property
    def trained_params(self) -> int:
        return sum(trained for _, trained in self.params.values())
