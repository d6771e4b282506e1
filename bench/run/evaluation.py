"""`bench eval`: a model file evaluated on a data set, as a cell without a training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch

from backbones.families import resolve
from backbones.names import BadBackboneName
from backbones.registry import UnknownName
from bench.data.cache import FrameCache
from bench.data.cache.choose import CacheFolders, CacheSettings, choose
from bench.data.clips import decoded_side
from bench.data.dataset import DATASETS, DataError, Progress, VideoDataset
from bench.data.decode_pool import reading
from bench.data.validate import examine, source_problems, too_many_clips
from bench.errors import UserError, collected
from bench.measure.machine import cores
from bench.measure.placement import bf16_notes
from bench.run.cell import execute as execute_cell
from bench.run.context import WorkerContext
from bench.run.counts import input_size
from bench.run.engines.base import Event, Job
from bench.run.engines.local import started, threads_of, too_few_devices
from bench.run.matrix import Plan
from bench.run.model_files.adapter_file import AdapterFile
from bench.run.model_files.base import TrainedModel, find
from bench.run.model_files.open import open_model_file
from bench.run.repeatable import in_this_process
from bench.run.result import Result
from bench.run.selection import chosen_size, usable
from bench.spec import MAX_FRAMES, Cell, EvaluationRequest, ModelFile, Recipe
from bench.spec.source import Views, checked_views, parse_views
from bench.text import counted
from bench.train.trainer import Diverged

_USUAL_SIZE = 224  # pixels; of a model that cannot be built, which is told later
_BATCH = 16  # views computed at once where the file does not say; halved where memory runs out


def plan(request: EvaluationRequest) -> Plan:
    """Read the model file, find the data set, and see whether the two go together; no model is built.

    Raises:
        UserError: everything that is wrong.
    """
    problems: list[str] = []

    placement = usable(request, problems)
    problems += request.missing()
    file: TrainedModel | None = None
    dataset: VideoDataset | None = None
    with collected(problems):
        file = open_model_file(find(request.checkpoint), request.backbone, request.strategy, request.scale)
    with collected(problems):
        dataset = _dataset(request, file)
    if file is None or dataset is None:
        raise UserError(problems)
    problems += _differing_classes(file, dataset)
    frames = request.frames or file.frames or dataset.defaults(file.backbone, file.strategy).frames
    if not file.any_frames and file.frames is not None and frames != file.frames:
        problems.append(
            f"frames is {frames}: {file.strategy} attends over the {counted(file.frames, 'frame')} of its training, "
            f"expected {file.frames}"
        )
    if frames > MAX_FRAMES:
        problems.append(f"frames is {frames}: expected at most {MAX_FRAMES}")
    views = _views(request, dataset, file, problems)
    size = _size(request, file, problems)
    if placement is None or frames > MAX_FRAMES or views.crops not in (1, 3):
        raise UserError(problems)
    cell = Cell(
        backbone=file.backbone.architecture,
        # all the weights of a released model come from its file
        weights=file.backbone.weights if file.layout == "aim-bench" else str(file.file.resolve()),
        strategy=file.strategy,
        options=dict(file.options),
        head=file.cell.head if isinstance(file, AdapterFile) else "linear",
        head_options=file.cell.head_options if isinstance(file, AdapterFile) else {},
        dataset=dataset.name,
        data=dataset.source,
        frames=frames,
        input_size=size,
        clips=views.clips,
        crops=views.crops,
        view_side=views.short_side,
        seed=0,
        recipe=Recipe(batch_size=file.batch or _BATCH),
        device=placement.type,
        precision=placement.precision,
        kernels=request.kernels,
        decoder=request.decoder,
        order_test=request.order_test,
        cache_format=request.cache_format,
        stages=("evaluate",),
        model_file=ModelFile(path=str(file.file), sha256=file.sha256, layout=file.layout),
        split=request.split,
        pixels=request.pixels,
    )
    if views.short_side is not None:
        views, too_small = checked_views(views, input_size(cell), cell.backbone)
        problems += [too_small] if too_small else []
        cell = cell.model_copy(update={"view_side": views.short_side})
    problems += too_few_devices(request.processes_per_cell, placement)
    if problems:
        raise UserError(problems)
    return Plan((cell,), placement, bf16_notes(placement), model_files={str(file.file): file})


def _dataset(request: EvaluationRequest, file: TrainedModel | None) -> VideoDataset | None:
    name = request.dataset
    if name is None:
        if file is None:
            return None
        if file.dataset is None:
            known = ", ".join(DATASETS.names())
            raise UserError([f"the checkpoint does not tell its data set: expected --dataset with one of {known}"])
        name = file.dataset
    source = request.source
    if source.empty and file is not None and file.dataset == name and file.data is not None:
        source = file.data.model_copy(update={"labels_from": source.labels_from or file.data.labels_from})
    try:
        dataset = DATASETS.get(name)(source)
    except UnknownName as error:
        raise UserError([str(error)]) from None
    if problems := source_problems([dataset], source, (request.split,)):
        raise UserError(problems)
    return dataset


def _differing_classes(file: TrainedModel, dataset: VideoDataset) -> list[str]:
    try:
        classes = dataset.classes
    except DataError as error:
        return [str(error)]
    known = file.class_names
    if len(classes) == file.classes and (known is None or known == classes):
        return []
    ours = counted(file.classes, "class", "classes") + ("" if known is None else f" ({_first(known)})")
    return [f"the checkpoint has {ours}, {dataset.name} has {len(classes)} ({_first(classes)}): expected the same"]


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _views(request: EvaluationRequest, dataset: VideoDataset, file: TrainedModel, problems: list[str]) -> Views:
    """The views of a video, as asked for, as the training had them on its data set, or as this data set has them."""
    written = None if request.views is None else parse_views(request.views)
    for name, number in (("clips", request.clips), ("crops", request.crops)):
        if number is not None and written is not None:
            problems.append(f"{name} is {number}: views is {str(written)!r}, expected one of the two")
    asked = written or Views(request.clips or 1, cast(Literal[1, 3], request.crops or 1))
    if request.split == "val":
        if asked != Views(1, 1):
            problems.append(
                "clips, crops and views are of the test: validation has 1 clip and 1 crop of its own size, expected "
                "split test"
            )
        return Views(1, 1)
    own = file.views if file.dataset == dataset.name else None
    own = own or dataset.defaults(file.backbone, file.strategy).views
    crops = cast(Literal[1, 3], request.crops or own.crops)
    found = written or own._replace(clips=request.clips or own.clips, crops=crops)
    if told := too_many_clips(found.clips, dataset):
        problems.append(told)
    if found.crops not in (1, 3):
        problems.append(f"crops is {found.crops}: expected 1 (the centre) or 3 (left, centre, right)")
    return found


def _size(request: EvaluationRequest, file: TrainedModel, problems: list[str]) -> int | None:
    """The input size; None where it is the backbone's own."""
    if (asked := request.input_size) is None:
        return file.input_size
    try:
        resolve(str(file.backbone), "base")
    except BadBackboneName:  # the file may say anything: told when its model is built
        return file.input_size
    return chosen_size(file.backbone, asked, problems)


def execute(
    request: EvaluationRequest,
    planned: Plan,
    command: str,
    preparing: Progress,
    evaluating: Progress,
    folder: Path | None = None,
) -> Result:
    """Prepare the data and evaluate the one cell of a plan, in this process or on several ranks.

    Args:
        request, planned: see `plan`.
        command: the command line, for the provenance.
        preparing, evaluating: called with (done, total) as the videos are made ready, and predicted.
        folder: gets the predictions; without one they are not kept.

    Raises:
        UserError: the model or the data cannot be had.
        Diverged: a prediction that is not a number.
    """
    (cell,) = planned.cells
    how = reading(request.loader_workers, cores(), request.decode_timeout, request.strict)
    device = torch.device(planned.placement.torch_name)
    context = WorkerContext(device, how, command, device_notes=planned.defaults, model_files=dict(planned.model_files))
    dataset = context.dataset(cell)
    with CacheFolders() as folders:
        try:
            dataset.prepare(preparing)
            about_data = examine(dataset, request.strict, preparing, (cell.split,))
            if about_data.problems:
                raise UserError(about_data.problems)
            context.noted[cell.dataset, cell.data] = about_data.notes
            videos = dataset.videos(cell.split)
            if (most := max(1, len(videos))) < (processes := request.processes_per_cell):
                listed = f"the {cell.split} list of {cell.dataset} has {counted(len(videos), 'video')}"
                raise UserError([f"processes_per_cell is {processes}: {listed}, expected at most {most}"])
            side = decoded_side(dataset, input_size(cell) or _USUAL_SIZE, cell.view_side, cell.pixels)
            asked = CacheSettings(request.cache, request.cache_limit, request.cache_format)
            context.cache, chosen = choose(asked, [video.path for video in videos], folders, side, once=True)

            def report(event: Mapping[str, Any]) -> None:
                if event["stage"] == "evaluating":
                    evaluating(round(event["done"] * len(videos)), len(videos))

            if request.processes_per_cell > 1:
                result = _on_ranks(request, planned, command, context.cache, report, folder)
            else:
                threads = threads_of(cell)
                result = in_this_process(
                    context, threads, lambda: execute_cell(cell, context, folder=folder, report=report)
                )
        except DataError as error:
            raise UserError([str(error)]) from error
        notes = () if context.cache.store is None else (chosen, *context.cache.notes())
    return result.model_copy(update={"footnotes": (*result.footnotes, *notes)})


def _on_ranks(
    request: EvaluationRequest,
    planned: Plan,
    command: str,
    cache: FrameCache,
    report: Callable[[Mapping[str, Any]], None],
    folder: Path | None,
) -> Result:
    """Evaluate the cell of a plan by a worker with ranks. Raises what the evaluation in this process raises."""
    (cell,) = planned.cells
    job = Job("train", cell, folder, threads_of(cell), cache)
    with contextlib.closing(started(request, planned.placement, [cell], command)) as engine:
        engine.submit(job)
        while True:
            for event in engine.events(timeout=0.5):
                if event.kind == "progress":
                    report(event.values)
                elif event.kind == "trained":
                    result: Result = event.values["value"]
                    return result
                else:
                    raise _error(event)


def _error(event: Event) -> Exception:
    """The error of a failed evaluation as it would have been raised here."""
    line = str(event.values["error"])
    if event.values.get("status") == "oom":
        return torch.OutOfMemoryError(line)
    kind, _, text = line.partition(": ")
    kinds: dict[str, Callable[[str], Exception]] = {
        "Diverged": Diverged,
        "DataError": DataError,
        "UserError": lambda text: UserError([text]),
    }
    return kinds[kind](text) if kind in kinds else RuntimeError(f"{line}\n{event.values.get('traceback') or ''}")
