"""Messages between the parent and its workers. Imports no torch: the parent has no need of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.data.cache import FrameCache
from bench.data.decode_pool import Reading
from bench.measure.result import Measured
from bench.spec import Cell


@dataclass(frozen=True)
class Setup:
    """Setup that a worker is started with.

    Attributes:
        device: "cpu", "cuda:1", "mps".
        plugins: modules or files that register names.
        reading: how videos are read.
        command: the command line.
        output: file that takes what the process prints.
        notes: what a reader of all its numbers must know of the device.
    """

    device: str
    plugins: tuple[str, ...]
    reading: Reading
    command: str
    output: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """Something to do for a cell: measure its model, or train and evaluate it (then with the measurements).

    Attributes:
        cache: of decoded frames, the same in all jobs of a run. It is chosen while the workers start.
    """

    kind: Literal["measure", "train"]
    cell: Cell
    folder: Path
    threads: int
    cache: FrameCache
    measured: Measured | None = None
