"""Batches of clips, filled place by place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.data.clips import Sample


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
