"""Data sets whose videos hang a decoder, kill it or are broken, by their names; nothing is decoded."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.data.clips import Draw, Sample, TestClips, TrainClips
from bench.data.dataset import Video
from bench.data.decode.base import VideoError

SHAPE = (2, 3, 4, 4)


def videos(*names: str) -> tuple[Video, ...]:
    return tuple(Video(Path("/nowhere") / name, index, name) for index, name in enumerate(names))


def pixels(draw: Draw) -> torch.Tensor:
    """Noise that follows from the try."""
    seed = (*draw.seed, draw.video.label)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8))


def read(draw: Draw, log: Path) -> Sample:
    with log.open("a") as file:
        file.write(f"{draw.video.name}\n")
    match draw.video.name.rstrip("0123456789"):
        case "hang":
            time.sleep(600)
        case "spin":
            while True:
                pass
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "leave":
            os._exit(3)
        case "broken":
            raise VideoError(draw.video.path, "its bytes are gone")
        case "bug":
            raise ZeroDivisionError("a mistake of ours")
        case "wide":
            return Sample(torch.zeros(2, 3, 4, 8, dtype=torch.uint8), 0, draw.video.name, "fake")
        case "slow":
            time.sleep(0.3)
    return Sample(pixels(draw), draw.video.label, draw.video.name, "fake")


class FragileTrain(TrainClips):
    """Each try's name is written to `log`."""

    def __init__(self, listed: Sequence[Video], log: Path, seed: int = 0) -> None:
        super().__init__(listed, "uniform", 2, 1, torch.nn.Identity(), seed)
        self.log = log

    def read(self, draw: Draw) -> Sample:
        return read(draw, self.log)


class FragileTest(TestClips):
    def __init__(self, listed: Sequence[Video], log: Path) -> None:
        super().__init__(listed, "uniform", 2, 1, 1, 1, 4)
        self.log = log

    def read(self, draw: Draw) -> Sample:
        return read(draw, self.log)


class Missing:
    """Cannot be rebuilt in another process."""

    def __setstate__(self, state: object) -> None:
        raise ImportError("no such library there")

    def __getstate__(self) -> str:
        return "state"
