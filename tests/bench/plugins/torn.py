"""A user's data set: lists of videos in a folder, nothing checked beforehand."""

from __future__ import annotations

from bench.data.dataset import DataError, Progress, Split, Video, VideoDataset, register_dataset
from bench.data.lists import read_list


@register_dataset("torn")
class Torn(VideoDataset):
    name = "torn"
    summary = "videos some of which are broken"
    size = "tiny"
    classes = ("dark", "bright")

    def prepare(self, progress: Progress | None = None) -> None:
        if self.root is None:
            raise DataError("torn needs a folder")

    def videos(self, split: Split) -> tuple[Video, ...]:
        assert self.root is not None
        return read_list(self.root / f"{split}.txt", self.root, 2)
