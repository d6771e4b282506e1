"""Batches that decoding processes make while the model is busy with those before."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

import torch

from bench.data.batches import Batch, BatchBuffer
from bench.data.clips import Clips, Draw, Sample
from bench.data.decode_pool import DecodePool, Job


def prefetched(
    pool: DecodePool, clips: Clips[Any], chunks: Sequence[Sequence[Any]], pin: bool
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
    with closing(_Feeder(pool, clips, chunks, pin)) as feeder:
        yield from feeder


@dataclass(eq=False)
class _Item:
    """An item under way and where it belongs."""

    steps: Generator[Draw, Sample | str, Sample]
    buffer: BatchBuffer
    place: int


class _Feeder:
    """A thread that keeps the processes busy and puts what they read into batches."""

    def __init__(self, pool: DecodePool, clips: Clips[Any], chunks: Sequence[Sequence[Any]], pin: bool) -> None:
        self._pool = pool
        self._clips = clips
        self._chunks = deque(chunks)
        self._pin = pin
        # one that the model is about to take, one that is being finished, and work for every process beyond
        self._ahead = 2 + math.ceil(2 * pool.count / max(map(len, chunks)))
        self._taken = 0
        self._begun = 0
        self._broken = dict(pool.broken)
        self._items: dict[Job, _Item] = {}
        self._buffers: deque[BatchBuffer] = deque()
        self._done: SimpleQueue[Batch | BaseException | None] = SimpleQueue()
        self._stopped = False
        # a new thread's own choice would be the first GPU
        self._gpu = torch.cuda.current_device() if pin and torch.cuda.is_available() else None
        pool.taken_by(self.close)
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
        """End the thread; who still takes batches gets an error."""
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
                    for job, outcome in self._pool.outcomes():
                        if job in self._items:  # not one of another loader's, which it did not wait for
                            self._go_on(self._items.pop(job), outcome)
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
            item.buffer.put(item.place, end.value)
            return
        job = Job(self._clips, draw, partial(item.buffer.slot, item.place))
        self._items[job] = item
        self._pool.submit(job)
