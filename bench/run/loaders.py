"""The clips of a cell or of an evaluation: training, validation and test, as the data set and the recipe say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from bench.data.augment import Augment, MixupCutmix
from bench.data.clips import Clips, TestClips, TrainClips, decoded_side
from bench.data.dataset import Split, VideoDataset
from bench.data.decode_pool import DecodePool
from bench.data.loader import Batch, ClipLoader, eval_loader, train_loader
from bench.data.transforms import TrainTransform
from bench.data.validate import present
from bench.run.context import WorkerContext
from bench.run.skipped import SkippedVideo
from bench.spec import Cell


def decoding(clips: Sequence[Clips[Any]], dataset: VideoDataset, context: WorkerContext) -> DecodePool | None:
    """Processes that decode the clips of a data set until `context.cleanup`; None where this process does."""
    how = context.reading
    count = how.processes(dataset.small)
    if not count:
        return None
    return context.cleanup.enter_context(DecodePool(clips, count, how.limit, context.broken))


def testing(clips: TestClips, views: int, pool: DecodePool | None, strict: bool) -> ClipLoader:
    """Batches of at most so many views, but of one video at least."""
    return eval_loader(clips, max(1, views // clips.views), pool, strict)


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
        mean: of the backbone's input, RGB in 0..1.
        context: device, cache and decoding processes.
        watch: sees the training's batches come in, as `bench.measure.loading` does.

    Attributes:
        batch_size: clips of a training step.
        listed_test: videos of the test.
    """

    def __init__(
        self,
        cell: Cell,
        dataset: VideoDataset,
        size: int,
        mean: Sequence[float],
        context: WorkerContext,
        watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
    ) -> None:
        recipe, strict = cell.recipe, context.reading.strict
        batch = recipe.batch_size
        sampling, stride = dataset.sampling, dataset.defaults(cell.backbone_name, cell.strategy).stride(cell.frames)
        how: dict[str, Any] = {
            "cache": context.cache,
            "decoder": cell.decoder,
            "short_side": decoded_side(dataset, size),
        }
        views: dict[str, Any] = {**how, "short_side": decoded_side(dataset, size, cell.view_side)}
        transform = TrainTransform(size, recipe.crop_area, recipe.flip)
        augment = Augment(mean, recipe.rand_augment, recipe.colour, recipe.erase, recipe.pca_noise)
        self._device = context.device
        self._watch = watch
        self._late = augment if recipe.augment_on == "device" else None
        early = augment if self._late is None else None
        mixes = recipe.mixup or recipe.cutmix
        self._mixing = MixupCutmix(recipe.mixup, recipe.cutmix, len(dataset.classes), cell.seed) if mixes else None
        videos = present(dataset.videos("train"))
        train = TrainClips(videos, sampling, cell.frames, stride, transform, cell.seed, augment=early, **how)
        val = TestClips(dataset.videos("val"), sampling, cell.frames, stride, 1, 1, size, validation=True, **how)
        test = TestClips(
            dataset.videos("test"),
            sampling,
            cell.frames,
            stride,
            cell.clips,
            cell.crops,
            size,
            view_side=cell.view_side,
            **views,
        )
        pool = decoding((train, val, test), dataset, context)
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
        """Clips (B, T, 3, S, S) uint8 and labels of an epoch: (B,), or (B, classes) where clips are mixed."""
        self._train.set_epoch(epoch)
        return (self._finished(batch, epoch, step) for step, batch in enumerate(self._watch(self._train)))

    def _finished(self, batch: Batch, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """A batch with what the recipe leaves to the device."""
        clips, labels = batch.clips, batch.labels
        if self._late is not None or self._mixing is not None:
            clips, labels = clips.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)
        if self._late is not None:
            clips = self._late.batch(clips, batch.seeds)
        if self._mixing is not None:
            clips, labels = self._mixing(clips, labels, epoch, step)
        return clips, labels

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
