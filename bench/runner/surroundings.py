"""What a worker keeps from cell to cell."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.data.base import DATASETS, VideoDataset
from bench.data.cache import FrameCache
from bench.data.reading import Reading
from bench.spec import Cell


@dataclass
class Surroundings:
    """A worker's device, and what its cells share.

    Attributes:
        device: where its cells run.
        reading: how its cells read videos.
        command: the command line, for the provenance.
        cache: frames that were decoded before.
        broken: path -> reason of the videos that made a decoder hang or crash: no later cell waits for them again.
        at_end: what is closed when the present cell ends, however it does.
        unrepeatable: why the present cell's numbers depend on chance; empty where they do not.
    """

    device: torch.device
    reading: Reading
    command: str
    cache: FrameCache
    broken: dict[Path, str] = field(default_factory=dict)
    at_end: ExitStack = field(default_factory=ExitStack)
    unrepeatable: str = ""
    datasets: dict[tuple[str, str | None], VideoDataset] = field(default_factory=dict)
    fingerprints: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def dataset(self, cell: Cell) -> VideoDataset:
        key = (cell.dataset, cell.data_root)
        if key not in self.datasets:
            self.datasets[key] = DATASETS.get(cell.dataset)(None if cell.data_root is None else Path(cell.data_root))
        return self.datasets[key]

    def fingerprint(self, cell: Cell) -> str:
        key = (cell.dataset, cell.data_root)
        if key not in self.fingerprints:
            self.fingerprints[key] = self.dataset(cell).fingerprint()
        return self.fingerprints[key]
