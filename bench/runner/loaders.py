"""A cell's clips: training, validation and test, as its recipe and its data set say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from bench.data.augment import Augment
from bench.data.base import VideoDataset
from bench.data.clips import TestClips, TrainClips
from bench.data.loaders import Batch, ClipLoader, test_loader, train_loader
from bench.data.mixing import Mixing
from bench.data.transforms import TrainTransform
from bench.runner.surroundings import Surroundings
from bench.spec import Cell


class Loaders:
    """The three loaders of a cell.

    Args:
        cell: what is trained.
        dataset: its data set.
        size: side of the backbone's input, in pixels.
        mean: of the backbone's input, RGB in 0..1.
        around: device, cache and decoding processes.

    Attributes:
        batch_size: clips of a training step.
        listed_test: videos of the test.
    """

    def __init__(
        self, cell: Cell, dataset: VideoDataset, size: int, mean: Sequence[float], around: Surroundings
    ) -> None:
        recipe = cell.recipe
        self._around = around
        self._batch = recipe.batch_size
        sampling, stride, cache = dataset.sampling, dataset.stride(cell.frames), around.cache
        transform = TrainTransform(size, recipe.crop_area, recipe.flip)
        augment = Augment(mean, recipe.rand_augment, recipe.colour, recipe.erase)
        self._late = augment if recipe.augment_on == "device" else None
        early = augment if self._late is None else None
        mixes = recipe.mixup or recipe.cutmix
        self._mixing = Mixing(recipe.mixup, recipe.cutmix, len(dataset.classes), cell.seed) if mixes else None
        videos = dataset.videos("train")
        train = TrainClips(videos, sampling, cell.frames, stride, transform, cell.seed, cache, augment=early)
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
        """Clips (B, T, 3, S, S) uint8 and labels of an epoch: (B,), or (B, classes) where clips are mixed."""
        self._train.set_epoch(epoch)
        return (self._finished(batch, epoch, step) for step, batch in enumerate(self._train))

    def _finished(self, batch: Batch, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """A batch with what the recipe leaves to the device."""
        clips, labels = batch.clips, batch.labels
        if self._late is not None or self._mixing is not None:
            device = self._around.device
            clips, labels = clips.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if self._late is not None:
            clips = self._late.batch(clips, batch.seeds)
        if self._mixing is not None:
            clips, labels = self._mixing(clips, labels, epoch, step)
        return clips, labels

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
