"""Common facts of every checkpoint, known before its model is built."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from adapters.classifier import VideoClassifier
from backbones.families import own_size
from backbones.names import WEIGHT_SUFFIXES, BackboneName
from backbones.registry import did_you_mean
from bench.errors import UserError
from bench.files import did_you_mean_path, reason
from bench.run.store import ADAPTER, RESULTS
from bench.spec.source import DataSource, Views

PEFT = "adapter_model.safetensors"


@dataclass(frozen=True)
class TrainedModel(ABC):
    """A model in a file.

    Attributes:
        layout: whose names its tensors have.
        file: where it lies.
        sha256: of the file.
        backbone: what the model is built on.
        strategy, options: by name.
        frames: T of the clips that it was trained on, where the file tells.
        input_size: side of the frames that it was trained on, in pixels; None where that is the backbone's own.
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
    input_size: int | None
    any_frames: bool
    classes: int
    class_names: tuple[str, ...] | None
    dataset: str | None
    data: DataSource | None
    batch: int | None

    @property
    def views(self) -> Views | None:
        """Views that a test of its training had of a video of its data set; None where the file does not tell."""
        return None

    @abstractmethod
    def build(self, frames: int) -> tuple[VideoClassifier, list[str]]:
        """The model for clips of `frames` frames on the CPU, ready to predict, and what its numbers' reader must know.

        Raises:
            UserError: the backbone cannot be had, or the tensors do not fit.
        """

    def resized(self, model: VideoClassifier, size: int | None) -> VideoClassifier:
        """A model that `build` has built, for frames of another size: positions that it holds are interpolated.

        Args:
            model: not to be used any more.
            size: in pixels, one that fits the backbone; None for its own.
        """
        model.backbone.resize(self._pixels(size))
        return model

    def _pixels(self, size: int | None) -> int:
        """An input size as a number."""
        return size or own_size(self.backbone) or 0

    @abstractmethod
    def weights_sha256_of(self, model: VideoClassifier) -> str:
        """The hash that tells the weights under the adapters: of the model that `build` has built."""

    def wrong(self, problems: Iterable[str]) -> UserError:
        """The sentences on what is wrong with this file, as an error."""
        return wrong(self.file, problems)


def wrong(file: Path, problems: Iterable[str]) -> UserError:
    """Sentences on a checkpoint as an error."""
    return UserError(f"checkpoint {str(file)!r}: {problem}" for problem in problems)


def find(text: str, root: Path = RESULTS) -> Path:
    """The file of a checkpoint.

    Args:
        text: a file, a cell's folder, a folder in peft's format, or RUN/CELL. RUN is a run's folder or its name under
            `root`, CELL the name of the cell's folder or the first digits of the cell's key, which need no RUN where
            one run under `root` has such a cell.
        root: where runs lie.

    Raises:
        UserError: there is no such file.
    """
    given = Path(os.path.expanduser(text))
    if os.path.isfile(given):
        if given.suffix not in WEIGHT_SUFFIXES:
            raise UserError([f"checkpoint {text!r}: expected a file that ends in {', '.join(WEIGHT_SUFFIXES)}"])
        return given
    if given.suffix in WEIGHT_SUFFIXES and os.path.lexists(given):
        raise UserError([f"checkpoint {text!r}: it is not a regular file, or a link that leads to none"])
    for file in (ADAPTER, PEFT):
        if os.path.isfile(given / file):
            return given / file
    for run in (given, root / given):
        if os.path.isdir(run / "cells"):
            listed = ", ".join(_cells(run)) or "none"
            raise UserError([f"checkpoint {text!r} is a run: expected RUN/CELL, with one of its cells: {listed}"])
    for run in (given.parent, root / given.parent):
        if not os.path.isdir(run / "cells"):
            continue
        cells = _cells(run)
        if found := _named(run, given.name):
            return _adapter(text, found)
        near = did_you_mean(given.name, cells)
        raise UserError([f"checkpoint {text!r}: the run has no such cell, expected one of {', '.join(cells)}{near}"])
    if os.path.isdir(root) and re.fullmatch(r"[0-9a-f]{4,10}", text):
        runs = sorted(folder.parent for folder in root.glob("*/cells"))
        if found := [folder for run in runs for folder in _named(run, text)]:
            return _adapter(text, found)
    raise UserError(
        [f"checkpoint {text!r}: there is no such file, cell's folder or RUN/CELL{did_you_mean_path(given)}"]
    )


def _named(run: Path, name: str) -> list[Path]:
    """The folders of a run's cells that are called so, or else whose key begins so."""
    cells = _cells(run)
    called = [cell for cell in cells if name == cell] or [c for c in cells if c.rpartition("-")[2].startswith(name)]
    return [run / "cells" / cell for cell in called]


def _adapter(text: str, folders: Sequence[Path]) -> Path:
    """The adapter file of the one cell. Raises UserError where it has none, or there are several cells."""
    if len(folders) > 1:
        listed = ", ".join(folder.name for folder in folders[:5])
        raise UserError([f"checkpoint {text!r}: {len(folders)} cells are called so, expected one of {listed}"])
    if not os.path.isfile(folders[0] / ADAPTER):
        raise UserError([f"checkpoint {text!r}: the cell has no {ADAPTER}, it did not come to its end"])
    return folders[0] / ADAPTER


def _cells(run: Path) -> list[str]:
    return sorted(folder.name for folder in (run / "cells").iterdir() if folder.is_dir())


def sha256(file: Path) -> str:
    """Of a file's content. Raises UserError where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError([f"checkpoint {str(file)!r}: it cannot be read ({reason(error)})"]) from error
