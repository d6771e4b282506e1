"""Features of the videos of a list, kept in a file: a record of fixed length for each video."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from bench.files import write_text

_FOLDER = "features"


def folder_of(cache: Path, dataset: str) -> Path:
    """The folder of a data set's features below that of a frame cache."""
    return cache / _FOLDER / dataset


def bytes_in(cache: Path) -> int:
    """Bytes of all features below the folder of a frame cache."""
    return sum(map(_size, (cache / _FOLDER).glob("*/*.bin")))


def forget(cache: Path, dataset: str) -> int:
    """Remove a data set's features, but for those that a run computes just now. Returns their bytes; raises OSError."""
    folder = folder_of(cache, dataset)
    parts = {folder / part.name[1:].rsplit(".", 2)[0] for part in folder.glob(".*.tmp")}
    freed = 0
    for path in sorted(parts.union(folder.glob("*.bin"))):
        lock = lock_of(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            freed += _size(path)
            for file in (about_file(path), path, *folder.glob(f".{path.name}.*.tmp")):
                file.unlink(missing_ok=True)
        finally:
            lock.release()
    return freed


def lock_of(path: Path) -> FileLock:
    """Return the lock of whoever computes a file of features."""
    return FileLock(f"{path}.lock")


def _size(file: Path) -> int:
    """Bytes of a file that another process may remove."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class Layout:
    """Layout of a record: tensors by name, one behind the other.

    Attributes:
        shapes: of a video's part of each.
        dtypes: as torch names them, such as "bfloat16".
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    @classmethod
    def of(cls, features: Mapping[str, Tensor]) -> Layout:
        """Return the layout of tensors (V, ...) of V videos."""
        shapes = {name: tuple(each.shape[1:]) for name, each in features.items()}
        return cls(shapes, {name: str(each.dtype).removeprefix("torch.") for name, each in features.items()})

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a tensor. Raises ValueError where the file names none."""
        found = getattr(torch, self.dtypes[name], None)
        if not isinstance(found, torch.dtype):
            raise ValueError(f"{self.dtypes[name]!r} is not a number format")
        return found

    def parts(self) -> Iterator[tuple[str, slice]]:
        """Yield each name and the bytes of a record that it takes."""
        start = 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape, dtype=np.int64)) * self.dtype(name).itemsize
            yield name, slice(start, start + size)
            start += size

    @property
    def nbytes(self) -> int:
        """Bytes of a record."""
        return max((part.stop for _, part in self.parts()), default=0)


class FeatureFile:
    """Features that were kept, of V videos.

    Args:
        path: of the records; what they are lies beside it, in a file of the suffix .json.

    Attributes:
        there: for each video of the list whether its features are there; others could not be decoded.
        skipped: name -> reason of those.
        decoders: the libraries that decoded the others.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is not there, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        about = json.loads(about_file(path).read_text(encoding="utf-8"))
        shapes = {name: tuple(map(int, shape)) for name, shape in about["shapes"].items()}
        self.layout = Layout(shapes, about["dtypes"])
        self.there = np.asarray(about["there"], dtype=bool)
        self.skipped: dict[str, str] = dict(about["skipped"])
        self.decoders = frozenset(about["decoders"])
        expected = len(self.there) * self.layout.nbytes
        if not expected or path.stat().st_size != expected:
            raise ValueError(f"{path} has {path.stat().st_size} bytes, expected {expected}")
        self._records = np.memmap(path, np.uint8, "r", shape=(len(self.there), self.layout.nbytes))

    def __len__(self) -> int:
        return len(self.there)

    def read(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return the features of some videos, by their place in the list: name -> (rows, ...)."""
        records = torch.from_numpy(self._records[np.asarray(rows, dtype=np.int64)])
        return {
            name: records[:, part]
            .clone(memory_format=torch.contiguous_format)
            .view(self.layout.dtype(name))
            .view(len(records), *shape)
            for (name, part), shape in zip(self.layout.parts(), self.layout.shapes.values(), strict=True)
        }


def about_file(path: Path) -> Path:
    """Return the file that says what a file of records holds."""
    return path.with_suffix(".json")


class FeatureWriter:
    """Writer of a file that is there once it is whole, and not before; a context manager. One at a time: the parts of
    one that was killed are removed.

    Args:
        path: of the records, see FeatureFile. Its folder is made.
        videos: V, of the list.
    """

    def __init__(self, path: Path, videos: int) -> None:
        self._path = path
        self._there = np.zeros(videos, dtype=bool)
        self._layout: Layout | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            left.unlink(missing_ok=True)
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        self._file: Any = self._temporary.open("xb")

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def expected_bytes(self, features: Mapping[str, Tensor]) -> int:
        """Return the size of the whole file, whose records are like these (V, ...)."""
        return len(self._there) * Layout.of(features).nbytes

    def write(self, rows: Sequence[int], features: Mapping[str, Tensor]) -> None:
        """Write the features (rows, ...) of some videos. Raises OSError; ValueError where records differ."""
        layout = Layout.of(features)
        if self._layout is None:
            self._layout = layout
        if layout != self._layout:
            raise ValueError(f"features of {layout} among those of {self._layout}")
        records = torch.cat(
            [
                each.detach().cpu().contiguous().flatten(1).view(torch.uint8).reshape(len(rows), -1)
                for each in features.values()
            ],
            dim=1,
        ).numpy()
        for row, record in zip(rows, records, strict=True):
            self._file.seek(row * layout.nbytes)
            self._file.write(record.data)
            self._there[row] = True

    def finish(self, skipped: Mapping[str, str], decoders: Sequence[str]) -> None:
        """Put the file in its place.

        Args:
            skipped: name -> reason of the videos that could not be decoded.
            decoders: the libraries that decoded the others.

        Raises:
            OSError: the disk is full. ValueError: nothing was written.
        """
        if self._layout is None:
            raise ValueError("no video has features")
        self._file.truncate(len(self._there) * self._layout.nbytes)
        self._file.close()
        os.replace(self._temporary, self._path)
        about = {
            "shapes": dict(self._layout.shapes),
            "dtypes": dict(self._layout.dtypes),
            "there": self._there.tolist(),
            "skipped": dict(skipped),
            "decoders": sorted(decoders),
        }
        write_text(about_file(self._path), json.dumps(about))
