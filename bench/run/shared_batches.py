"""Batches that are read once and go to every cell that asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.data.dataset import Split, VideoDataset
from bench.data.decode_pool import Reading
from bench.data.loader import ClipLoader, Skipped
from bench.run.context import WorkerContext
from bench.run.loaders import Loaders
from bench.spec import Cell

Stage = Literal["start", "training", "validation", "evaluation"]


@dataclass(frozen=True)
class Request:
    """A batch that a cell asks for, or the start of its training.

    Attributes:
        stage: that reads it.
        epoch: of the training, from 0; of a validation, after which epoch; of an evaluation 0.
        index: of the batch.
    """

    stage: Stage
    epoch: int = 0
    index: int = 0

    @property
    def place(self) -> tuple[int, ...]:
        """The place of a cell: those of a later request have a greater one."""
        if self.stage in ("start", "evaluation"):
            return (0 if self.stage == "start" else 2, self.index)
        return (1, self.epoch, self.stage == "validation", self.index)

    @property
    def content(self) -> tuple[Any, ...]:
        """Equal for requests that the same batch answers: a validation has the same views after every epoch."""
        return (self.stage, self.epoch if self.stage == "training" else 0, self.index)


START = Request("start")
Ask = Callable[[Request], Any]


@dataclass(frozen=True)
class Delivery:
    """The answer to a request.

    Attributes:
        batch: what the loaders give; None past the last one.
        skipped: of the videos that were met in reading it and could not be decoded, by name.
        decoders: libraries that decoded.
        seconds: that reading it took.
    """

    batch: Any
    skipped: dict[str, Skipped]
    decoders: frozenset[str]
    seconds: float


class BatchSource:
    """Reads the batches that cells ask for, one at a time, from the loaders that they have in common.

    Args:
        loaders: the cells' own, with the decoding processes.
    """

    def __init__(self, loaders: Loaders) -> None:
        self._loaders = loaders
        self._open: Iterator[Any] | None = None
        self._next: tuple[Any, ...] = ()

    def read(self, request: Request) -> Delivery:
        """Read a batch: the one after the last, or any other, for which reading begins anew.

        Raises what reading raises: DataError, and what comes up in a decoding process.
        """
        loader = self._loaders.of(self._split(request))
        begun = time.perf_counter()
        stage, epoch, index = request.content
        try:
            if self._open is None or self._next != request.content:
                self.close()
                self._open = self._stream(request)
                # batches of a test of which nothing could be decoded are left out: only reading tells their number
                for _ in range(0 if stage == "training" else index):
                    next(self._open, None)
            loader.skipped, loader.decoders = {}, set()
            batch = next(self._open, None)
        except BaseException:
            self.close()
            raise
        self._next = (stage, epoch, index + 1)
        if batch is None:
            self.close()
        return Delivery(batch, loader.skipped, frozenset(loader.decoders), time.perf_counter() - begun)

    def _split(self, request: Request) -> Split:
        if request.stage == "training":
            return "train"
        return "val" if request.stage == "validation" else self._loaders.evaluated_split

    def _stream(self, request: Request) -> Iterator[Any]:
        if request.stage == "training":
            return self._loaders.training(request.epoch, request.index)
        return self._loaders.validation() if request.stage == "validation" else self._loaders.evaluated()

    def close(self) -> None:
        """End the reading that is open."""
        self._open = None
        self._next = ()


class SharedLoaders(Loaders):
    """The loaders of a cell whose batches come from a source that other cells share.

    It reads nothing itself. The videos that could not be read count for each cell that got their batches.

    Args:
        ask: waits for the answer to a request.
        waited: told the seconds that reading each batch took.
    """

    def __init__(
        self,
        cell: Cell,
        dataset: VideoDataset,
        size: int,
        mean: Sequence[float],
        context: WorkerContext,
        ask: Ask,
        waited: Callable[[float], None],
    ) -> None:
        nobody = Reading(strict=context.reading.strict)
        super().__init__(cell, dataset, size, mean, replace(context, reading=nobody))
        self._ask = ask
        self._waited = waited
        self._epoch = 0

    def training(self, epoch: int, first: int = 0, *, whole: bool = False) -> Iterator[Any]:
        self._epoch = epoch
        for index in range(first, self.steps):
            batch = self._got(Request("training", epoch, index), self.of("train"))
            if batch is None:
                return
            yield batch

    def validation(self) -> Iterator[Any]:
        return self._tested("validation", self._epoch, self.of("val"))

    def evaluated(self) -> Iterator[Any]:
        return self._tested("evaluation", 0, self.of(self.evaluated_split))

    def _tested(self, stage: Stage, epoch: int, loader: ClipLoader) -> Iterator[Any]:
        index = 0
        while (batch := self._got(Request(stage, epoch, index), loader)) is not None:
            yield batch
            index += 1

    def _got(self, request: Request, loader: ClipLoader) -> Any:
        delivery: Delivery = self._ask(request)
        for name, skipped in delivery.skipped.items():
            before = loader.skipped.get(name)
            loader.skipped[name] = Skipped(skipped.reason, skipped.times + (before.times if before else 0))
        loader.decoders |= delivery.decoders
        self._waited(delivery.seconds)
        return delivery.batch
