"""Readers as they cross from a cell to the decoding processes of all cells: their bytes, and what makes two alike.

A decoding process is told of readers with their tries, as cells come and go while it runs.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import secrets
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from bench.data.cache import FrameCache
from bench.data.decode.base import VideoError
from bench.data.decode_pool import without_videos
from bench.data.decode_worker import Reader, portable

_MOST = 64  # readers that a process remembers


@dataclass(frozen=True)
class Packed:
    """A reader without its list of videos.

    Attributes:
        digest: of readers whose tries give the same results the same one, in all processes.
        content: the pickle.
    """

    digest: bytes
    content: bytes


def packed(reader: Reader) -> Packed:
    """Pack a reader. Raises whatever keeps it from being sent to a process."""
    reader = without_videos(reader)
    content, canonical = pickle.dumps(reader), io.BytesIO()
    try:
        _Canonical(canonical).dump(reader)
    except Exception:  # of parts that refer to each other: its tries are no other reader's then
        return Packed(secrets.token_bytes(32), content)
    return Packed(hashlib.sha256(canonical.getvalue()).digest(), content)


class _Canonical(pickle.Pickler):
    """Pickler of equal bytes for equal objects, to be hashed and not to be read.

    A usual pickle refers to what it has seen before, which tells equal objects from the same object, and a tensor's
    holds its address.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.fast = True

    def reducer_override(self, found: Any) -> Any:
        import torch

        if isinstance(found, torch.Tensor):
            values = found.detach().cpu().contiguous()
            return _tensor, (str(found.dtype), tuple(found.shape), values.flatten().view(torch.uint8).numpy().tobytes())
        return NotImplemented


def _tensor(*_: Any) -> None:
    """Stand for a tensor in a pickle that nobody reads."""


@dataclass(frozen=True)
class Failure:
    """An error of the reading that no broken video explains."""

    error: Exception


@dataclass(eq=False)
class Relay:
    """Reader of the tries of any cell: (Packed, what its reader gets) -> its result, or a Failure."""

    _readers: dict[bytes, Reader] = field(default_factory=dict)
    _caches: dict[Hashable, FrameCache] = field(default_factory=dict)

    def read(self, task: tuple[Packed, Any]) -> Any:
        """Raises VideoError where the video is broken."""
        reader, value = task
        try:
            return self._reader(reader).read(value)
        except VideoError:
            raise
        except Exception as error:
            return Failure(portable(error))

    def _reader(self, wanted: Packed) -> Reader:
        if wanted.digest not in self._readers:
            reader: Any = pickle.loads(wanted.content)
            if isinstance(cache := getattr(reader, "cache", None), FrameCache):
                # the small videos that it holds in memory are there once
                reader.cache = self._caches.setdefault(cache.store, cache)
            while len(self._readers) >= _MOST:
                del self._readers[next(iter(self._readers))]
            self._readers[wanted.digest] = reader
        return self._readers[wanted.digest]
