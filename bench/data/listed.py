"""`list`: a user's own videos, by lists."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from bench.data.annotated import AnnotatedDataset, Names
from bench.data.base import DataError, Sampling, register_dataset
from bench.data.class_names import read_class_names


@register_dataset("list")
class Listed(AnnotatedDataset):
    """Videos of a training and a validation list, in any format of `bench.data.entries`.

    Labels are numbers, of which the training list's largest tells how many classes there are, or names, of which the
    training list's tell which ones there are, in the alphabet's order. A file of class names goes before both.
    """

    name = "list"
    summary = "your own: --train-list and --val-list with lines of path and label"
    sampling: Sampling = "uniform"
    clips = 1
    crops: Literal[1, 3] = 1

    @property
    def _nameless(self) -> bool:
        return False  # the training list tells them

    @cached_property
    def classes(self) -> Names:
        if self.source.class_names is not None:
            return read_class_names(self.source.class_names)
        labels = {entry.label for entry in self.entries("train")}
        names = sorted(label for label in labels if isinstance(label, str))
        numbers = [label for label in labels if isinstance(label, int)]
        if len(names or range(max(numbers, default=0) + 1)) < 2:
            raise DataError(f"{self.file('train')}: all videos have the same label: expected two classes or more")
        return tuple(names or map(str, range(max(numbers) + 1)))
