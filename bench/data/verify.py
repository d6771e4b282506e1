"""Every video of a data set opened and decoded, in processes that may crash or hang without stopping the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from bench.data.dataset import Progress, Sampling, Split, Video, VideoDataset
from bench.data.files import missing
from bench.data.isolated import apart, why_lost
from bench.text import counted

Fault = Literal["missing", "broken", "mislabelled", "short"]
FAULTS: tuple[Fault, ...] = ("missing", "broken", "mislabelled", "short")


@dataclass(frozen=True)
class Finding:
    """A fault of a video; one may have several."""

    split: Split
    video: Video
    fault: Fault
    told: str


@dataclass(frozen=True)
class Clip:
    """A test's way of taking frames: see `bench.data.sampling.test_indices`."""

    sampling: Sampling
    frames: int
    stride: int
    clips: int

    @property
    def needed(self) -> int:
        """Frames of a video in which no frame of a clip stands twice."""
        return self.frames if self.sampling == "uniform" else (self.frames - 1) * self.stride + 1


def look(video: Video, clip: Clip, full: bool) -> tuple[int, str]:
    """Return how many frames a video has, and why it cannot be decoded; an empty text where it can.

    Args:
        full: decode all that a test would, not the first, middle and last frame alone.
    """
    from bench.data.decode.base import VideoError
    from bench.data.decode.open import open_video
    from bench.data.sampling import test_indices

    try:
        reader = open_video(video.path, frames=video.frames)
        try:
            count = len(reader)
            tested = test_indices(clip.sampling, count, clip.frames, clip.stride, clip.clips).reshape(-1)
            reader.frames(tested if full else [0, count // 2, count - 1])
        finally:
            reader.close()
    except VideoError as error:
        return 0, error.reason
    return count, ""


def verify(
    dataset: VideoDataset,
    splits: Sequence[Split],
    clip: Clip,
    *,
    workers: int,
    timeout: float,
    full: bool = False,
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Yield the faults of the videos of some splits, as they are found. Splits that are one list are looked at once.

    Args:
        clip: what videos must be long enough for.
        workers: processes.
        timeout: seconds for a video, after which it counts as broken.
        full: see `look`.
        progress: called with (done, total).

    Raises DataError where a list cannot be used.
    """
    listed = {split: dataset.videos(split) for split in splits}
    if "test" in listed and listed["test"] == listed.get("val"):
        del listed["test"]
    videos = [(split, video) for split, found in listed.items() for video in found]
    gone = set(missing([video.path for _, video in videos]))
    for index in sorted(gone):
        split, video = videos[index]
        yield Finding(split, video, "missing", f"there is no {video.path}")
    there = [one for index, one in enumerate(videos) if index not in gone]
    known = {_plain(name): name for name in dataset.classes}
    for split, video in there:
        folder = known.get(_plain(video.path.parent.name))
        if folder is not None and folder != dataset.classes[video.label]:
            told = f"its label is {video.label} ({dataset.classes[video.label]}), its folder {video.path.parent.name}"
            yield Finding(split, video, "mislabelled", told)
    looks = _looked_at(there, clip, workers, timeout, full)
    for done, (split, video, count, broken) in enumerate(looks, start=1):
        if progress is not None:
            progress(done, len(there))
        if broken:
            yield Finding(split, video, "broken", broken)
        elif count < clip.needed:
            yield Finding(
                split, video, "short", f"{counted(count, 'frame')}, a clip needs {clip.needed}: it shows some twice"
            )


def _plain(name: str) -> str:
    """A class's name as a folder may spell it: letters and digits alone."""
    return re.sub(r"[\W_]+", "", name).lower()


def _looked_at(
    videos: Sequence[tuple[Split, Video]], clip: Clip, workers: int, timeout: float, full: bool
) -> Iterator[tuple[Split, Video, int, str]]:
    """Each video with its number of frames and why it is broken, in the order in which they come back."""
    call = partial(_look_at, look, clip, full)
    for (split, video), future in apart(call, videos, workers, timeout):
        try:
            count, broken = future.result()
        except Exception as error:  # whatever a decoder makes of a strange file
            count, broken = 0, why_lost(error, timeout) or " ".join(f"{type(error).__name__}: {error}".split())
        yield split, video, count, broken


def _look_at(
    look: Callable[[Video, Clip, bool], tuple[int, str]], clip: Clip, full: bool, one: tuple[Split, Video]
) -> tuple[int, str]:
    return look(one[1], clip, full)
