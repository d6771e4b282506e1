"""Batches of a data set, and what had to be skipped on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench.data.batches import Batch, BatchBuffer
from bench.data.clips import Clips, TestClips, TrainClips
from bench.data.dataset import DataError
from bench.data.decode_pool import DecodePool
from bench.data.prefetch import prefetched


@dataclass(frozen=True)
class Skipped:
    """Reason why a video could not be decoded, and how many times that was met."""

    reason: str
    times: int


class ClipLoader:
    """Batches of a data set; iterate over it once an epoch.

    Args:
        clips: the data set.
        batch_size: clips in training, videos in testing.
        drop_last: leave a short last batch out, unless it is the only one.
        pool: processes that read; None reads in this one.
        strict: a video that cannot be decoded is a DataError.
        pin_memory: None for yes where there is a GPU.

    Attributes:
        skipped: name -> every video that could not be decoded so far. In training another clip has taken its place, in
            testing it is missing from the batches.
        decoders: the libraries that have decoded so far.
    """

    def __init__(
        self,
        clips: Clips[Any],
        batch_size: int,
        drop_last: bool,
        pool: DecodePool | None,
        strict: bool,
        pin_memory: bool | None,
    ) -> None:
        if not len(clips):
            raise ValueError("there is no video to load")
        self._clips = clips
        self._batch_size = batch_size
        self._drop_last = drop_last and len(clips) > batch_size
        self._pool = pool
        self._strict = strict
        self._pin = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._epoch = 0
        self.skipped: dict[str, Skipped] = {}
        self.decoders: set[str] = set()

    def __len__(self) -> int:
        """Batches an epoch; one of which nothing could be decoded is left out in iterating."""
        short = len(self._clips) % self._batch_size > 0 and not self._drop_last
        return len(self._clips) // self._batch_size + short

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration shows. Test views are the same in all."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        keys = self._clips.keys(self._epoch)
        chunks = [keys[i * self._batch_size : (i + 1) * self._batch_size] for i in range(len(self))]
        if self._pool is None:
            batches: Iterator[Batch] = map(self._read, chunks)
        else:
            batches = prefetched(self._pool, self._clips, chunks, self._pin)
        for batch in batches:
            self._count(batch)
            if len(batch):
                yield batch

    def _read(self, keys: Sequence[Any]) -> Batch:
        """A batch, read in this process."""
        buffer = BatchBuffer(len(keys), self._pin)
        for place, key in enumerate(keys):
            sample = self._clips[key]
            if sample.clip is not None:
                slot = buffer.slot(place, sample.clip.shape)
                slot.copy_(sample.clip)
                sample = replace(sample, clip=slot)
            buffer.put(place, sample)
        return buffer.batch()

    def _count(self, batch: Batch) -> None:
        for name, reason in batch.skipped:
            if self._strict:
                raise DataError(f"{name} cannot be read ({reason}): --strict allows no such video")
            before = self.skipped.get(name)
            self.skipped[name] = Skipped(reason, 1 + (before.times if before else 0))
        self.decoders |= batch.decoders


def train_loader(
    clips: TrainClips,
    batch_size: int,
    pool: DecodePool | None = None,
    strict: bool = False,
    pin_memory: bool | None = None,
) -> ClipLoader:
    """Batches of training clips, shuffled by (seed, epoch). A short last batch is dropped unless it is the only one:
    it would weigh its clips more than others.
    """
    return ClipLoader(clips, batch_size, True, pool, strict, pin_memory)


def test_loader(
    clips: TestClips,
    batch_size: int,
    pool: DecodePool | None = None,
    strict: bool = False,
    pin_memory: bool | None = None,
) -> ClipLoader:
    """Batches of `batch_size` videos with all their views, in the list's order, none left out."""
    return ClipLoader(clips, batch_size, False, pool, strict, pin_memory)


# pytest would otherwise collect this function wherever a test module imports it by name
test_loader.__test__ = False  # type: ignore[attr-defined]
