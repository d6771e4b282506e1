"""The videos that a cell or an evaluation could not read: as footnotes, and as skipped.csv."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from bench.data.dataset import Split
from bench.files import write_text
from bench.spec import FrozenModel
from bench.text import counted

FILE = "skipped.csv"
_NAMED = 3  # in a footnote


class SkippedVideo(FrozenModel):
    """A video that could not be read."""

    name: str
    split: Split
    reason: str
    times: int = Field(description="how often that was met: once a clip in training, once an evaluation else")


def footnotes(skipped: Sequence[SkippedVideo], listed: int, evaluated: Split = "test") -> list[str]:
    """Return what the reader of a table must know of skipped videos.

    Args:
        listed: videos of the split whose accuracy is told.
        evaluated: that split.
    """
    notes = []
    of = {split: [video for video in skipped if video.split == split] for split in ("train", "val", "test")}
    if lost := of.pop(evaluated):
        kind = "test" if evaluated == "test" else "validation"
        notes.append(
            f"{len(lost)} of {counted(listed, f'{kind} video')} could not be read: accuracy is over the other "
            f"{listed - len(lost)} ({_names(lost)})"
        )
    if lost := of.pop("train", []):
        times = counted(sum(video.times for video in lost), "time")
        videos = counted(len(lost), "training video")
        notes.append(f"{videos} could not be read, other clips took their places ({times}; {_names(lost)})")
    if lost := of.pop("val", []):
        notes.append(f"{counted(len(lost), 'validation video')} could not be read and left out ({_names(lost)})")
    return notes


def _names(videos: Sequence[SkippedVideo]) -> str:
    more = len(videos) - _NAMED
    return ", ".join(video.name for video in videos[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def write_skipped(folder: Path, skipped: Sequence[SkippedVideo]) -> None:
    """skipped.csv in a cell's folder; none where nothing was skipped, not even an earlier one. Raises OSError."""
    if not skipped:
        with contextlib.suppress(FileNotFoundError):
            (folder / FILE).unlink()
        return
    import pandas as pd

    table = pd.DataFrame([video.model_dump() for video in skipped], columns=list(SkippedVideo.model_fields))
    write_text(folder / FILE, table.to_csv(index=False, lineterminator="\n"))
