"""`bench data check`: a whole data set looked at before anything is trained on it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from pydantic import Field

from backbones.registry import UnknownName
from bench.cli.options import Given, takes
from bench.cli.output import obstacles, tell, write
from bench.cli.progress import progress
from bench.data.dataset import DATASETS, SPLITS, DataError, Split, VideoDataset
from bench.errors import UserError
from bench.plugins import load as load_plugins
from bench.spec.fields import Flag, UserPath
from bench.spec.request import PluginOptions
from bench.spec.source import DataOptions
from bench.text import counted, indented, one_line

if TYPE_CHECKING:
    from bench.data.validate import VideoFault

_SHOWN = 20
_SPOILED = ("missing", "broken", "mislabelled")


class DataRequest(DataOptions, PluginOptions):
    """Fields of every request that looks at one data set."""

    dataset: Annotated[str, Flag(argument=True)] = Field(description="Name of the data set")
    split: Literal["train", "val", "test", "all"] = Field("all", description="List of it")

    @property
    def splits(self) -> tuple[Split, ...]:
        return SPLITS if self.split == "all" else (self.split,)


R = TypeVar("R", bound=DataRequest)


def opened(given: Given[R], problems: Sequence[str] = ()) -> tuple[R, VideoDataset]:
    """Return a request and its data set, which is not prepared yet.

    Args:
        problems: what else is wrong with the command.

    Raises UserError with all that is wrong, with `problems` too.
    """
    request, wrong = given.checked()
    wrong += problems
    if request is None:
        raise UserError(wrong)
    try:
        load_plugins(request.plugins)
    except UserError as error:
        wrong += error.problems
    wrong += request.missing()
    try:
        dataset = DATASETS.get(request.dataset)(None if wrong else request.source)
    except UnknownName as error:
        raise UserError([*wrong, str(error)]) from error
    if not wrong:
        from bench.data.validate import source_problems

        wrong = source_problems([dataset], request.source, request.splits)
    if wrong:
        raise UserError(wrong)
    return request, dataset


class CheckRequest(DataRequest):
    frames: Annotated[int | None, Flag(default="its own")] = Field(
        None, ge=1, description="Frames of a clip, for which videos must be long enough"
    )
    full: bool = Field(False, description="Decode all that a test would, not three frames a video")
    workers: Annotated[int | None, Flag(default="one a core")] = Field(None, ge=1, le=256, description="Processes")
    timeout: float = Field(60, ge=0.1, description="Seconds for a video")
    output: UserPath | None = Field(None, description="CSV file to which what is wrong is written too")


@takes(CheckRequest)
def check(given: Given[CheckRequest]) -> None:
    """Open and decode every video, and list what is missing, broken, mislabelled or too short, and the classes without
    a training video.

    Videos that are shorter than a clip are shown in a loop; they alone are not a failure. Exit code 1 where others are.
    """
    output = given.values.get("output")
    request, dataset = opened(given, obstacles("output", output) if output is not None else ())
    found, listed = _examined(dataset, request)
    untrained = _untrained(dataset, request.splits, found)
    if request.output is not None:
        write("output", request.output, _csv(found, untrained))
    _print(dataset, request.splits, listed, found, untrained)
    if untrained or any(fault.fault in _SPOILED for fault in found):
        raise typer.Exit(1)


def _examined(dataset: VideoDataset, request: CheckRequest) -> tuple[list[VideoFault], int]:
    """Return the faults, in the lists' order, and how many videos were looked at."""
    from bench.data.validate import FAULTS, ClipSampling, examine, examine_videos
    from bench.measure.machine import cores

    own, splits = dataset.defaults(), request.splits
    frames = request.frames or own.frames
    clip = ClipSampling(dataset.sampling, frames, own.stride(frames), own.views.clips)
    with progress() as show:
        try:
            dataset.prepare(partial(show, f"preparing {dataset.name}"))
            # missing files are listed one by one below
            if problems := examine(dataset, splits=splits, files=False).problems:
                raise UserError(problems)
            decoding = partial(show, f"decoding {dataset.name}")
            faults = examine_videos(
                dataset,
                splits,
                clip,
                workers=request.workers or cores(),
                timeout=request.timeout,
                full=request.full,
                progress=decoding,
            )
            found = list(faults)
            listed = {(s, v.name): i for s in splits for i, v in enumerate(dataset.videos(s))}
        except DataError as error:
            raise UserError([str(error)]) from error
    order = {split: index for index, split in enumerate(SPLITS)}
    found.sort(key=lambda f: (FAULTS.index(f.fault), order[f.split], listed[f.split, f.video.name]))
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

    counts = Counter(fault.fault for fault in found)
    names = {"short": "too short"}
    for note in dataset.notes():
        tell(note)
    for sentence in untrained:
        tell(sentence)
    for fault in found[:_SHOWN]:
        where = f"{fault.split} {one_line(fault.video.name)}"
        tell(f"{names.get(fault.fault, fault.fault)}: {where}: {indented(fault.told, 2)}")
    if len(found) > _SHOWN:
        tell(f"and {len(found) - _SHOWN:,} more; --output FILE.csv has them all")
    told = [f"{counts[kind]:,} {names.get(kind, kind)}" for kind in FAULTS if counts[kind]]
    told += ["classes without a training video"] * bool(untrained)
    tell(f"{dataset.name} {', '.join(splits)}: {counted(listed, 'video')}, {', '.join(told) or 'nothing wrong'}")
