"""`bench data prepare`: decode a data set once for all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field

from bench.cli.check import DataRequest, opened
from bench.cli.options import Given, takes
from bench.cli.output import tell
from bench.cli.progress import progress
from bench.data.dataset import DataError, Split, VideoDataset
from bench.errors import UserError
from bench.files import reason
from bench.spec.fields import CacheLimit, Flag, InputSize
from bench.text import byte_size, counted, one_line

if TYPE_CHECKING:
    from bench.data.cache.entry import Format
    from bench.data.cache.store import FolderStore
    from bench.run.preparation import TaskOptions
    from bench.run.preparation_task import Tally

_INPUT_SIZE = 224  # pixels; of most models
_NAMED = 5  # broken videos that are told by name


class PrepareRequest(DataRequest):
    short_side: Annotated[
        int | None,
        Flag(default="what models of --input-size are shown, 256 for 224; of the embedded data set its own frames"),
    ] = Field(None, ge=16, description="Pixels of the frames' shorter side at most")
    input_size: Annotated[InputSize, Flag(metavar="PIXELS", default="224")] = Field(
        None, description="Side of the models' frames in pixels"
    )
    cache_format: Literal["raw", "jpeg"] = Field("raw", description="raw, or jpeg: smaller, but other pixels")
    cache_limit: Annotated[CacheLimit, Flag(metavar="SIZE", default="what is free")] = Field(
        None, description="Size of the cache at most, such as 200GB"
    )
    workers: Annotated[int | None, Flag(default="one a core")] = Field(
        None, ge=1, description="Decoding processes, of each task"
    )
    engine: Literal["local", "ray", "slurm"] = Field(
        "local",
        description="What executes the tasks: local, processes of this machine; ray, a Ray cluster; slurm, jobs of a "
        "Slurm cluster",
    )
    tasks: int = Field(1, ge=1, le=10_000, description="Tasks that decode a share of the videos each")
    ray_address: Annotated[str | None, Flag(metavar="HOST:PORT", default="$RAY_ADDRESS, else local")] = Field(
        None, description="Ray cluster, as of `bench run`"
    )
    slurm: dict[str, Any] = Field(
        default_factory=dict,
        description="Of --engine slurm: what its jobs ask for, such as partition=cpu,time=720,cpus_per_task=16",
    )
    clear: Annotated[bool, Flag(one_way=True, default="")] = Field(
        False,
        description="Remove the data set's frames, of every size and format, and all its kept features from the cache "
        "instead",
    )


@takes(PrepareRequest)
def prepare(given: Given[PrepareRequest]) -> None:
    """Decode a data set into the cache on the disk, from which `bench run` and `bench eval` read it.

    What lies there already is not decoded again: the same command goes on where it was stopped. With several tasks, on
    this machine or on a cluster's, each decodes its share; all of them must see the cache's folder (AIM_BENCH_CACHE).
    """
    size, side = given.values.get("input_size"), given.values.get("short_side")
    both = f"input_size is {size} beside a short_side of {side}: expected one of the two"
    wrong = [both] if size is not None and side is not None else []
    wrong += _unused(given)
    tasks = _tasks(given, wrong)
    request, dataset = opened(given, wrong)

    from bench.data import feature_file
    from bench.data.cache.choose import CacheFolders
    from bench.data.cache.store import FolderStore
    from bench.data.clips import decoded_side
    from bench.data.validate import untrained_classes
    from bench.measure.machine import cores
    from bench.run.preparation import clear_left

    short_side = request.short_side or decoded_side(dataset, request.input_size or _INPUT_SIZE)
    # a cluster that takes the machine back asks by SIGTERM: same as Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with CacheFolders() as folders:
            paths = _paths(dataset, request.splits)
            try:
                folder = folders.disk()
                FolderStore(folder, 0).prepare()
                clear_left(FolderStore(folder, 0))
                if request.clear:
                    gone, freed = FolderStore(folder, 0).forget(paths)
                    tell(f"removed {counted(gone, 'video')} of {dataset.name}, {byte_size(freed)}, from {folder}")
                    if features := feature_file.forget(folder, dataset.name):
                        tell(f"removed its features, {byte_size(features)}")
                    return
                store = _store(folder, request.cache_limit, request.cache_format, paths, short_side)
            except OSError as error:
                raise UserError([f"the cache cannot be written ({reason(error)})"]) from error
            for told in untrained_classes(dataset, {one: dataset.videos(one) for one in request.splits}):
                tell(told, err=True)
            if tasks is None:
                tally = _filled(store, dataset.name, paths, short_side, request.workers or cores())
                failures: list[str] = []
            else:
                tally, failures = _filled_by_tasks(store, dataset.name, paths, short_side, tasks)
    except KeyboardInterrupt:
        tell("interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None
    _tell(store, dataset.name, tally, len(paths))
    for failure in failures:
        tell(one_line(failure), err=True)
    if failures:
        tell("the same command goes on with what is left", err=True)
    if failures or tally.done == len(tally.broken):
        raise typer.Exit(1)


# fields that say how frames are decoded and kept, which is nothing to their removal
_OF_DECODING = ("short_side", "input_size", "cache_format", "cache_limit")
_OF_TASKS = ("workers", "engine", "tasks", "ray_address", "slurm")


def _unused(given: Given[PrepareRequest]) -> list[str]:
    """The sentences on fields beside `clear` that it has no use for."""
    if not given.values.get("clear"):
        return []
    named = ((name, given.values[name]) for name in (*_OF_DECODING, *_OF_TASKS) if name in given.values)
    return [f"{name} is {value!r}: clear has no use for it, expected one of the two" for name, value in named]


def _tasks(given: Given[PrepareRequest], problems: list[str]) -> TaskOptions | None:
    """The options of the tasks; None where this process does it all. What is wrong with them is told in `problems`."""
    request, _ = given.checked()
    if request is None or (
        (request.engine, request.tasks) == ("local", 1) and not (request.slurm or request.ray_address)
    ):
        return None
    from bench.data.cache.choose import disk_folder
    from bench.run.preparation import TaskOptions
    from bench.run.preparation import problems as of_tasks

    options = TaskOptions(request.engine, request.tasks, request.workers, request.slurm, request.ray_address)
    problems += of_tasks(options, disk_folder())
    return options


def _paths(dataset: VideoDataset, splits: Sequence[Split]) -> list[Path]:
    """The files of some lists, each once. Raises UserError."""
    try:
        with progress() as show:
            dataset.prepare(partial(show, f"preparing {dataset.name}"))
        paths = dict.fromkeys(video.path for split in splits for video in dataset.videos(split))
    except DataError as error:
        raise UserError([str(error)]) from error
    if folders := sum(map(os.path.isdir, paths)):
        are = "is a folder" if folders == 1 else "are folders"
        tell(f"{counted(folders, 'video')} {are} of pictures, which need no cache", err=True)
    return [path for path in paths if not os.path.isdir(path)]


def _store(
    folder: Path, size: int | None, format: Format, paths: Sequence[Path], short_side: int | None
) -> FolderStore:
    """The cache to fill. Raises UserError where the user sets no limit and the disk is too small."""
    import shutil

    from bench.data.cache.choose import estimate
    from bench.data.cache.store import FolderStore

    used, free = FolderStore(folder, 0).used_bytes, shutil.disk_usage(folder).free
    store = FolderStore(folder, size or used + free, format)
    need = estimate(paths, format, store, short_side)
    if size is None and not need.cached and need.total > used + free:  # a part of it may be there already
        ways = ["another folder in AIM_BENCH_CACHE", *(["cache_format jpeg"] * (format == "raw")), "a cache_limit"]
        raise UserError(
            [
                f"{counted(need.videos, 'video')} will take about {byte_size(need.total)} when they are decoded, "
                f"{folder} has {byte_size(free)} to spare: expected {' or '.join(ways)}"
            ]
        )
    return store


def _filled(store: FolderStore, name: str, paths: Sequence[Path], short_side: int | None, workers: int) -> Tally:
    """Fill the cache and show how far it is; stops where there is no more room."""
    from bench.data.cache.frames import fill
    from bench.run.preparation_task import Tally

    tally = Tally()
    with _shown(name, len(paths)) as show:
        for outcome in fill(store, paths, short_side, workers):
            tally.add(outcome)
            show(tally)
            if outcome.outcome == "left out":
                break
    return tally


def _filled_by_tasks(
    store: FolderStore, name: str, paths: Sequence[Path], short_side: int | None, tasks: TaskOptions
) -> tuple[Tally, list[str]]:
    """Fill the cache by tasks; with a sentence on each that failed. Raises UserError."""
    from bench.run.preparation import fill_by_tasks

    try:
        with _shown(name, len(paths)) as show:
            return fill_by_tasks(store, paths, short_side, tasks, show)
    except OSError as error:
        raise UserError([f"the cache cannot be written ({reason(error)})"]) from error


@contextmanager
def _shown(name: str, listed: int) -> Iterator[Callable[..., None]]:
    """Yield a function that shows how far the decoding is, given its tally and what else there is to tell."""
    begun = time.monotonic()
    with progress() as show:
        show(f"decoding {name}", 0, listed)

        def shown(tally: Tally, *more: str) -> None:
            speed = tally.done / max(time.monotonic() - begun, 1e-9)
            told = ", ".join((f"{speed:.1f} videos/s", byte_size(tally.size), *more))
            show(f"decoding {name}", tally.done, listed, told)

        yield shown


def _tell(store: FolderStore, name: str, tally: Tally, listed: int) -> None:
    tell(
        f"{name}: {store.folder} holds {tally.new + tally.there} of {counted(listed, 'video')} "
        f"({store.format}, {byte_size(tally.size)}), {tally.new} of them new"
    )
    if tally.broken:
        tell(f"{counted(len(tally.broken), 'video')} cannot be read:", err=True)
        for path, why in tally.broken[:_NAMED]:
            tell(f"  {one_line(f'{path}: {why}')}", err=True)
        if len(tally.broken) > _NAMED:
            tell(f"  and {len(tally.broken) - _NAMED:,} more", err=True)
    for note in store.notes():
        tell(note, err=True)
