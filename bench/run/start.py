"""From a request to a finished run: checks, data, workers, cells."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from adapters.heads import HEADS
from backbones.families import own_size
from backbones.registry import UnknownName
from bench.data.cache import FrameCache
from bench.data.cache.choose import CacheFolders, CacheSettings, choose
from bench.data.cache.frames import fill
from bench.data.dataset import DATASETS, SPLITS, DataError
from bench.data.subset import subset
from bench.data.trial_data import footnotes as held_out_footnotes
from bench.data.validate import examine
from bench.errors import UserError, collected
from bench.files import reason
from bench.measure.machine import cores, describe
from bench.plugins import load as load_plugins
from bench.run.engines.base import ENGINES, CellEngine
from bench.run.engines.local import too_few_devices
from bench.run.engines.ray_cluster import address_of
from bench.run.engines.runner import Runner
from bench.run.events import Listener
from bench.run.matrices import expand_all
from bench.run.matrix import Plan
from bench.run.outcome import Outcome
from bench.run.store import RESULTS, Run, ThrottledCsvWriter
from bench.run.tracking.followers import TrackedListener
from bench.run.tracking.names import tracker_problems
from bench.spec import Cell, DataSource, Request
from bench.text import counted

_USUAL_SIZE = 224  # pixels; of a model whose family does not tell
_WORTH_A_PROCESS = 200  # videos; fewer are decoded before a process has started


# fields of a request that one engine alone has a use for
_OF_ENGINE = {"ray_address": "ray", "storage": "ray", "slurm": "slurm", "cells_per_job": "slurm", "detach": "slurm"}
_OF_TUNING = ("tune_epochs", "tune_space", "tune_seed")


def _unused(request: Request) -> list[str]:
    """The sentences on fields that the request sets and that its engine or the lack of tuning has no use for."""
    found = []
    for name, engine in _OF_ENGINE.items():
        default = Request.model_fields[name].get_default(call_default_factory=True)
        value = getattr(request, name)
        if request.engine in ("local", "ray", "slurm") and request.engine != engine and value != default:
            found.append(
                f"{name} is {value!r}: engine {request.engine!r} has no use for it, expected engine {engine!r}"
            )
    for name in _OF_TUNING if not request.tune else ():
        if (value := getattr(request, name)) != Request.model_fields[name].get_default(call_default_factory=True):
            found.append(f"{name} is {value!r}: nothing is tuned, expected tune of at least 1 beside it")
    return found


def plan(request: Request, tuned: Callable[[Request, Plan], Plan] | None = None) -> Plan:
    """The request's cells, its plugins loaded.

    Args:
        tuned: lets trials choose the recipes of a plan; it may raise UserError.

    Raises:
        UserError: everything wrong with the plugins, the matrix, what is tuned and the run's folder.
    """
    problems: list[str] = []
    planned = None
    with collected(problems):
        load_plugins(request.plugins)
    elsewhere = None
    try:
        engine = ENGINES.get(request.engine)
        problems += getattr(engine, "problems", lambda _: [])(request)
        elsewhere = getattr(engine, "placement", lambda _: None)(request)
    except UnknownName as error:
        problems.append(str(error))
    problems += [*_unused(request), *tracker_problems(request.track)]
    with collected(problems):
        planned = expand_all(request.matrix, elsewhere)
    with collected(problems):
        planned = tuned(request, planned) if tuned is not None and planned is not None else planned
    with collected(problems):
        if request.out is not None or planned is not None:
            _folder(request, planned).check()
    if planned is not None:
        if request.engine == "local" or (request.engine == "ray" and address_of(request) in (None, "local")):
            problems += too_few_devices(request.processes_per_cell, planned.placement)
        problems += _unsplittable(request.processes_per_cell, planned.cells)
        if request.processes_per_cell > 1 and any(cell.cache_features for cell in planned.cells):
            problems.append(
                f"processes_per_cell is {request.processes_per_cell}: features that are kept train on one process, "
                "expected 1 beside cache_features"
            )
    if planned is None or problems:
        raise UserError(problems)
    return planned


def _unsplittable(processes: int, cells: Iterable[Cell]) -> list[str]:
    """The sentence on the smallest batch, where it has no clip for each process of a cell; nothing where it has."""
    smallest = min((cell.recipe.batch_size for cell in cells), default=processes)
    if processes <= max(1, smallest):
        return []
    return [f"processes_per_cell is {processes}: batches have {counted(smallest, 'clip')}, expected at most {smallest}"]


def _folder(request: Request, planned: Plan | None) -> Run:
    if request.out is not None or planned is None:
        return Run(request.out or default_folder(()))
    trials = planned.tuner.every_trial if planned.tuner else ()
    return Run(default_folder([*planned.cells, *trials]))


def default_folder(cells: Iterable[Cell]) -> Path:
    """results/<data sets>-<key>: the same command finds its own run again, another command makes another."""
    import hashlib

    listed = list(cells)
    names = "-".join(dict.fromkeys(cell.dataset or "counts" for cell in listed))
    key = hashlib.sha256("\n".join(sorted(cell.key for cell in listed)).encode()).hexdigest()[:8]
    return RESULTS / f"{names}-{key}"


def execute(
    request: Request, planned: Plan, command: str, listener: Listener, within: tuple[str, str] | None = None
) -> tuple[Run, Outcome]:
    """Run the cells of a plan.

    Args:
        within: engine and name of the scheduler's job that this process is in; who submitted it has opened the run.

    Raises:
        UserError: the run's folder cannot be written, the data or a backbone's weights cannot be had. Nothing has run.
    """
    begun = time.perf_counter()
    run = _folder(request, planned)
    run.check()
    tuner, cells = planned.tuner, planned.cells
    if tuner is not None:
        tuner.resume(run)
        cells = tuner.cells
    todo = [cell for cell in (*(tuner.trials if tuner else ()), *cells) if run.ended(cell) is None]
    # of what is not known yet, as it is planned
    todo += tuner.waiting if tuner else ()
    if not todo:
        if within is None:
            _open(run, request, planned, cells, command)
        return run, Outcome(skipped=len(cells), cells=cells, unwritten=ThrottledCsvWriter(run).finish())
    problems = _unusable_backbones(todo, listener)
    if problems:
        raise UserError([*problems, *_unusable_data(todo, request.strict, listener)])
    # the folders are left last: a worker that is being ended may still write frames
    start = ENGINES.get(request.engine)
    with CacheFolders() as folders, contextlib.closing(start(request, planned.placement, todo, command)) as engine:
        if problems := _unusable_data(todo, request.strict, listener):
            raise UserError(problems)
        asked = CacheSettings(request.cache, request.cache_limit, request.cache_format)
        cache, chosen = FrameCache(), ""
        if not isinstance(engine, CellEngine):
            videos, short_side = ([], None) if asked.mode == "off" else videos_of(todo)
            cache, chosen = choose(asked, videos, folders, short_side)
            if getattr(engine, "measures_here", True) and short_side is None:
                _decode_ahead(todo, videos, cache, listener)
        if within is None:
            _open(run, request, planned, cells, command)
        name, id = within or (request.engine, None)
        # a scheduler's jobs are commands of their own, each of which has its cells tracked
        tracked = TrackedListener(listener, run, () if isinstance(engine, CellEngine) else request.track)
        runner = Runner(
            run, engine, planned.placement, command, cache, tracked, name, id, share_pass=request.share_pass
        )
        outcome = runner.execute(cells, tuner)
        outcome.notes += [*getattr(engine, "notes", ()), *([chosen] if chosen else []), *cache.notes()]
        outcome.notes += tracked.close(stopped=outcome.interrupted)
    total = time.perf_counter() - begun
    outcome.seconds["starting and preparing"] = total - sum(outcome.seconds.values())
    return run, outcome


def _open(run: Run, request: Request, planned: Plan, cells: Sequence[Cell], command: str) -> None:
    """Write what will run. Raises UserError where that fails."""
    trials = planned.tuner.every_trial if planned.tuner else ()
    run.open(request.matrix, cells, command, describe(), trials=trials)
    if planned.tuner is not None:
        try:
            planned.tuner.open(run)
        except OSError as error:
            raise UserError([f"out is {str(run.folder)!r}: cannot be written ({reason(error)})"]) from error


def _unusable_backbones(cells: Sequence[Cell], listener: Listener) -> list[str]:
    """Build each backbone with weights from outside once: hubs are asked, and refusals told, before anything runs."""
    names = list(dict.fromkeys((cell.backbone_name, cell.input_size) for cell in cells))
    named = [(name, size) for name, size in names if name.model != "tiny" or name.file is not None]
    if not named:
        return []
    from backbones.families import build
    from backbones.names import UnsupportedModel, WeightsError

    problems = []
    heads = dict.fromkeys((cell.backbone_name, cell.input_size, cell.head) for cell in cells)
    for index, (name, size) in enumerate(named):
        listener.preparing(f"weights of {name}", index, len(named))
        try:
            built = build(name, size)
            for note in built.notes:
                listener.noted(note)
            for head in [HEADS.get(head) for *of, head in heads if of == [name, size]]:
                head.prepare(built)
        except (UnsupportedModel, WeightsError) as error:
            problems.append(str(error))
    listener.preparing("weights", len(named), len(named))
    return problems


def videos_of(cells: Iterable[Cell]) -> tuple[list[Path], int | None]:
    """The files of all the data sets, and the largest short side to which a cell decodes them.

    A list that cannot be read is told by the cells that need it.
    """
    paths: list[Path] = []
    rendered = True  # videos that have the size that they are meant to have
    drawn: dict[tuple[str, DataSource], set[tuple[float, int]]] = {}
    for cell in cells:
        drawn.setdefault((cell.dataset, cell.data), set()).add(cell.drawn_by)
    for (name, source), subsets in drawn.items():
        dataset = DATASETS.get(name)(source)
        rendered = rendered and bool(dataset.content)
        for split in SPLITS:
            with contextlib.suppress(DataError):
                videos = dataset.videos(split)
                shown = [subset(videos, *which).videos for which in sorted(subsets)] if split == "train" else [videos]
                paths += dict.fromkeys(video.path for each in shown for video in each)
    if rendered:
        return paths, None
    from bench.data.transforms import before_crop

    models = dict.fromkeys((cell.backbone_name, cell.input_size) for cell in cells)
    return paths, before_crop(max(size or own_size(name) or _USUAL_SIZE for name, size in models))


def _decode_ahead(cells: Iterable[Cell], videos: Sequence[Path], cache: FrameCache, listener: Listener) -> None:
    """Decode the videos of small data sets into the cache on all cores, while the workers import their libraries.

    Cells read such videos in their own processes: a training would wait for each, and cells that begin with the same
    ones for each other. What cannot be decoded is left to the cells, which tell of it.
    """
    small = all(DATASETS.get(name)(source).small for name, source in {(cell.dataset, cell.data) for cell in cells})
    if cache.store is None or not small or len(videos) < _WORTH_A_PROCESS:
        return
    with contextlib.closing(fill(cache.store, videos, None, cores())) as outcomes:
        for done, _ in enumerate(outcomes, start=1):
            listener.preparing("frames", done, len(videos))


def _unusable_data(cells: Iterable[Cell], strict: bool, listener: Listener) -> list[str]:
    """Make each data set ready, and look whether it can be used."""
    problems = []
    listed = [*cells]
    tried = {(cell.dataset, cell.data) for cell in listed if cell.trial is not None}
    for name, source in dict.fromkeys((cell.dataset, cell.data) for cell in listed):
        dataset = DATASETS.get(name)(source)
        try:
            dataset.prepare(partial(listener.preparing, name))
        except DataError as error:
            problems.append(str(error))
            continue
        found = examine(dataset, strict, partial(listener.preparing, f"{name}, looking for its videos"))
        problems += found.problems
        for note in found.notes:
            listener.noted(note)
        if (name, source) in tried and not found.problems:
            try:
                held_out_footnotes(dataset)
            except DataError as error:
                problems.append(str(error))
    return problems
