"""Ranks: the processes that train one cell together, what they agree on, and the sums of their gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET = 32 * 2**20  # bytes that are summed at once: enough for a bus's full speed, and small beside a model

Value = TypeVar("Value")


class RankLost(RuntimeError):
    """Error of a rank whose companion has ended: the cause is the companion's own error."""


class RanksFailed(RuntimeError):
    """Error of a cell whose ranks ended before it was done; the message is that of the rank that failed first.

    Attributes:
        status: "failed" or "oom".
        line: the error with its type.
        traceback: of the rank.
    """

    def __init__(self, message: str, status: str, line: str, traceback: str = "") -> None:
        super().__init__(message)
        self.status, self.line, self.traceback = status, line, traceback


def share(count: int, rank: int, size: int) -> range:
    """Return the indices of a rank's share of `count` items in order.

    The shares follow one another as the ranks do, and differ by one item at most; the first ranks have more, the last
    ones none where there are fewer items than ranks.
    """
    least, more = divmod(count, size)
    start = rank * least + min(rank, more)
    return range(start, start + least + (rank < more))


@dataclass(frozen=True)
class Ranks:
    """This process among those of its cell; with the defaults the only one, and nothing travels.

    Every method but `share` is called by all ranks in the same order. They raise RankLost where one has ended.

    Attributes:
        rank: from 0; rank 0 writes the files.
        size: world size.
        seed: of the cell.
    """

    rank: int = 0
    size: int = 1
    seed: int = 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> range:
        """Return the indices of this rank's share of `count` items, see `share`."""
        return share(count, self.rank, self.size)

    def seed_generators(self, step: int) -> None:
        """Seed torch's generators for a step: dropout and drop path draw from (seed, step, rank).

        Nothing is left alone where there is one rank: its generators go on from step to step.
        """
        if not self.alone:
            rng = np.random.default_rng((3, self.seed, step, self.rank))
            torch.manual_seed(int(rng.integers(2**63)))

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on a rank."""
        if self.alone:
            return flag
        found = torch.tensor(int(flag))
        with _connected():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def gather(self, value: Value) -> list[Value]:
        """Return every rank's value, by rank."""
        if self.alone:
            return [value]
        found: list[Value] = [value] * self.size
        with _connected():
            dist.all_gather_object(found, value)
        return found

    def sum(self, tensors: Sequence[Tensor]) -> int:
        """Replace tensors by their sums over the ranks, in flat buckets.

        Returns:
            The bytes of what this rank gave to the sums.
        """
        if self.alone:
            return 0
        count = 0
        with _connected():
            for bucket in _buckets(tensors):
                flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
                dist.all_reduce(flat)
                count += flat.numel() * flat.element_size()
                parts = flat.split([tensor.numel() for tensor in bucket])
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))
        return count

    def with_previous(self, clips: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Put the clip before this rank's share in front of it; before a batch's first clip comes its last.

        Args:
            clips, labels: this rank's share of a batch, not empty.
            count: clips of the batch.
        """
        holders = min(count, self.size)  # ranks that have a share
        before, label = torch.empty_like(clips[-1:]), torch.empty_like(labels[-1:])
        if holders == 1:
            before, label = clips[-1:], labels[-1:]
        else:
            to, source = (self.rank + 1) % holders, (self.rank - 1) % holders
            with _connected():
                for mine, theirs in ((clips[-1:].contiguous(), before), (labels[-1:].contiguous(), label)):
                    exchange = [dist.P2POp(dist.isend, mine, to), dist.P2POp(dist.irecv, theirs, source)]
                    for work in dist.batch_isend_irecv(exchange):
                        work.wait()
        return torch.cat([before, clips]), torch.cat([label, labels])


ALONE = Ranks()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, in groups of one number format and of about `_BUCKET` bytes."""
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if bucket and (held + size > _BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += size
    if bucket:
        yield bucket


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Tell the errors of a lost connection from a rank's own."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo has no type of its own; torch's DistBackendError is one
        raise RankLost(f"the connection to another process of the cell is lost: {error}") from error
