"""A data set as a trial sees it: training and validation videos, none of the test's."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

from bench.data.dataset import DataError, Split, Video, VideoDataset
from bench.data.subset import subset

HELD_OUT = 0.2  # of the training videos of each class, where there are no validation videos beside the test's
_SEED = 2**31  # of the draw; no training has it


class TrialData:
    """View of a data set without its test videos.

    Where a validation video is a test video too, as where one list serves for both, a part of the training videos is
    held out in place of the validation: the same for all trials, whatever they train. A class of one video keeps it.

    Args:
        dataset: whose other attributes it has.

    Attributes:
        splits: those that there are.
    """

    splits: tuple[Split, ...] = ("train", "val")

    def __init__(self, dataset: VideoDataset) -> None:
        self._dataset = dataset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    @cached_property
    def held_out(self) -> tuple[Video, ...]:
        """The training videos that stand in for the validation; none where it has videos of its own.

        Raises:
            DataError: none can be held out, as each class has one.
        """
        tested = {video.path for video in self._dataset.videos("test")}
        if not any(video.path in tested for video in self._dataset.videos("val")):
            return ()
        videos = self._dataset.videos("train")
        labels = [video.label for video in videos]
        several = {label for label in set(labels) if labels.count(label) > 1}
        if not several:
            raise DataError(
                f"{self._dataset.name}: no recipe can be chosen, as validation videos are the test's and no class has "
                "two training videos; expected a validation list of its own"
            )
        return subset([video for video in videos if video.label in several], HELD_OUT, _SEED).videos

    def videos(self, split: Split) -> tuple[Video, ...]:
        """Return the videos of a split. Raises DataError, always of the test's."""
        if split == "test":
            raise DataError(f"{self._dataset.name}: a trial does not read the test videos")
        if not self.held_out:
            return self._dataset.videos(split)
        if split == "val":
            return self.held_out
        left = set(self.held_out)
        return tuple(video for video in self._dataset.videos("train") if video not in left)

    def fingerprint(self) -> str:
        """Return the hash of what trials see, as `VideoDataset.fingerprint`."""
        return VideoDataset.fingerprint(cast(VideoDataset, self))


def for_trials(dataset: VideoDataset) -> VideoDataset:
    """Return a data set as trials see it; one that is so already as it is."""
    return cast(VideoDataset, dataset if isinstance(dataset, TrialData) else TrialData(dataset))


def footnotes(dataset: VideoDataset) -> list[str]:
    """Note that recipes are chosen on training videos; nothing where there are validation videos for it.

    Args:
        dataset: itself, or as trials see it.
    """
    data = cast(TrialData, for_trials(dataset))
    if not data.held_out:
        return []
    count = len(data.held_out)
    return [
        f"recipe chosen on {count:,} of {count + len(data.videos('train')):,} training videos, held out by class: the "
        "validation videos are the test's"
    ]
