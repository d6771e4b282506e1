"""`list`: a user's own videos, by lists."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from bench.data.annotations import read_class_names
from bench.data.catalog.annotated import AnnotatedDataset, Names
from bench.data.dataset import DataError, Sampling, register_dataset

_LARGEST = 1_000_000  # label; one beyond it is another column's number, and each class takes memory


@register_dataset("list")
class Listed(AnnotatedDataset):
    """Videos of a training and a validation list, in any format of `bench.data.lists`.

    Labels are numbers, of which the training list's largest tells how many classes there are, or names, of which the
    training list's tell which ones there are, in the alphabet's order. A file of class names goes before both. Classes
    without a name are called by the number that the lists have for them.
    """

    name = "list"
    summary = "your own: --train-list and --val-list with lines of path and label"
    sampling: Sampling = "uniform"
    clips = 1
    crops: Literal[1, 3] = 1
    partial_copies = False

    @property
    def _nameless(self) -> bool:
        return False  # the training list tells them

    def _counted_by(self) -> str:
        return super()._counted_by() or (
            f"{self.file('train')} has {len(self.classes)} classes, by its largest label: a file of class names "
            "(--class-names FILE) can name more"
        )

    @cached_property
    def classes(self) -> Names:
        if self.source.class_names is not None:
            return read_class_names(self.source.class_names)
        labels = {entry.label for entry in self.entries("train")}
        if len(labels) < 2:
            raise DataError(f"{self.file('train')}: all videos have the same label: expected two classes or more")
        names = sorted(label for label in labels if isinstance(label, str))
        numbers = [label for label in labels if isinstance(label, int)]
        if numbers and max(numbers) > _LARGEST:
            raise DataError(f"{self.file('train')}: a label is {max(numbers)}: expected at most {_LARGEST:,}")
        return tuple(names or map(str, range(self.source.labels_from, max(numbers) + 1)))
