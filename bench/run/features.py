"""Features of a cell's videos: computed once by its frozen backbone, kept in the frame cache's place, trained on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from torch import Tensor

from adapters.frozen_pass import FrozenPass, KeptStates
from bench.data.cache.choose import disk_folder
from bench.data.clips import TestClips
from bench.data.dataset import DataError, Split
from bench.data.feature_file import FeatureFile, FeatureWriter, bytes_in, folder_of, lock_of
from bench.data.fixed_clips import FixedClips
from bench.data.loader import ClipLoader
from bench.data.transforms import normalise
from bench.measure.machine import device_name
from bench.run.context import WorkerContext
from bench.run.sharing import sources_of_pass
from bench.spec import Cell
from bench.text import byte_size
from bench.train.checkpoint import Preempted
from bench.train.compute import mixed
from bench.train.evaluate import Predictor

_FORMAT = 1  # of the files; another one where the same model would give other features
_PATIENCE = 0.5  # seconds between looks at a file that another process makes

FOOTNOTE = (
    "trained on features of one fixed clip a video, computed once (--cache-features); speed and memory are those of a "
    "training on clips"
)

Report = Callable[[dict[str, Any]], None]


class KeptFeatures:
    """Features of the videos of one split, in the list's order, as `KeptStates` of what the model reads.

    They are computed in batches of the list's order, so that they follow from the list alone and not from a training's
    seed. Cells that need the same ones wait for the one that computes them.

    Args:
        cell: what trains on them.
        predictor: of its model.
        clips: of the split: a fixed one of each training video, a validation's view.
        loader: of these, in the list's order.
        context: of the worker.
        identity: what the features depend on beside cell and model: the hash of the weights, of the data.
        report: gets progress, see `bench.run.cell.execute`.
    """

    def __init__(
        self,
        cell: Cell,
        predictor: Predictor,
        clips: FixedClips | TestClips,
        loader: ClipLoader,
        context: WorkerContext,
        identity: Mapping[str, str],
        split: Split,
        report: Report,
    ) -> None:
        self._predictor, self._loader, self._context, self._report = predictor, loader, context, report
        self._clips, self._videos = clips, tuple(clips.videos)
        model = predictor.model
        if model.frozen_reads is None:
            raise ValueError(f"{cell.method} does not go on from a frozen backbone's features")
        self._pass = FrozenPass(model.backbone, model.frozen_reads)
        store = context.cache.store
        self._store = store
        folder = folder_of(disk_folder() if store is None else store.folder, cell.dataset)
        parts = {
            "format": _FORMAT,
            "torch": torch.__version__,
            "device": device_name(str(context.device)),
            "split": split,
            "videos": [video.name for video in self._videos],
            "reads": list(self._pass.reads),
            "trial": cell.trial is not None,
            "stride": clips.stride,
            "sampling": clips.sampling,
            "sources": sources_of_pass(cell),
            **cell.model_dump(include={"backbone", "input_size", "frames", "precision", "decoder", "kernels"}),
            "cache_format": cell.cache_format,
            "batch_size": cell.recipe.batch_size,
            **identity,
        }
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
        self._path = folder / f"{split}-{key}.bin"
        self._file: FeatureFile | None = None

    @property
    def file(self) -> FeatureFile:
        """The features; computed where they are not there yet.

        Raises:
            DataError: there is no room for them, or not one video can be decoded.
            Preempted: the worker was stopped meanwhile.
            OSError: the disk is full.
        """
        if self._file is None:
            self._file = self._found() or self._made()
            for name, reason in self._file.skipped.items():
                if name not in self._loader.skipped:  # met by whoever computed them
                    self._loader.note_skipped(name, reason)
            self._loader.decoders |= self._file.decoders
        return self._file

    def _found(self) -> FeatureFile | None:
        try:
            return FeatureFile(self._path)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _made(self) -> FeatureFile:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_of(self._path)
        while True:
            try:
                lock.acquire(timeout=_PATIENCE)
                break
            except Timeout:
                self._heed_a_stop()
        try:
            return self._found() or self._computed()
        finally:
            lock.release()

    def _computed(self) -> FeatureFile:
        count = len(self._videos)
        row = 0
        skipped: dict[str, str] = {}
        decoders: set[str] = set()
        with FeatureWriter(self._path, count) as writer:
            done, reserved = 0, False
            for batch in self._loader:
                self._heed_a_stop()
                skipped |= dict(batch.skipped)
                decoders |= batch.decoders
                clips = batch.clips.flatten(0, 1) if batch.clips.ndim == 6 else batch.clips
                states = self._states(clips)
                if not reserved:
                    self._reserve(writer.expected_bytes(states))
                    reserved = True
                rows = []
                for name in batch.names:  # of the list, in its order, without those that could not be decoded
                    while self._videos[row].name != name:
                        row += 1
                    rows.append(row)
                    row += 1
                writer.write(rows, states)
                done += len(batch) + len(batch.skipped)
                self._report({"stage": "features", "done": done / count})
            if not reserved:
                raise DataError(f"not one of {count:,} videos could be decoded")
            writer.finish(skipped, sorted(decoders))
        return FeatureFile(self._path)

    def _heed_a_stop(self) -> None:
        if self._context.stopping.is_set():
            raise Preempted("stopped from outside before its features were computed")

    def _states(self, clips: Tensor) -> dict[str, Tensor]:
        """States of clips (B, T, 3, S, S) uint8, each (B, rows, ...) on the CPU."""
        predictor = self._predictor
        parts = predictor.in_parts(
            lambda: [self._some(part) for part in clips.split(predictor.micro_batch)], len(clips)
        )
        return {name: torch.cat([part[name] for part in parts]) for name in self._pass.reads}

    @torch.no_grad()
    def _some(self, clips: Tensor) -> dict[str, Tensor]:
        model, computation = self._predictor.model, self._predictor.computation
        model.eval()
        with mixed(computation.device, computation.precision):
            pixels = normalise(clips.to(computation.device), model.backbone.mean, model.backbone.std)
            states = self._pass(pixels)
        return {name: state.unflatten(0, (len(clips), -1)).cpu() for name, state in states.items()}

    def _reserve(self, count: int) -> None:
        folder = self._path.parent
        room = shutil.disk_usage(folder).free
        if self._store is not None:
            room = min(room, self._store.limit_bytes - self._store.used_bytes - bytes_in(self._store.folder))
        if count > room:
            raise DataError(
                f"the features of {len(self._videos):,} videos take {byte_size(count)}, and {folder} has room for "
                f"{byte_size(max(0, room))}: expected fewer --frames, another --cache or a larger --cache-limit, or "
                "no --cache-features"
            )

    def batch(self, rows: Sequence[int] | np.ndarray) -> KeptStates:
        """Return the states of some videos, by their place in the list."""
        found = self.file.read(rows)
        return KeptStates({name: each.flatten(0, 1) for name, each in found.items()}, len(rows))

    def training(self, steps: range, epoch: int, batch_size: int) -> Iterator[tuple[KeptStates, Tensor]]:
        """Batches of some steps of an epoch, as a training on clips has them: the same videos in the same order.

        Another video, drawn at random as there, takes the place of one that could not be decoded.
        """
        clips, there = self._clips, self.file.there
        assert isinstance(clips, FixedClips)
        order = clips.order(epoch)
        rows = [int(index) if there[index] else self._other(clips, (epoch, int(index))) for index in order]
        for step in steps:
            taken = rows[step * batch_size : (step + 1) * batch_size]
            yield self.batch(taken), self._labels(taken)

    def _other(self, clips: FixedClips, key: tuple[int, int]) -> int:
        for other in clips.others(key):
            if self.file.there[other]:
                return other
        first, why = next(iter(self.file.skipped.items()))
        raise DataError(f"no training clip: the videos cannot be decoded, the first of them {first} ({why})")

    def evaluation(self, batch_size: int) -> Iterator[tuple[KeptStates, Tensor, list[str]]]:
        """Batches of the videos that could be decoded, in the list's order, their labels and names."""
        rows = np.flatnonzero(self.file.there)
        for start in range(0, len(rows), batch_size):
            taken = rows[start : start + batch_size]
            yield self.batch(taken), self._labels(taken), [self._videos[row].name for row in taken]

    def _labels(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        return torch.tensor([self._videos[row].label for row in rows], dtype=torch.int64)
