"""A cell's clips: training, validation and test, as its recipe and its data set say."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from bench.data.base import VideoDataset
from bench.data.check import present
from bench.data.clips import TestClips, TrainClips
from bench.data.loaders import ClipLoader, test_loader, train_loader
from bench.data.transforms import TrainTransform
from bench.runner.surroundings import Surroundings
from bench.spec import Cell


class Loaders:
    """The three loaders of a cell.

    Args:
        cell: what is trained.
        dataset: its data set.
        size: side of the backbone's input, in pixels.
        around: cache and decoding processes.

    Attributes:
        batch_size: clips of a training step.
        listed_test: videos of the test.
    """

    def __init__(self, cell: Cell, dataset: VideoDataset, size: int, around: Surroundings) -> None:
        self._around = around
        self._batch = cell.recipe.batch_size
        sampling, cache = dataset.sampling, around.cache
        stride = dataset.stride_for(cell.backbone_name, cell.frames)
        transform = TrainTransform(size, cell.recipe.crop_area, cell.recipe.flip)
        train = TrainClips(present(dataset.videos("train")), sampling, cell.frames, stride, transform, cell.seed, cache)
        val = TestClips(dataset.videos("val"), sampling, cell.frames, stride, 1, 1, size, cache, validation=True)
        test = TestClips(dataset.videos("test"), sampling, cell.frames, stride, cell.clips, cell.crops, size, cache)
        self._train = train_loader(train, self._batch, around.loader_workers)
        self._val = self._testing(val)
        self._test = self._testing(test)
        self.listed_test = len(test)
        # a training set that is smaller than a batch makes a smaller batch
        self.batch_size = min(self._batch, len(train))

    def _testing(self, clips: TestClips) -> ClipLoader:
        return test_loader(clips, self._batch, self._around.loader_workers)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(self._train)

    def training(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Clips (B, T, 3, S, S) uint8 and labels (B,) of an epoch."""
        self._train.set_epoch(epoch)
        return ((batch.clips, batch.labels) for batch in self._train)

    def validation(self) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """Views (B, 1, T, 3, S, S) uint8, labels and names."""
        return ((batch.clips, batch.labels, list(batch.names)) for batch in self._val)

    def test(self) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """Views (B, V, T, 3, S, S) uint8, labels and names."""
        return ((batch.clips, batch.labels, list(batch.names)) for batch in self._test)

    @property
    def skipped(self) -> dict[str, str]:
        """Videos that could not be decoded, and why."""
        return {**self._train.skipped, **self._val.skipped, **self._test.skipped}

    @property
    def decoders(self) -> set[str]:
        """The libraries that decoded."""
        return self._train.decoders | self._val.decoders | self._test.decoders
