"""Batches of clips, and what had to be skipped on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from bench.data.clips import Sample, TestClips, TrainClips


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples.

    Attributes:
        clips: uint8 (B, T, 3, S, S) in training, (B, V, T, 3, S, S) in testing.
        labels: int64 (B,).
        names: of the B videos.
        skipped: name -> reason of the videos that could not be decoded, which are not among the B.
        decoders: the libraries that decoded the B.
    """

    clips: Tensor
    labels: Tensor
    names: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    decoders: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.names)

    def pin_memory(self) -> Batch:
        """Called by torch's DataLoader."""
        return replace(self, clips=self.clips.pin_memory(), labels=self.labels.pin_memory())


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack what could be decoded, gather the names of what could not."""
    shown = [(sample.clip, sample) for sample in samples if sample.clip is not None]
    return Batch(
        clips=torch.stack([clip for clip, _ in shown]) if shown else torch.empty(0, dtype=torch.uint8),
        labels=torch.tensor([sample.label for _, sample in shown], dtype=torch.int64),
        names=tuple(sample.name for _, sample in shown),
        skipped=dict(pair for sample in samples for pair in sample.skipped),
        decoders=frozenset(sample.decoder for _, sample in shown),
    )


class _EpochOrder(Sampler[tuple[int, int]]):
    """(epoch, index) in the epoch's order. The epoch travels with the index into worker processes that live on."""

    def __init__(self, clips: TrainClips) -> None:
        self.clips = clips
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, int(index)) for index in self.clips.order(self.epoch)])


class ClipLoader:
    """Batches of a data set; iterate over it once an epoch.

    Attributes:
        skipped: name -> reason of every video that could not be decoded so far. In training another clip has taken its
            place, in testing it is missing from the batches.
        decoders: the libraries that have decoded so far.
    """

    def __init__(self, loader: DataLoader[Sample], order: _EpochOrder | None = None) -> None:
        self._loader = loader
        self._order = order
        self.skipped: dict[str, str] = {}
        self.decoders: set[str] = set()

    def __len__(self) -> int:
        """Batches an epoch; one of which nothing could be decoded is left out in iterating."""
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration shows. Test views are the same in all."""
        if self._order:
            self._order.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            self.skipped.update(batch.skipped)
            self.decoders |= batch.decoders
            if len(batch):
                yield batch


def _loader(
    clips: TrainClips | TestClips, batch_size: int, workers: int, pin_memory: bool | None, order: _EpochOrder | None
) -> DataLoader[Sample]:
    if not len(clips):
        raise ValueError("there is no video to load")
    return DataLoader(
        clips,
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        collate_fn=collate,
        # a short last batch would weigh its clips more than others; where it is the only one it has to do
        drop_last=order is not None and len(clips) > batch_size,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        persistent_workers=workers > 0,
        # the loader draws a number an epoch; from the global generator, that would change the model's draws
        generator=torch.Generator(),
    )


def train_loader(clips: TrainClips, batch_size: int, workers: int = 0, pin_memory: bool | None = None) -> ClipLoader:
    """Batches of training clips, shuffled by (seed, epoch). A short last batch is dropped unless it is the only one.

    Args:
        workers: processes that decode; 0 decodes in this one, which is the fastest for videos that lie in the cache.
        pin_memory: None for yes where there is a GPU.
    """
    order = _EpochOrder(clips)
    return ClipLoader(_loader(clips, batch_size, workers, pin_memory, order), order)


def test_loader(clips: TestClips, batch_size: int, workers: int = 0, pin_memory: bool | None = None) -> ClipLoader:
    """Batches of `batch_size` videos with all their views, in the list's order, none left out."""
    return ClipLoader(_loader(clips, batch_size, workers, pin_memory, None))


# pytest would otherwise collect this function wherever a test module imports it by name
test_loader.__test__ = False  # type: ignore[attr-defined]
