"""State that a worker keeps from cell to cell."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from bench.data.cache import FrameCache
from bench.data.dataset import DATASETS, SPLITS, VideoDataset
from bench.data.decode_pool import Reading
from bench.data.trial_data import TrialData, for_trials
from bench.data.validate import examine
from bench.errors import UserError
from bench.processes import SharedFlag
from bench.run.model_files.base import TrainedModel
from bench.run.model_files.open import open_model_file
from bench.spec import Cell
from bench.spec.source import DataSource
from bench.train.ranks import ALONE, Ranks

# name, place, and whether it is what trials see
DatasetKey = tuple[str, DataSource] | tuple[str, DataSource, Literal["trial"]]


def _key(cell: Cell) -> DatasetKey:
    return (cell.dataset, cell.data) if cell.trial is None else (cell.dataset, cell.data, "trial")


@dataclass
class WorkerContext:
    """A worker's device, and what its cells share.

    Attributes:
        device: where its cells run.
        reading: how its cells read videos.
        command: the command line, for the provenance.
        cache: frames that were decoded before.
        broken: path -> reason of the videos that made a decoder hang or crash: no later cell waits for them again.
        cleanup: what is closed when the present cell ends, however it does.
        device_notes: what a reader of all its numbers must know of the device.
        datasets, fingerprints, noted: of the data sets by name and place: opened, their hash, notes on them. What a
            trial sees of one is a data set by itself.
        model_files: opened, by path.
        checkpoint_minutes: between two checkpoints of a training.
        stoppable: set while a training, or the evaluation after it, heeds `stopping`.
        stopping: set when it is to write a checkpoint after its present step, and to end.
        ranks: the processes that execute the cell together, this one among them.
        unrepeatable: why the present cell's numbers depend on chance; empty where they do not.
    """

    device: torch.device
    reading: Reading
    command: str
    cache: FrameCache = field(default_factory=FrameCache)
    broken: dict[Path, str] = field(default_factory=dict)
    cleanup: ExitStack = field(default_factory=ExitStack)
    device_notes: tuple[str, ...] = ()
    checkpoint_minutes: float = 10.0
    stoppable: SharedFlag = field(default_factory=SharedFlag)
    stopping: SharedFlag = field(default_factory=SharedFlag)
    ranks: Ranks = ALONE
    unrepeatable: str = ""
    datasets: dict[DatasetKey, VideoDataset] = field(default_factory=dict)
    fingerprints: dict[DatasetKey, str] = field(default_factory=dict)
    noted: dict[DatasetKey, tuple[str, ...]] = field(default_factory=dict)
    model_files: dict[str, TrainedModel] = field(default_factory=dict)

    def dataset(self, cell: Cell) -> VideoDataset:
        key = _key(cell)
        if key not in self.datasets:
            dataset = DATASETS.get(cell.dataset)(cell.data)
            self.datasets[key] = dataset if cell.trial is None else for_trials(dataset)
        return self.datasets[key]

    def fingerprint(self, cell: Cell) -> str:
        key = _key(cell)
        if key not in self.fingerprints:
            self.fingerprints[key] = self.dataset(cell).fingerprint()
        return self.fingerprints[key]

    def model_file(self, cell: Cell) -> TrainedModel | None:
        """The opened file that a cell's model comes from; None where it is built anew.

        Raises:
            UserError: it cannot be read, or is not the file that the cell names.
        """
        if cell.model_file is None:
            return None
        path, sha256 = cell.model_file.path, cell.model_file.sha256
        if path not in self.model_files:
            self.model_files[path] = open_model_file(
                Path(path), cell.backbone, cell.strategy, cell.options.get("scale")
            )
        if self.model_files[path].sha256 != sha256:
            raise UserError([f"checkpoint {path!r}: it was changed since the evaluation was planned"])
        return self.model_files[path]

    def notes(self, cell: Cell) -> tuple[str, ...]:
        """Return what a reader of a cell's numbers must know of the device and of its data set."""
        key = _key(cell)
        if key not in self.noted:
            trained = SPLITS if cell.trial is None else TrialData.splits
            splits = trained if "train" in cell.stages else (cell.split,)
            self.noted[key] = examine(self.dataset(cell), splits=splits).notes
        return (*self.device_notes, *self.noted[key])
