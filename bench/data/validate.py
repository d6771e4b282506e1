"""Check that a data set can be trained and tested on as it lies on the disk. Nothing is decoded: it takes seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.data.dataset import SPLITS, DataError, Progress, Split, Video, VideoDataset
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


def unfit(datasets: Sequence[VideoDataset], source: DataSource, splits: Sequence[Split] = SPLITS) -> list[str]:
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
        problems += dataset.lacking(splits)
    return problems


def too_many_clips(clips: int, dataset: VideoDataset) -> str | None:
    """The sentence on several clips where one covers the video; None where that is not so."""
    if clips == 1 or dataset.sampling != "uniform":
        return None
    return f"clips is {clips}: {dataset.name} is sampled over the whole video, one clip covers it, expected 1"
