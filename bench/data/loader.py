"""Batches of a data set, made ahead by decoding processes or in this one, and what had to be skipped on the way."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from bench.data.clips import Clips, Draw, Sample, TestClips, TrainClips
from bench.data.dataset import DataError
from bench.data.decode_client import Decoders
from bench.data.decode_pool import Task


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples.

    Attributes:
        clips: uint8 (B, T, 3, S, S) in training, (B, V, T, 3, S, S) in testing; pinned where that was asked for.
        labels: int64 (B,).
        names: of the B videos.
        skipped: (name, reason) each time that a video could not be decoded; it is not among the B.
        decoders: the libraries that decoded the B.
        seeds: of the B clips, see Sample.
    """

    clips: Tensor
    labels: Tensor
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    decoders: frozenset[str] = frozenset()
    seeds: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


class BatchBuffer:
    """A batch under way, whose samples come in any order.

    The clips' memory is one piece from the start: what reads a clip from another process puts it in its place at once.

    Args:
        size: samples.
        pin: whether a GPU is to copy the batch by itself, from memory that the system leaves where it is.
    """

    def __init__(self, size: int, pin: bool) -> None:
        self._samples: list[Sample | None] = [None] * size
        self._pin = pin
        self._clips: Tensor | None = None
        self._missing = size

    def slot(self, place: int, shape: torch.Size) -> Tensor:
        """Return the slot of a sample's clip. Raises ValueError where its shape differs from the others'."""
        if self._clips is None:
            self._clips = torch.empty((len(self._samples), *shape), dtype=torch.uint8, pin_memory=self._pin)
        if self._clips.shape[1:] != shape:
            raise ValueError(f"a clip of shape {tuple(shape)} among clips of shape {tuple(self._clips.shape[1:])}")
        return self._clips[place]

    def put(self, place: int, sample: Sample) -> None:
        """A sample that is done; its clip, where it has one, is in its slot already."""
        self._samples[place] = sample
        self._missing -= 1

    @property
    def complete(self) -> bool:
        return not self._missing

    def batch(self) -> Batch:
        """Return the clips that could be decoded, and the names of those that could not."""
        samples = [sample for sample in self._samples if sample is not None]
        shown = [place for place, sample in enumerate(samples) if sample.clip is not None]
        clips = torch.empty(0, dtype=torch.uint8) if self._clips is None else self._clips
        if self._clips is not None and len(shown) < len(samples):
            clips = clips[shown].pin_memory() if self._pin else clips[shown]
        labels = torch.tensor([samples[place].label for place in shown], dtype=torch.int64)
        return Batch(
            clips=clips,
            labels=labels.pin_memory() if self._pin else labels,
            names=tuple(samples[place].name for place in shown),
            skipped=tuple(pair for sample in samples for pair in sample.skipped),
            decoders=frozenset(samples[place].decoder for place in shown),
            seeds=tuple(samples[place].seed for place in shown),
        )


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
        share: says which of a batch's items, by their number, this process loads. Where it is set, a batch may be
            empty: as many come as in the other processes that load the rest.
        skipped: name -> every video that could not be decoded so far. In training another clip has taken its place, in
            testing it is missing from the batches.
        decoders: the libraries that have decoded so far.
    """

    def __init__(
        self,
        clips: Clips[Any],
        batch_size: int,
        drop_last: bool,
        pool: Decoders | None,
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
        self._first = 0
        self.share: Callable[[int], range] | None = None
        self.skipped: dict[str, Skipped] = {}
        self.decoders: set[str] = set()

    def __len__(self) -> int:
        """Batches an epoch; one of which nothing could be decoded is left out in iterating."""
        short = len(self._clips) % self._batch_size > 0 and not self._drop_last
        return len(self._clips) // self._batch_size + short

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Set the epoch that the next iteration shows, and its first batch. Test views are the same in all epochs."""
        self._epoch, self._first = epoch, first

    def __iter__(self) -> Iterator[Batch]:
        keys = self._clips.keys(self._epoch)
        chunks = [keys[i * self._batch_size : (i + 1) * self._batch_size] for i in range(self._first, len(self))]
        shared = self.share is not None
        if self.share is not None:
            chunks = [[chunk[place] for place in self.share(len(chunk))] for chunk in chunks]
        if self._pool is None:
            batches: Iterator[Batch] = map(self._read, chunks)
        else:
            batches = prefetched(self._pool, self._clips, chunks, self._pin)
        for batch in batches:
            self._count(batch)
            if len(batch) or shared:
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
            self.note_skipped(name, reason)
        self.decoders |= batch.decoders

    def note_skipped(self, name: str, reason: str) -> None:
        """Count a video that could not be decoded. Raises DataError where that is an error."""
        if self._strict:
            raise DataError(f"{name} cannot be read ({reason}): --strict allows no such video")
        before = self.skipped.get(name)
        self.skipped[name] = Skipped(reason, 1 + (before.times if before else 0))


def train_loader(
    clips: TrainClips,
    batch_size: int,
    pool: Decoders | None = None,
    strict: bool = False,
    pin_memory: bool | None = None,
) -> ClipLoader:
    """Batches of training clips, shuffled by (seed, epoch). A short last batch is dropped unless it is the only one:
    it would weigh its clips more than others.
    """
    return ClipLoader(clips, batch_size, True, pool, strict, pin_memory)


def eval_loader(
    clips: TestClips,
    batch_size: int,
    pool: Decoders | None = None,
    strict: bool = False,
    pin_memory: bool | None = None,
) -> ClipLoader:
    """Batches of `batch_size` videos with all their views, in the list's order, none left out."""
    return ClipLoader(clips, batch_size, False, pool, strict, pin_memory)


def prefetched(
    pool: Decoders, clips: Clips[Any], chunks: Sequence[Sequence[Any]], pin: bool
) -> Generator[Batch, None, None]:
    """The batches of each chunk's items, in order; a few are made ahead of what is taken.

    Which videos are known to be broken is settled at the start: what a clip shows must not follow from how soon, beside
    others, one turned out to be.

    Args:
        chunks: the keys of each batch.
        pin: as of `BatchBuffer`.

    Raises:
        What comes up in reading, in the place of the batch that it hits.
    """
    with closing(_Prefetcher(pool, clips, chunks, pin)) as prefetcher:
        yield from prefetcher


@dataclass(eq=False)
class _Item:
    """An item that is being read, and its index in a batch."""

    steps: Generator[Draw, Sample | str, Sample]
    buffer: BatchBuffer
    index: int


class _Prefetcher:
    """A thread that keeps the processes busy and puts what they read into batches."""

    def __init__(self, pool: Decoders, clips: Clips[Any], chunks: Sequence[Sequence[Any]], pin: bool) -> None:
        self._pool = pool
        self._clips = clips
        self._chunks = deque(chunks)
        self._pin = pin
        # one that the model is about to take, one that is being finished, and work for every process beyond
        self._ahead = 2 + math.ceil(2 * pool.count / max(1, *map(len, chunks)))
        self._taken = 0
        self._begun = 0
        self._broken = dict(pool.broken)
        self._items: dict[Task, _Item] = {}
        self._buffers: deque[BatchBuffer] = deque()
        self._done: SimpleQueue[Batch | BaseException | None] = SimpleQueue()
        self._stopped = False
        # a new thread's own choice would be the first GPU
        self._gpu = torch.cuda.current_device() if pin and torch.cuda.is_available() else None
        pool.attach(self.close)
        self._thread = threading.Thread(target=self._run, name="bench-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Batch]:
        while (batch := self._done.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            self._taken += 1
            self._pool.wake()
            yield batch

    def close(self) -> None:
        """End the thread; whoever iterates gets an error."""
        self._stopped = True
        self._pool.wake()
        self._thread.join()
        self._done.put(RuntimeError("the decoding processes were closed, or serve another loader now"))

    def _run(self) -> None:
        try:
            if self._gpu is not None:
                torch.cuda.set_device(self._gpu)
            while not self._stopped and (self._chunks or self._buffers):
                while self._chunks and self._begun - self._taken < self._ahead:
                    self._begin(self._chunks.popleft())
                while self._buffers and self._buffers[0].complete:
                    self._done.put(self._buffers.popleft().batch())
                if self._chunks or self._buffers:
                    for task, outcome in self._pool.outcomes():
                        if task in self._items:  # not one of another loader's, which it did not wait for
                            self._go_on(self._items.pop(task), outcome)
            if not self._stopped:
                self._done.put(None)
        except BaseException as error:
            self._done.put(error)

    def _begin(self, keys: Sequence[Any]) -> None:
        self._begun += 1
        buffer = BatchBuffer(len(keys), self._pin)
        self._buffers.append(buffer)
        for place, key in enumerate(keys):
            self._go_on(_Item(self._clips.item(key, self._broken), buffer, place), None)

    def _go_on(self, item: _Item, outcome: Sample | str | None) -> None:
        """Have the item's next try read, or put it into its batch."""
        try:
            draw = next(item.steps) if outcome is None else item.steps.send(outcome)
        except StopIteration as end:
            item.buffer.put(item.index, end.value)
            return
        task = Task(self._clips, draw, draw.video.path, partial(item.buffer.slot, item.index))
        self._items[task] = item
        self._pool.submit(task)
