"""Faults of a data set as it lies on the disk.

Three steps, each of which the next one needs: `source_problems` of what the user named, `examine` the lists (nothing is
decoded: it takes seconds), `examine_videos` by decoding each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from bench.data.dataset import SPLITS, DataError, Progress, Sampling, Split, Video, VideoDataset
from bench.data.decode_pool import Lost, run_isolated
from bench.data.files import missing
from bench.data.lists import STARTS_AT_1
from bench.spec.source import DataSource
from bench.text import counted

_SHOWN = 5
_CALLED: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Findings:
    """Findings about a data set, in sentences.

    Attributes:
        problems: with which nothing should be trained.
        notes: what a reader of the numbers must know.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]


def examine(
    dataset: VideoDataset,
    strict: bool = False,
    progress: Progress | None = None,
    splits: Sequence[Split] = SPLITS,
    files: bool = True,
) -> Findings:
    """Look at the lists of a data set that was prepared.

    Problems are lists that cannot be used (lines, labels, repeats), videos that stand in the training list and in
    another, and missing videos where they are half of a list or more. Fewer are a note, as copies of videos from the
    web are never whole: training does without them, and the test counts them as not evaluated. So is what
    `untrained_classes` tells.

    Args:
        strict: whether a single missing video or class is a problem.
        progress: called with (done, total) while files are looked for.
        splits: whose lists are needed.
        files: look for missing files too.
    """
    problems: list[str] = []
    notes: list[str] = []
    lists: dict[Split, tuple[Video, ...]] = {}
    for split in splits:
        try:
            lists[split] = dataset.videos(split)
        except DataError as error:
            problems.append(str(error))
    there = dict(lists)
    for split, videos in lists.items():
        if split == "val" and videos == lists.get("test"):
            continue
        gone = missing([video.path for video in videos], progress) if files else []
        if gone:
            too_many = 2 * len(gone) >= len(videos)
            if not too_many:
                there[split] = _without(videos, gone)
            (problems if too_many or strict else notes).append(
                _told_missing(dataset, split, [videos[i] for i in gone], len(videos))
            )
        if split != "train" and "train" in lists:
            shared = _shared(lists["train"], videos)
            if shared:
                problems.append(
                    f"{dataset.name}: {_videos(split, shared)} in the training list too "
                    f"({_first(shared)}): expected other ones"
                )
            elif cuts := _of_one_recording(dataset, lists["train"], videos):
                notes.append(
                    f"{dataset.name}: {_videos(split, cuts)} cut from recordings of training videos ({_first(cuts)})"
                )
    if len(lists) == len(splits):
        (problems if strict else notes).extend(untrained_classes(dataset, there))
    return Findings(tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes)))


def untrained_classes(dataset: VideoDataset, lists: Mapping[Split, Sequence[Video]]) -> list[str]:
    """Sentences on classes without a video to train on, and on videos of them in the other lists.

    Classes that are in no list are told as well, unless the data set is one of which partial copies are common.

    Args:
        lists: the videos that there are. The training list counts too where it is not among them; without one that can
            be read nothing is told.
    """
    if "train" not in lists:
        if "train" not in dataset.splits:
            return []
        try:
            lists = {"train": dataset.videos("train"), **lists}
        except DataError:
            return []
    classes = dataset.classes
    trained = {video.label for video in lists["train"]}
    told = []
    empty = [label for label in range(len(classes)) if label not in trained]
    if empty and not dataset.partial_copies:
        numbered = classes == tuple(map(str, range(len(classes))))
        lowest = min((video.label for videos in lists.values() for video in videos), default=0)
        asked = f"; {STARTS_AT_1}" if numbered and trained and lowest == 1 else ""
        have = "has" if len(empty) == 1 else "have"
        names = _first([classes[label] for label in empty])
        told.append(
            f"{dataset.name}: {len(empty):,} of {len(classes):,} classes {have} no training video ({names}){asked}"
        )
    for split, videos in lists.items():
        if split == "val" and videos == lists.get("test"):
            continue
        strange = [video.label for video in videos if video.label not in trained]
        if strange:
            unseen = [classes[label] for label in sorted(set(strange))]
            told.append(
                f"{dataset.name}: {len(strange):,} of {len(videos):,} {_CALLED[split]} videos are of {len(unseen):,} "
                f"class{'es' * (len(unseen) > 1)} without a training video ({_first(unseen)})"
            )
    return told


def present(videos: Sequence[Video]) -> tuple[Video, ...]:
    """Those of the videos that exist."""
    return _without(videos, missing([video.path for video in videos]))


def _without(videos: Sequence[Video], gone: Iterable[int]) -> tuple[Video, ...]:
    left_out = set(gone)
    return tuple(video for index, video in enumerate(videos) if index not in left_out)


def _told_missing(dataset: VideoDataset, split: Split, gone: Sequence[Video], listed: int) -> str:
    looked = ""
    if len(gone) == listed:
        looked = f"; the first was looked for at {gone[0].path}"
    are = "is" if len(gone) == 1 else "are"
    names = _first([video.name for video in gone])
    return (
        f"{dataset.name}: {len(gone):,} of {counted(listed, f'{_CALLED[split]} video')} {are} missing ({names}){looked}"
    )


def _videos(split: Split, names: Sequence[str]) -> str:
    return f"{counted(len(names), f'{_CALLED[split]} video')} {'is' if len(names) == 1 else 'are'}"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _shared(train: Iterable[Video], others: Iterable[Video]) -> list[str]:
    known = {str(video.path) for video in train}
    return [video.name for video in others if str(video.path) in known]


def _of_one_recording(dataset: VideoDataset, train: Iterable[Video], others: Iterable[Video]) -> list[str]:
    known = {original for video in train if (original := dataset.original(video)) is not None}
    return [video.name for video in others if known and dataset.original(video) in known]


def source_problems(
    datasets: Sequence[VideoDataset], source: DataSource, splits: Sequence[Split] = SPLITS
) -> list[str]:
    """Return what of a source does not go with the data sets, or is missing to find them, in sentences.

    Args:
        splits: whose lists are needed.
    """
    homeless = [dataset.name for dataset in datasets if dataset.needs_source and source.empty]
    problems = []
    if homeless:
        problems.append(
            f"{', '.join(homeless)}: expected data_root (--data-root FOLDER), the folder of the videos"
            + (", or train_list and val_list" if any(d.takes == "lists" for d in datasets) else "")
        )
    if source.lists and len(datasets) > 1:
        problems.append(
            f"{', '.join(source.lists)}: a list is of one data set, and {len(datasets)} are asked for, expected one"
        )
    for dataset in datasets:
        if dataset.name in homeless:
            continue
        problems += [
            f"{name} is {str(path)!r}: {dataset.name} takes no lists, expected none"
            for name, path in source.files.items()
            if dataset.takes != "lists"
        ]
        if source.fold is not None and source.fold not in dataset.folds:
            known = f"one of {', '.join(map(str, dataset.folds))}" if dataset.folds else "none"
            problems.append(f"fold is {source.fold}: expected {known} with {dataset.name}")
        if source.labels_from and not dataset.takes_labels_from(splits):
            why = "has its official lists" if dataset.takes == "lists" else "takes no lists"
            problems.append(f"labels_from is {source.labels_from}: {dataset.name} {why}, expected 0")
        problems += dataset.missing_lists(splits)
    return problems


def too_many_clips(clips: int, dataset: VideoDataset) -> str | None:
    """The sentence on several clips where one covers the video; None where that is not so."""
    if clips == 1 or dataset.sampling != "uniform":
        return None
    return f"clips is {clips}: {dataset.name} is sampled over the whole video, one clip covers it, expected 1"


Fault = Literal["missing", "broken", "mislabelled", "short"]
FAULTS: tuple[Fault, ...] = ("missing", "broken", "mislabelled", "short")


@dataclass(frozen=True)
class VideoFault:
    """A fault of a video; one may have several."""

    split: Split
    video: Video
    fault: Fault
    told: str


@dataclass(frozen=True)
class ClipSampling:
    """A test's way of taking frames: see `bench.data.sampling.test_indices`."""

    sampling: Sampling
    frames: int
    stride: int
    clips: int

    @property
    def needed(self) -> int:
        """Frames of a video in which no frame of a clip stands twice."""
        return self.frames if self.sampling == "uniform" else (self.frames - 1) * self.stride + 1


def decode(clip: ClipSampling, full: bool, listed: tuple[Split, Video]) -> tuple[int, str]:
    """Return how many frames a listed video has, and why it cannot be decoded; an empty text where it can.

    Args:
        full: decode all that a test would, not the first, middle and last frame alone.
    """
    from bench.data.decode.base import VideoError
    from bench.data.decode.open import open_video
    from bench.data.sampling import test_indices

    _, video = listed
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


def examine_videos(
    dataset: VideoDataset,
    splits: Sequence[Split],
    clip: ClipSampling,
    *,
    workers: int,
    timeout: float,
    full: bool = False,
    progress: Progress | None = None,
) -> Iterator[VideoFault]:
    """Yield the faults of the videos of some splits, as they are found. Splits that are one list are looked at once.

    Args:
        clip: what videos must be long enough for.
        workers: processes.
        timeout: seconds for a video, after which it counts as broken.
        full: see `decode`.
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
        yield VideoFault(split, video, "missing", f"there is no {video.path}")
    there = [one for index, one in enumerate(videos) if index not in gone]
    known = {_plain(name): name for name in dataset.classes}
    for split, video in there:
        folder = known.get(_plain(video.path.parent.name))
        if folder is not None and folder != dataset.classes[video.label]:
            told = f"its label is {video.label} ({dataset.classes[video.label]}), its folder {video.path.parent.name}"
            yield VideoFault(split, video, "mislabelled", told)
    decoded = _decoded(there, clip, workers, timeout, full)
    for done, (split, video, count, broken) in enumerate(decoded, start=1):
        if progress is not None:
            progress(done, len(there))
        if broken:
            yield VideoFault(split, video, "broken", broken)
        elif count < clip.needed:
            yield VideoFault(
                split, video, "short", f"{counted(count, 'frame')}, a clip needs {clip.needed}: it shows some twice"
            )


def _plain(name: str) -> str:
    """A class's name as a folder may spell it: letters and digits alone."""
    return re.sub(r"[\W_]+", "", name).lower()


def _decoded(
    videos: Sequence[tuple[Split, Video]], clip: ClipSampling, workers: int, limit: float, full: bool
) -> Iterator[tuple[Split, Video, int, str]]:
    """Each video with its number of frames and why it is broken, in the order in which they come back."""
    for (split, video), outcome in run_isolated(partial(decode, clip, full), videos, workers, limit):
        if isinstance(outcome, Lost):
            yield split, video, 0, str(outcome)
        elif isinstance(outcome, Exception):  # whatever a decoder makes of a strange file
            yield split, video, 0, " ".join(f"{type(outcome).__name__}: {outcome}".split())
        else:
            yield split, video, *outcome
