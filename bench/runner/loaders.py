"""The clips of a cell or of an evaluation: training, validation and test, as the data set and the recipe say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from bench.data.base import Split, VideoDataset
from bench.data.clips import Clips, TestClips, TrainClips
from bench.data.loaders import ClipLoader, test_loader, train_loader
from bench.data.transforms import TrainTransform
from bench.data.workers import DecodePool
from bench.runner.skipped import SkippedVideo
from bench.runner.surroundings import Surroundings
from bench.spec import Cell


def decoding(clips: Sequence[Clips[Any]], dataset: VideoDataset, around: Surroundings) -> DecodePool | None:
    """Processes that decode the clips of a data set until `around.at_end`; None where this process does."""
    how = around.reading
    count = how.small_workers if dataset.small else how.workers
    if not count:
        return None
    return around.at_end.enter_context(DecodePool(clips, count, how.limit, around.broken))


def testing(clips: TestClips, views: int, pool: DecodePool | None, strict: bool) -> ClipLoader:
    """Batches of at most so many views, but of one video at least."""
    return test_loader(clips, max(1, views // clips.views), pool, strict)


def triples(loader: ClipLoader) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
    """Views (B, V, T, 3, S, S) uint8, labels (B,) and names."""
    return ((batch.clips, batch.labels, list(batch.names)) for batch in loader)


def skipped_videos(loaders: Iterable[tuple[Split, ClipLoader]]) -> tuple[SkippedVideo, ...]:
    """The videos that the loaders of the splits could not read, by name."""
    return tuple(
        SkippedVideo(name=name, split=split, reason=skipped.reason, times=skipped.times)
        for split, loader in loaders
        for name, skipped in sorted(loader.skipped.items())
    )


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
        batch, strict = cell.recipe.batch_size, around.reading.strict
        sampling, stride, cache = dataset.sampling, dataset.stride(cell.frames), around.cache
        transform = TrainTransform(size, cell.recipe.crop_area, cell.recipe.flip)
        train = TrainClips(dataset.videos("train"), sampling, cell.frames, stride, transform, cell.seed, cache)
        val = TestClips(dataset.videos("val"), sampling, cell.frames, stride, 1, 1, size, cache, validation=True)
        test = TestClips(dataset.videos("test"), sampling, cell.frames, stride, cell.clips, cell.crops, size, cache)
        pool = decoding((train, val, test), dataset, around)
        self._train = train_loader(train, batch, pool, strict)
        self._val = testing(val, batch, pool, strict)
        self._test = testing(test, batch, pool, strict)
        self.listed_test = len(test)
        # a training set that is smaller than a batch makes a smaller batch
        self.batch_size = min(batch, len(train))

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
        return triples(self._val)

    def test(self) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """Views (B, V, T, 3, S, S) uint8, labels and names."""
        return triples(self._test)

    @property
    def skipped(self) -> tuple[SkippedVideo, ...]:
        """Videos that could not be read so far."""
        return skipped_videos((("train", self._train), ("val", self._val), ("test", self._test)))

    @property
    def decoders(self) -> set[str]:
        """The libraries that decoded."""
        return self._train.decoders | self._val.decoders | self._test.decoders
