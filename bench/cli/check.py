"""`bench data check`: a whole data set looked at before anything is trained on it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backbones.registry import UnknownName
from bench.cli.choices import not_among
from bench.cli.output import obstacles, tell, write
from bench.cli.progress import progress
from bench.cli.where import ClassNames, DataRoot, Fold, LabelsFrom, TestList, TrainList, ValList, source
from bench.data.dataset import DATASETS, SPLITS, DataError, Split, VideoDataset
from bench.errors import UserError
from bench.plugins import load as load_plugins
from bench.spec.source import DataSource
from bench.text import counted, indented, one_line

if TYPE_CHECKING:
    from bench.data.validate import VideoFault

_SHOWN = 20
_SPOILED = ("missing", "broken", "mislabelled")


def named(name: str, where: DataSource, splits: Sequence[Split], problems: list[str]) -> VideoDataset | None:
    """The data set of a name; None, and sentences, where there is none or its lists are not found."""
    from bench.data.validate import source_problems

    try:
        dataset = DATASETS.get(name)(where)
    except UnknownName as error:
        problems.append(str(error))
        return None
    if not problems:
        problems += source_problems([dataset], where, splits)
    return dataset


def check(
    dataset: Annotated[str, typer.Argument(help="Name of the data set.")],
    split: Annotated[
        str, typer.Option(help=f"Which of its lists: {', '.join(SPLITS)} or all.", metavar="SPLIT")
    ] = "all",
    frames: Annotated[
        int | None,
        typer.Option(help="Frames of a clip, for which videos must be long enough. [default: its own]", min=1),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Decode all that a test would, not three frames a video.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes. [default: one a core]", min=1, max=256)] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for a video.", min=0.1)] = 60,
    output: Annotated[Path | None, typer.Option(help="Also write what is wrong to this CSV file.")] = None,
    data_root: DataRoot = None,
    train_list: TrainList = None,
    val_list: ValList = None,
    test_list: TestList = None,
    class_names: ClassNames = None,
    fold: Fold = None,
    labels_from: LabelsFrom = None,
    plugin: Annotated[
        list[str] | None, typer.Option(help="A Python file or module that registers more data sets. Repeatable.")
    ] = None,
) -> None:
    """Open and decode every video, and list what is missing, broken, mislabelled or too short, and the classes without
    a training video.

    Videos that are shorter than a clip are shown in a loop; they alone are not a failure. Exit code 1 where others are.
    """
    problems = not_among("split", split, ("all", *SPLITS))
    if output is not None:
        problems += obstacles("output", output)
    try:
        load_plugins(plugin or ())
    except UserError as error:
        problems += error.problems
    where = source(data_root, train_list, val_list, test_list, class_names, fold, labels_from, problems)
    splits: Sequence[Split] = (split,) if split in SPLITS else SPLITS
    chosen = named(dataset, where, splits, problems)
    if problems or chosen is None:
        raise UserError(problems)
    found, listed = _looked_at(chosen, splits, frames or chosen.defaults().frames, workers, timeout, full)
    untrained = _untrained(chosen, splits, found)
    if output is not None:
        write("output", output, _csv(found, untrained))
    _print(chosen, splits, listed, found, untrained)
    if untrained or any(finding.fault in _SPOILED for finding in found):
        raise typer.Exit(1)


def _looked_at(
    dataset: VideoDataset, splits: Sequence[Split], frames: int, workers: int | None, timeout: float, full: bool
) -> tuple[list[VideoFault], int]:
    """Return the faults, in the lists' order, and how many videos were looked at."""
    from bench.data.validate import FAULTS, ClipSampling, examine, examine_videos
    from bench.measure.machine import cores

    own = dataset.defaults()
    clip = ClipSampling(dataset.sampling, frames, own.stride(frames), own.views.clips)
    with progress() as show:
        try:
            dataset.prepare(partial(show, f"preparing {dataset.name}"))
            # missing files are listed one by one below
            if problems := examine(dataset, splits=splits, files=False).problems:
                raise UserError(problems)
            decoding = partial(show, f"decoding {dataset.name}")
            looking = examine_videos(
                dataset, splits, clip, workers=workers or cores(), timeout=timeout, full=full, progress=decoding
            )
            found = list(looking)
            places = {(s, v.name): i for s in splits for i, v in enumerate(dataset.videos(s))}
        except DataError as error:
            raise UserError([str(error)]) from error
    order = {split: index for index, split in enumerate(SPLITS)}
    found.sort(key=lambda f: (FAULTS.index(f.fault), order[f.split], places[f.split, f.video.name]))
    return found, len({video.path for split in splits for video in dataset.videos(split)})


def _untrained(dataset: VideoDataset, splits: Sequence[Split], found: Sequence[VideoFault]) -> list[str]:
    """Sentences on the classes without a training video that can be decoded."""
    from bench.data.validate import untrained_classes

    lost = {(one.split, one.video) for one in found if one.fault in ("missing", "broken")}
    lists = {split: [one for one in dataset.videos(split) if (split, one) not in lost] for split in splits}
    return untrained_classes(dataset, lists)


def _csv(found: Sequence[VideoFault], untrained: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("split", "video", "label", "fault", "told", "path"))
    writer.writerows((f.split, f.video.name, f.video.label, f.fault, one_line(f.told), f.video.path) for f in found)
    writer.writerows(("train", "", "", "untrained", one_line(sentence), "") for sentence in untrained)
    return text.getvalue()


def _print(
    dataset: VideoDataset, splits: Sequence[Split], listed: int, found: Sequence[VideoFault], untrained: Sequence[str]
) -> None:
    from bench.data.validate import FAULTS

    counts = Counter(finding.fault for finding in found)
    names = {"short": "too short"}
    for note in dataset.notes():
        tell(note)
    for sentence in untrained:
        tell(sentence)
    for finding in found[:_SHOWN]:
        where = f"{finding.split} {one_line(finding.video.name)}"
        tell(f"{names.get(finding.fault, finding.fault)}: {where}: {indented(finding.told, 2)}")
    if len(found) > _SHOWN:
        tell(f"and {len(found) - _SHOWN:,} more; --output FILE.csv has them all")
    told = [f"{counts[fault]:,} {names.get(fault, fault)}" for fault in FAULTS if counts[fault]]
    told += ["classes without a training video"] * bool(untrained)
    tell(f"{dataset.name} {', '.join(splits)}: {counted(listed, 'video')}, {', '.join(told) or 'nothing wrong'}")
