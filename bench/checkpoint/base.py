"""What every checkpoint tells before its model is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from adapters.model import VideoClassifier
from backbones.names import BackboneName
from bench.data.source import DataSource
from bench.errors import UserError
from bench.views import Views


@dataclass(frozen=True)
class Checkpoint(ABC):
    """A model in a file.

    Attributes:
        layout: whose names its tensors have.
        file: where it lies.
        sha256: of the file.
        backbone: what the model is built on.
        strategy, options: by name.
        frames: T of the clips that it was trained on, where the file tells.
        any_frames: whether clips may have another T: a model without attention over time does not mind.
        classes: number of classes.
        class_names: theirs, where the file tells.
        dataset, data: what it was trained on and where that lay, where the file tells.
        batch: clips computed at once in training, where the file tells.
    """

    layout: ClassVar[str]

    file: Path
    sha256: str
    backbone: BackboneName
    strategy: str
    options: Mapping[str, Any]
    frames: int | None
    any_frames: bool
    classes: int
    class_names: tuple[str, ...] | None
    dataset: str | None
    data: DataSource | None
    batch: int | None

    @property
    def views(self) -> Views | None:
        """How a test of its training saw a video of its data set; None where the file does not tell."""
        return None

    @abstractmethod
    def build(self, frames: int) -> tuple[VideoClassifier, list[str]]:
        """The model for clips of `frames` frames on the CPU, ready to predict, and what its numbers' reader must know.

        Raises:
            UserError: the backbone cannot be had, or the tensors do not fit.
        """

    @abstractmethod
    def weights_sha256_of(self, model: VideoClassifier) -> str:
        """The hash that tells the weights under the adapters: of the model that `build` has built."""

    def wrong(self, problems: Iterable[str]) -> UserError:
        """The sentences on what is wrong with this file, as an error."""
        return wrong(self.file, problems)


def wrong(file: Path, problems: Iterable[str]) -> UserError:
    """Sentences on a checkpoint as an error."""
    return UserError(f"checkpoint {str(file)!r}: {problem}" for problem in problems)
