"""A checkpoint evaluated on a data set, by the code that evaluates trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch

from backbones.families import resolve
from backbones.names import BadBackboneName
from backbones.registry import UnknownName
from bench.data.cache.choose import Asked, choose
from bench.data.cache.codec import FOOTNOTES
from bench.data.cache.places import Places
from bench.data.clips import TestClips, decoded_side
from bench.data.dataset import DATASETS, DataError, Progress, VideoDataset
from bench.data.decode.names import footnotes as decoder_footnotes
from bench.data.decode.names import why_unusable
from bench.data.reading import reading
from bench.data.resize import FOOTNOTES as PIXEL_FOOTNOTES
from bench.data.resize import Pixels
from bench.data.validate import examine, too_many_clips, unfit
from bench.errors import UserError
from bench.measure.counts import UncountedOperation, macs
from bench.measure.machine import cores, device_name
from bench.measure.params import count
from bench.measure.placement import Placement, bf16_notes, place
from bench.plugins import load as load_plugins
from bench.run.cell import make_repeatable
from bench.run.context import WorkerContext
from bench.run.engines.local import threads_of
from bench.run.loaders import decoding, skipped_videos, testing, triples
from bench.run.model_files.base import Checkpoint
from bench.run.model_files.find import find
from bench.run.model_files.open import open_checkpoint
from bench.run.provenance import Stopwatch, provenance
from bench.run.result import Provenance
from bench.run.selection import chosen_size
from bench.run.skipped import SkippedVideo, footnotes
from bench.spec import MAX_FRAMES, Cell, FrozenModel, Recipe
from bench.spec.fields import Decoder
from bench.spec.source import DataSource, Views, checked_views
from bench.text import counted
from bench.train.evaluate import Predictor, mean_class, predict, top_5, top_k

Split = Literal["val", "test"]
_BATCH = 16  # views computed at once where the checkpoint does not say; halved where memory runs out


@dataclass(frozen=True)
class Request:
    """Options of `bench eval`; None is the checkpoint's or the data set's own."""

    checkpoint: str
    dataset: str | None = None
    source: DataSource = field(default_factory=DataSource)
    backbone: str | None = None
    strategy: str | None = None
    scale: float | None = None
    frames: int | None = None
    clips: int | None = None
    crops: int | None = None
    input_size: int | None = None
    views: Views | None = None
    pixels: Pixels = "own"
    split: Split = "test"
    device: str = "auto"
    precision: str = "auto"
    decoder: Decoder = "auto"
    loader_workers: int | Literal["auto"] = "auto"
    decode_timeout: float = 60.0
    strict: bool = False
    cache: Asked = field(default_factory=Asked)
    plugins: tuple[str, ...] = ()
    order_test: bool = True


class Evaluation(FrozenModel):
    """Result of an evaluation.

    Accuracies are in percent, top-5 None of five classes or fewer; orders are top-1 with each clip's frames in another
    order.
    """

    version: Literal[1] = 1
    checkpoint: str
    checkpoint_sha256: str
    layout: str
    backbone: str
    weights: str
    strategy: str
    options: dict[str, Any]
    params: int
    trained_params: int
    macs_view: int | None
    dataset: str
    split: Split
    frames: int
    input_size: int | None
    clips: int
    crops: int
    views: str
    pixels: Pixels
    top1: float
    top5: float | None
    mean_class: float
    top1_reversed: float | None
    top1_shuffled: float | None
    evaluated: int
    listed: int
    skipped: tuple[SkippedVideo, ...]
    footnotes: tuple[str, ...]
    provenance: Provenance


@dataclass(frozen=True)
class Plan:
    """A request that was checked as far as can be without building a model."""

    request: Request
    checkpoint: Checkpoint
    dataset: VideoDataset
    placement: Placement
    frames: int
    views: Views
    input_size: int | None


def plan(request: Request) -> Plan:
    """Read the checkpoint, find the data set, and see whether the two go together.

    Raises:
        UserError: everything that is wrong.
    """
    problems: list[str] = []

    def tried(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except UserError as error:
            problems.extend(error.problems)
            return None

    tried(lambda: load_plugins(request.plugins))
    if unusable := why_unusable(request.decoder):
        problems.append(unusable)
    placement = tried(lambda: place(request.device, request.precision))
    checkpoint: Checkpoint | None = tried(
        lambda: open_checkpoint(find(request.checkpoint), request.backbone, request.strategy, request.scale)
    )
    dataset = tried(lambda: _dataset(request, checkpoint))
    if checkpoint is None or dataset is None:
        raise UserError(problems)
    problems += _differing_classes(checkpoint, dataset)
    frames = request.frames or checkpoint.frames or dataset.defaults(checkpoint.backbone, checkpoint.strategy).frames
    if not checkpoint.any_frames and checkpoint.frames is not None and frames != checkpoint.frames:
        its = counted(checkpoint.frames, "frame")
        problems.append(
            f"frames is {frames}: {checkpoint.strategy} attends over the {its} of its training, "
            f"expected {checkpoint.frames}"
        )
    if frames > MAX_FRAMES:
        problems.append(f"frames is {frames}: expected at most {MAX_FRAMES}")
    views = _views(request, dataset, checkpoint, problems)
    size = _size(request, checkpoint, problems)
    if placement is None:
        raise UserError(problems)
    planned = Plan(request, checkpoint, dataset, placement, frames, views, size)
    if views.short_side is not None and frames <= MAX_FRAMES:
        from bench.run.counts import input_size

        views, too_small = checked_views(views, input_size(_cell(planned)), checkpoint.backbone.architecture)
        problems += [too_small] if too_small else []
    if problems:
        raise UserError(problems)
    return replace(planned, views=views)


def _dataset(request: Request, checkpoint: Checkpoint | None) -> VideoDataset | None:
    name = request.dataset
    if name is None:
        if checkpoint is None:
            return None
        if checkpoint.dataset is None:
            known = ", ".join(DATASETS.names())
            raise UserError([f"the checkpoint does not tell its data set: expected --dataset with one of {known}"])
        name = checkpoint.dataset
    source = request.source
    if source.empty and checkpoint is not None and checkpoint.dataset == name and checkpoint.data is not None:
        source = checkpoint.data.model_copy(update={"labels_from": source.labels_from or checkpoint.data.labels_from})
    try:
        dataset = DATASETS.get(name)(source)
    except UnknownName as error:
        raise UserError([str(error)]) from None
    if problems := unfit([dataset], source, (request.split,)):
        raise UserError(problems)
    return dataset


def _differing_classes(checkpoint: Checkpoint, dataset: VideoDataset) -> list[str]:
    try:
        classes = dataset.classes
    except DataError as error:
        return [str(error)]
    known = checkpoint.class_names
    if len(classes) == checkpoint.classes and (known is None or known == classes):
        return []
    ours = counted(checkpoint.classes, "class", "classes") + ("" if known is None else f" ({_first(known)})")
    return [f"the checkpoint has {ours}, {dataset.name} has {len(classes)} ({_first(classes)}): expected the same"]


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _views(request: Request, dataset: VideoDataset, checkpoint: Checkpoint, problems: list[str]) -> Views:
    """The views of a video, as asked for, as the training had them on its data set, or as this data set has them."""
    for name, number in (("clips", request.clips), ("crops", request.crops)):
        if number is not None and request.views is not None:
            problems.append(f"{name} is {number}: views is {str(request.views)!r}, expected one of the two")
    asked = request.views or Views(request.clips or 1, cast(Literal[1, 3], request.crops or 1))
    if request.split == "val":
        if asked != Views(1, 1):
            problems.append(
                "clips, crops and views are of the test: validation has 1 clip and 1 crop of its own size, expected "
                "split test"
            )
        return Views(1, 1)
    own = checkpoint.views if checkpoint.dataset == dataset.name else None
    own = own or dataset.defaults(checkpoint.backbone, checkpoint.strategy).views
    crops = cast(Literal[1, 3], request.crops or own.crops)
    found = request.views or own._replace(clips=request.clips or own.clips, crops=crops)
    if told := too_many_clips(found.clips, dataset):
        problems.append(told)
    if found.crops not in (1, 3):
        problems.append(f"crops is {found.crops}: expected 1 (the centre) or 3 (left, centre, right)")
    return found


def _size(request: Request, checkpoint: Checkpoint, problems: list[str]) -> int | None:
    """The input size; None where it is the backbone's own."""
    if (asked := request.input_size) is None:
        return checkpoint.input_size
    try:
        resolve(str(checkpoint.backbone), "base")
    except BadBackboneName:  # the file may say anything: told when its model is built
        return checkpoint.input_size
    return chosen_size(checkpoint.backbone, asked, problems)


def evaluate(planned: Plan, command: str, preparing: Progress, evaluating: Progress) -> Evaluation:
    """Build the model, prepare the data, predict and count.

    Args:
        planned: see `plan`.
        command: the command line, for the provenance.
        preparing, evaluating: called with (done, total) as the videos are made ready, and predicted.

    Raises:
        UserError: the model or the data cannot be had.
        Diverged: a prediction that is not a number.
    """
    with Places() as places:
        return _evaluated(planned, command, preparing, evaluating, places)


def _evaluated(planned: Plan, command: str, preparing: Progress, evaluating: Progress, places: Places) -> Evaluation:
    since = Stopwatch()
    request, checkpoint, dataset = planned.request, planned.checkpoint, planned.dataset
    cell = _cell(planned)
    make_repeatable(0, strict=False)
    torch.set_num_threads(threads_of(cell))
    model, notes = checkpoint.build(planned.frames)
    if planned.input_size != checkpoint.input_size:
        before = model.backbone.input_size
        model = checkpoint.resized(model, planned.input_size)
        notes.append(f"frames of {model.backbone.input_size} pixels: the checkpoint's model is one for {before}")
    weights = checkpoint.weights_sha256_of(model)
    params, trained = count(model)
    try:
        dataset.prepare(preparing)
        about_data = examine(dataset, request.strict, preparing, (request.split,))
        if about_data.problems:
            raise UserError(about_data.problems)
        videos = dataset.videos(request.split)
        fingerprint = dataset.fingerprint()
    except DataError as error:
        raise UserError([str(error)]) from error
    size = model.backbone.input_size
    views = planned.views
    short_side = decoded_side(dataset, size, views.short_side, request.pixels)
    how = reading(request.loader_workers, cores(), request.decode_timeout, request.strict)
    paths = [video.path for video in videos]
    cache, chosen = choose(request.cache, paths, places, max(1, how.processes(dataset.small)), short_side, once=True)
    clips = TestClips(
        videos,
        dataset.sampling,
        planned.frames,
        dataset.defaults(checkpoint.backbone, checkpoint.strategy).stride(planned.frames),
        views.clips,
        views.crops,
        size,
        cache,
        decoder=request.decoder,
        short_side=short_side,
        validation=request.split == "val",
        view_side=views.short_side,
        pixels=request.pixels,
    )
    device = torch.device(planned.placement.torch_name)
    batch = checkpoint.batch or _BATCH
    model.to(device)
    macs_view: int | None = None
    try:
        macs_view = macs(model)
    except UncountedOperation as error:
        notes.append(f"multiply-accumulates are not counted: {error}")
    predictor = Predictor(model, device, planned.placement.precision, micro_batch=batch)
    context = WorkerContext(device, how, command, cache)
    with context.cleanup:
        loader = testing(clips, batch, decoding((clips,), dataset, context), how.strict)
        try:
            found = predict(
                predictor,
                triples(loader),
                order_test=request.order_test,
                on_batch=lambda done: evaluating(done, len(clips)),
            )
        except DataError as error:
            raise UserError([str(error)]) from error
    skipped = skipped_videos(((request.split, loader),))
    notes += [*about_data.notes, PIXEL_FOOTNOTES[request.pixels], *bf16_notes(planned.placement)]
    notes += footnotes(skipped, len(clips), request.split)
    notes += decoder_footnotes(loader.decoders, request.decoder)
    if kept := FOOTNOTES.get(cell.cache_format):
        notes.append(kept)
    if cache.store is not None:
        notes += [chosen, *cache.notes()]
    if checkpoint.layout == "aim-bench" and checkpoint.backbone.random:
        notes.append("random weights (@none), not pretrained")
    notes += model.backbone.notes
    orders = {order: top_k(p, found.labels, 1) for order, p in found.reordered.items()}
    return Evaluation(
        checkpoint=str(checkpoint.file),
        checkpoint_sha256=checkpoint.sha256,
        layout=checkpoint.layout,
        backbone=cell.backbone,
        weights=cell.weights_label,
        strategy=cell.strategy,
        options=cell.options,
        params=params,
        trained_params=trained,
        macs_view=macs_view,
        dataset=dataset.name,
        split=request.split,
        frames=planned.frames,
        input_size=planned.input_size,
        clips=views.clips,
        crops=views.crops,
        views=cell.protocol,
        pixels=request.pixels,
        top1=top_k(found.probabilities, found.labels, 1),
        top5=top_5(found.probabilities, found.labels),
        mean_class=mean_class(found.probabilities, found.labels),
        top1_reversed=orders.get("reversed"),
        top1_shuffled=orders.get("shuffled"),
        evaluated=len(found.labels),
        listed=len(clips),
        skipped=skipped,
        footnotes=tuple(notes),
        provenance=provenance(
            cell,
            since,
            command=command,
            device=device_name(str(device)),
            threads=torch.get_num_threads(),
            batch_size=batch,
            micro_batch=predictor.micro_batch,
            weights_sha256=weights,
            dataset_fingerprint=fingerprint,
            decoders=tuple(sorted(loader.decoders)),
        ),
    )


def _cell(planned: Plan) -> Cell:
    """The evaluation as a cell, for what is told of cells; its recipe trained nothing."""
    checkpoint = planned.checkpoint
    # a released checkpoint is where all the weights come from
    weights = checkpoint.backbone.weights if checkpoint.layout == "aim-bench" else str(checkpoint.file.resolve())
    return Cell(
        backbone=checkpoint.backbone.architecture,
        weights=weights,
        strategy=checkpoint.strategy,
        options=dict(checkpoint.options),
        dataset=planned.dataset.name,
        data=planned.dataset.source,
        frames=planned.frames,
        input_size=planned.input_size,
        clips=planned.views.clips,
        crops=planned.views.crops,
        view_side=planned.views.short_side,
        seed=0,
        recipe=Recipe(),
        device=planned.placement.type,
        precision=planned.placement.precision,
        decoder=planned.request.decoder,
        order_test=planned.request.order_test,
        cache_format=planned.request.cache.format,
    )
