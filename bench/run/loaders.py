"""The clips of a cell: training, validation and test, as the data set and the recipe say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from adapters.frozen_pass import KeptStates
from bench.data.augment import Augment, MixupCutmix
from bench.data.clips import Clips, TestClips, TrainClips, decoded_side
from bench.data.dataset import Split, VideoDataset
from bench.data.decode_client import Decoders, decoders
from bench.data.fixed_clips import FixedClips
from bench.data.loader import Batch, ClipLoader, Skipped, eval_loader, train_loader
from bench.data.subset import Subset, subset
from bench.data.transforms import TrainTransform
from bench.data.validate import present
from bench.run.context import WorkerContext
from bench.run.features import KeptFeatures, Report
from bench.run.result import SkippedVideo
from bench.spec import Cell
from bench.train.evaluate import Predictor


def decoding(clips: Sequence[Clips[Any]], dataset: VideoDataset, context: WorkerContext) -> Decoders | None:
    """Processes that decode the clips of a data set until `context.cleanup`; None where this process does."""
    pool = decoders(clips, dataset.small, context.reading, context.broken)
    if pool is not None:
        context.cleanup.callback(pool.close)
    return pool


class Loaders:
    """The loaders of a cell: of the split that is evaluated, and where it trains of training and validation too.

    Args:
        cell: what is trained or evaluated.
        dataset: its data set.
        size: side of the backbone's input, in pixels.
        mean: of the backbone's input, RGB in 0..1.
        context: device, cache, decoding processes and ranks: each loads its share of every batch.
        watch: sees the training's batches come in, as `bench.measure.loading` does.

    Attributes:
        batch_size: clips of a training step over all ranks; of an evaluation views that are computed at once.
        listed: videos of the split that is evaluated.
        drawn: the training videos; None where nothing trains.
    """

    drawn: Subset | None = None

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
        self._ranks = ranks = context.ranks
        self._context = context
        self.batch_size = recipe.batch_size
        sampling, stride = dataset.sampling, dataset.defaults(cell.backbone_name, cell.strategy).stride(cell.frames)
        how: dict[str, Any] = {"cache": context.cache, "decoder": cell.decoder}
        clips: dict[Split, Clips[Any]] = {}
        if "train" in cell.stages:
            how_trained = {**how, "short_side": decoded_side(dataset, size)}
            transform = TrainTransform(size, recipe.crop_area, recipe.flip)
            augment = Augment(mean, recipe.rand_augment, recipe.colour, recipe.erase, recipe.pca_noise)
            self._device = context.device
            self._watch = watch
            self._late = augment if recipe.augment_on == "device" else None
            early = augment if self._late is None else None
            mixes = recipe.mixup or recipe.cutmix
            self._mixing = MixupCutmix(recipe.mixup, recipe.cutmix, len(dataset.classes), cell.seed) if mixes else None
            self.drawn = subset(present(dataset.videos("train")), cell.train_fraction, cell.seed)
            kind = FixedClips if cell.cache_features else TrainClips
            clips["train"] = kind(
                self.drawn.videos, sampling, cell.frames, stride, transform, cell.seed, augment=early, **how_trained
            )
            clips["val"] = TestClips(
                dataset.videos("val"), sampling, cell.frames, stride, 1, 1, size, validation=True, **how_trained
            )
            # a training set that is smaller than a batch makes a smaller batch
            self.batch_size = min(recipe.batch_size, len(clips["train"]))
        clips[cell.split] = evaluated = TestClips(
            dataset.videos(cell.split),
            sampling,
            cell.frames,
            stride,
            cell.clips,
            cell.crops,
            size,
            short_side=decoded_side(dataset, size, cell.view_side, cell.pixels),
            view_side=cell.view_side,
            validation=cell.split == "val",
            pixels=cell.pixels,
            **how,
        )
        self.listed = len(evaluated)
        self._evaluated = cell.split
        pool = decoding(tuple(clips.values()), dataset, context)
        self._cell = cell
        self._clips, self._kept = clips, dict[Split, KeptFeatures]()
        self._loaders: dict[Split, ClipLoader] = {}
        for split, each in clips.items():
            if isinstance(each, TrainClips):
                self._train = self._loaders[split] = train_loader(each, recipe.batch_size, pool, strict)
                if isinstance(each, FixedClips):  # features are computed of every video
                    self._loaders[split] = ClipLoader(each, recipe.batch_size, False, pool, strict, None)
            else:  # batches of at most so many views, but of one video at least
                tested = cast("TestClips", each)
                at_once = ranks.size * max(1, recipe.batch_size // tested.views)
                self._loaders[split] = eval_loader(tested, at_once, pool, strict)
            if not ranks.alone:
                self._loaders[split].share = ranks.share

    @property
    def train_videos(self) -> int | None:
        """Videos of an epoch."""
        return None if self.drawn is None else len(self.drawn.videos)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(self._train)

    def keep_features(self, predictor: Predictor, identity: Mapping[str, str], report: Report) -> None:
        """Train, and validate, on features of the frozen backbone from now on; computed where they are not there yet.

        Args, errors: see `bench.run.features.KeptFeatures`.
        """
        for split in ("train", "val"):
            clips = cast("FixedClips | TestClips", self._clips[split])
            loader = self._loaders[split]
            kept = KeptFeatures(self._cell, predictor, clips, loader, self._context, identity, split, report)
            if kept.file:
                self._kept[split] = kept

    def training(
        self, epoch: int, first: int = 0, *, whole: bool = False
    ) -> Iterator[tuple[Tensor | KeptStates, Tensor]]:
        """Clips (B, T, 3, S, S) uint8 and labels of an epoch: (B,), or (B, classes) where clips are mixed.

        In place of clips these are kept states, after `keep_features`.

        Args:
            epoch: from 0.
            first: batch to begin with; those before are not read.
            whole: batches as one process has them, in place of this rank's shares.
        """
        if "train" in self._kept:
            steps = range(first, self.steps)
            return self._kept["train"].training(steps, epoch, self._cell.recipe.batch_size)
        self._train.set_epoch(epoch, first)
        if not self._ranks.alone:
            self._train.share = range if whole else self._ranks.share
        batches = enumerate(self._watch(self._train), first)
        return (self._finished(batch, epoch, step, whole) for step, batch in batches)

    def _finished(self, batch: Batch, epoch: int, step: int, whole: bool) -> tuple[Tensor, Tensor]:
        """A batch with what the recipe leaves to the device."""
        clips, labels = batch.clips, batch.labels
        if self._late is not None or self._mixing is not None:
            clips, labels = clips.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)
        if self._late is not None:
            clips = self._late.batch(clips, batch.seeds)
        if self._mixing is None or not len(batch):
            return clips, labels
        if self._ranks.alone or whole:
            return self._mixing(clips, labels, epoch, step)
        # a clip is mixed with the one before it in the batch: the share's first with another rank's last
        clips, labels = self._mixing(*self._ranks.with_previous(clips, labels, self.batch_size), epoch, step)
        return clips[1:], labels[1:]

    def of(self, split: Split) -> ClipLoader:
        """Return the loader of a split."""
        return self._loaders[split]

    @property
    def evaluated_split(self) -> Split:
        return self._evaluated

    def validation(self) -> Iterator[tuple[Tensor | KeptStates, Tensor, list[str]]]:
        """Views (B, 1, T, 3, S, S) uint8, or kept states of them, labels and names."""
        return self._shown("val")

    def evaluated(self) -> Iterator[tuple[Tensor | KeptStates, Tensor, list[str]]]:
        """Views (B, V, T, 3, S, S) uint8, or kept states, labels and names of the split that is evaluated."""
        return self._shown(self._evaluated)

    def _shown(self, split: Split) -> Iterator[tuple[Tensor | KeptStates, Tensor, list[str]]]:
        if split in self._kept:
            return self._kept[split].evaluation(self._cell.recipe.batch_size)
        return _triples(self._loaders[split])

    def state_dict(self) -> dict[str, Any]:
        """The videos that could not be read so far, and the libraries that decoded, by split."""
        return {
            split: {
                "skipped": {name: (skipped.reason, skipped.times) for name, skipped in loader.skipped.items()},
                "decoders": sorted(loader.decoders),
            }
            for split, loader in self._loaders.items()
        }

    def gathered_state(self) -> dict[str, Any]:
        """The `state_dict` of all ranks together; called by all of them."""
        states = self._ranks.gather(self.state_dict())
        merged = states[0]
        for state in states[1:]:
            for split, found in state.items():
                into = merged[split]
                for name, (reason, times) in found["skipped"].items():
                    first, before = into["skipped"].get(name, (reason, 0))
                    into["skipped"][name] = (first, before + times)
                into["decoders"] = sorted({*into["decoders"], *found["decoders"]})
        return merged

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `gathered_state`, on one rank: the others tell of what they met since."""
        for split, loader in self._loaders.items():
            loader.skipped = {name: Skipped(*found) for name, found in state[split]["skipped"].items()}
            loader.decoders = set(state[split]["decoders"])

    @property
    def skipped(self) -> tuple[SkippedVideo, ...]:
        """Videos that could not be read so far, by split and name."""
        return tuple(
            SkippedVideo(name=name, split=split, reason=skipped.reason, times=skipped.times)
            for split, loader in self._loaders.items()
            for name, skipped in sorted(loader.skipped.items())
        )

    @property
    def decoders(self) -> set[str]:
        """The libraries that decoded."""
        return {name for loader in self._loaders.values() for name in loader.decoders}


def _triples(loader: ClipLoader) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
    return ((batch.clips, batch.labels, list(batch.names)) for batch in loader)
