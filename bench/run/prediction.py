"""`bench predict`: classes of any videos, by a cell's trained model, in the way in which its test predicts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapters.classifier import VideoClassifier
from backbones.kernels.switch import using
from backbones.registry import UnknownName
from bench.data.cache.choose import CacheFolders, CacheSettings, choose
from bench.data.clips import TestClips, decoded_side
from bench.data.dataset import DATASETS, DataError, Progress, Video, VideoDataset
from bench.data.decode_pool import reading
from bench.data.files import is_video
from bench.data.loader import eval_loader
from bench.errors import UserError
from bench.files import did_you_mean_path, reason
from bench.measure.machine import cores
from bench.measure.placement import Placement, bf16_notes
from bench.run.context import WorkerContext
from bench.run.engines.local import threads_of
from bench.run.loaders import decoding
from bench.run.model_files.adapter_file import AdapterFile
from bench.run.model_files.base import find
from bench.run.model_files.open import open_model_file
from bench.run.repeatable import in_this_process, make_repeatable
from bench.run.selection import usable
from bench.spec import Cell, PredictionRequest
from bench.train.evaluate import Predictor, predict

_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class PredictionPlan:
    """A cell's file, the cell as it is executed here, its data set's way of showing videos, and the videos.

    Attributes:
        notes: what a reader of the predictions must know.
    """

    file: AdapterFile
    cell: Cell
    dataset: VideoDataset
    videos: tuple[Video, ...]
    placement: Placement
    notes: tuple[str, ...]


@dataclass(frozen=True)
class VideoPrediction:
    """Likeliest classes of a video, or why it could not be read.

    Attributes:
        video: its path, as it was given or found.
        labels, classes, probabilities: the likeliest first.
        error: empty where it was read.
    """

    video: str
    labels: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""


def plan(request: PredictionRequest) -> PredictionPlan:
    """Find the videos and read the cell's file; no model is built.

    Raises:
        UserError: everything that is wrong.
    """
    problems: list[str] = []
    videos = found_videos(request.videos, problems)
    placement = usable(request, problems)
    file, dataset = None, None
    try:
        opened = open_model_file(find(request.cell), request.backbone)
        if not isinstance(opened, AdapterFile):
            told = f"checkpoint {request.cell!r} has the released layout, which does not tell how videos are shown"
            raise UserError([f"{told}: expected a cell of `bench run`"])
        file = opened
        dataset = DATASETS.get(file.cell.dataset)(file.cell.data)
    except UnknownName as error:
        problems.append(f"{error}; what is your own comes with --plugin")
    except UserError as error:
        problems += error.problems
    if problems or file is None or placement is None or dataset is None:
        raise UserError(problems)
    here = {"device": placement.type, "precision": placement.precision, "kernels": request.kernels}
    cell = file.cell.model_copy(update={**here, "decoder": request.decoder, "compile": False})
    return PredictionPlan(file, cell, dataset, videos, placement, bf16_notes(placement))


def found_videos(given: Iterable[str], problems: list[str]) -> tuple[Video, ...]:
    """The videos of files and folders, each once; in a folder those with a video's suffix, by their names.

    A folder without such files that holds pictures is a video, too: one of frames.
    """
    paths: list[Path] = []
    for text in given:
        path = Path(os.path.expanduser(text))
        if not os.path.exists(path):
            problems.append(f"video {text!r}: there is no such file{did_you_mean_path(path)}")
        elif not os.path.isdir(path):
            paths.append(path)
        elif inside := _below(path, problems):
            paths += inside
        elif any(name.lower().endswith(_PICTURES) for name in os.listdir(path)):
            paths.append(path)
        else:
            problems.append(f"video {text!r}: the folder holds no video, expected files such as *.mp4 or *.webm")
    return tuple(Video(path, 0, str(path)) for path in dict.fromkeys(paths))


def _below(folder: Path, problems: list[str]) -> list[Path]:
    def unreadable(error: OSError) -> None:
        problems.append(f"video {str(folder)!r}: {error.filename} cannot be read ({reason(error)})")

    found = []
    for root, folders, names in os.walk(folder, onerror=unreadable):
        folders.sort()
        found += [Path(root, name) for name in sorted(names) if is_video(name)]
    return found


def execute(
    request: PredictionRequest, planned: PredictionPlan, predicting: Progress
) -> tuple[list[VideoPrediction], list[str]]:
    """Predict the videos of a plan in this process, in their order.

    Views, pixels and probabilities are those of the cell's test: a test video has here what predictions.npz has.

    Args:
        predicting: called with (done, total).

    Returns:
        The predictions, and what is odd about the model.

    Raises:
        UserError: the model cannot be had.
        Diverged: a prediction that is not a number.
    """
    cell, how = planned.cell, reading(request.loader_workers, cores(), request.decode_timeout, strict=False)
    context = WorkerContext(torch.device(planned.placement.torch_name), how, "")
    batch = request.batch_size or cell.recipe.batch_size

    def predicted() -> tuple[list[VideoPrediction], list[str]]:
        make_repeatable(cell.seed, strict=not context.unrepeatable)
        with using(cell.kernels), CacheFolders() as folders:
            model, notes = planned.file.build(cell.frames)
            return _predicted(planned, context, model, batch, request.top, folders, predicting), notes

    return in_this_process(context, threads_of(cell), predicted)


def _predicted(
    planned: PredictionPlan,
    context: WorkerContext,
    model: VideoClassifier,
    batch: int,
    top: int,
    folders: CacheFolders,
    predicting: Progress,
) -> list[VideoPrediction]:
    cell, dataset, videos = planned.cell, planned.dataset, planned.videos
    size = model.backbone.input_size
    side = decoded_side(dataset, size, cell.view_side, cell.pixels)
    # frames go through JPEG pictures where those of the training did
    asked = CacheSettings("ram" if cell.cache_format == "jpeg" else "off", None, cell.cache_format)
    context.cache, _ = choose(asked, [video.path for video in videos], folders, side, once=True)
    clips = TestClips(
        videos,
        dataset.sampling,
        cell.frames,
        dataset.defaults(cell.backbone_name, cell.strategy).stride(cell.frames),
        cell.clips,
        cell.crops,
        size,
        context.cache,
        cell.decoder,
        short_side=side,
        view_side=cell.view_side,
        pixels=cell.pixels,
    )
    loader = eval_loader(clips, max(1, batch // clips.views), decoding((clips,), dataset, context))
    predictor = Predictor(model, context.device, cell.precision, micro_batch=batch)
    batches = ((found.clips, found.labels, list(found.names)) for found in loader)
    by_name: dict[str, Any] = {}  # empty where not one could be read
    try:
        predictions = predict(predictor, batches, order_test=False, on_batch=lambda done: predicting(done, len(videos)))
        by_name = dict(zip(predictions.names, predictions.probabilities, strict=True))
    except DataError as error:
        if not loader.skipped:
            raise UserError([str(error)]) from error
    classes = planned.file.class_names or ()
    found = []
    for video in videos:
        if video.name in by_name:
            found.append(_likeliest(video.name, by_name[video.name], classes, top))
        else:
            found.append(VideoPrediction(video.name, error=loader.skipped[video.name].reason))
    return found


def _likeliest(name: str, probabilities: Sequence[float], classes: Sequence[str], top: int) -> VideoPrediction:
    """The `top` likeliest classes; of equals the lower label first, as in the accuracy."""
    order = sorted(range(len(probabilities)), key=lambda label: (-probabilities[label], label))[:top]
    return VideoPrediction(
        name,
        tuple(order),
        tuple(classes[label] for label in order),
        tuple(float(probabilities[label]) for label in order),
    )
