"""One cell, trained and evaluated in this process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters.base import STRATEGIES
from backbones.families import FAMILIES
from backbones.weights import digest
from bench.data.cache.codec import FOOTNOTES
from bench.data.decode.names import footnotes as decoder_footnotes
from bench.data.transforms import normalise
from bench.files import write_atomically
from bench.measure.loading import Loading
from bench.measure.machine import device_name
from bench.measure.result import Measured, not_compiled
from bench.measure.result import footnotes as measured_footnotes
from bench.run.build import classifier, image_model
from bench.run.context import WorkerContext
from bench.run.loaders import Loaders
from bench.run.model_files.adapter_file import pack
from bench.run.provenance import Stopwatch, provenance
from bench.run.result import Metrics, Result
from bench.run.skipped import footnotes as skipped_footnotes
from bench.run.skipped import write_skipped
from bench.run.store import ADAPTER
from bench.spec import Cell
from bench.text import counted
from bench.train.compute import mixed
from bench.train.evaluate import Predictions, Predictor, mean_class, predict, top_5, top_k
from bench.train.trainer import Log, Trainer, fit

Report = Callable[[dict[str, Any]], None]


def make_repeatable(seed: int, strict: bool = True) -> None:
    """Same seed, same machine, same numbers: every generator, and kernels that do not depend on chance.

    Args:
        strict: raise RuntimeError where an operation has no such kernel. Where it is False such operations run, and
            attention in its default kernels is not repeatable on a GPU either.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    # the deterministic mode would also fill every new tensor, to expose reads of what nothing wrote: only slower
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def why_unrepeatable(error: RuntimeError) -> str:
    """Return what the deterministic mode refused, where that is what the error says; else an empty text."""
    operation, refused, _ = str(error).partition("does not have a deterministic implementation")
    return f"{operation.strip()} has no deterministic kernel" if refused else ""


def train_and_evaluate(cell: Cell, measured: Measured, folder: Path, context: WorkerContext, report: Report) -> Result:
    """Run a cell to its end and write its files, all but result.json.

    Args:
        cell: what to train.
        measured: its model's measurements, made before.
        folder: of the cell, there already.
        context: what the worker keeps.
        report: gets {"stage": ..., "done": 0..1, "loss": ..., "clips_per_s": ...} from time to time.

    Raises:
        DataError, UnsupportedModel, WeightsError, Diverged, OSError and whatever a strategy's own code raises.
    """
    since = Stopwatch()
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    make_repeatable(cell.seed, strict=not context.unrepeatable)
    report({"stage": "building", "done": 0.0})
    for left in folder.glob(".*.tmp"):  # by a run that was killed while it wrote
        left.unlink()
    dataset = context.dataset(cell)
    backbone = image_model(cell)
    weights = digest(backbone)
    model = classifier(cell, dataset.classes, backbone)
    loading = Loading(context.device)
    loaders = Loaders(cell, dataset, model.backbone.input_size, model.backbone.mean, context, loading.timed)
    make_repeatable(cell.seed, strict=not context.unrepeatable)
    trainer = Trainer(
        model,
        cell.recipe,
        context.device,
        cell.precision,
        compile=cell.compile,
        checkpoint_activations=cell.checkpoint_activations,
    )
    trainer.micro_batch = loaders.batch_size  # a whole batch here, and so what a compiled step is made for
    if cell.recipe.time_init:
        first, _ = next(loaders.training(0))
        pixels = normalise(first.to(context.device), model.backbone.mean, model.backbone.std)
        with mixed(context.device, cell.precision):
            model.body.start(pixels, cell.recipe.time_init)
    batch = max(cell.recipe.batch_size, 1)
    predictor = Predictor(model, context.device, cell.precision, micro_batch=batch, compile=cell.compile)
    clock.lap("build")

    val_top1: float | None = None
    with Log(folder / "log.jsonl") as log:

        def on_interval(line: dict[str, float]) -> None:
            log.write({**line, "loader_wait": loading.interval(line["clips_per_s"], line["interval_seconds"])})
            report(
                {
                    "stage": "training",
                    "done": line["step"] / line["steps"],
                    "loss": line["loss"],
                    "clips_per_s": line["clips_per_s"],
                }
            )

        def on_epoch(epoch: int) -> None:
            nonlocal val_top1
            if (epoch + 1) % 5 and epoch + 1 < cell.recipe.epochs:
                return
            found = predict(predictor, loaders.validation(), order_test=False)
            val_top1 = top_k(found.probabilities, found.labels, 1)
            log.write({"epoch": epoch + 1.0, "val_top1": val_top1})

        train_seconds = fit(trainer, loaders.training, loaders.steps, on_interval, on_epoch)
    clock.lap("train")

    report({"stage": "evaluating", "done": 0.0})
    listed = loaders.listed_test
    predictions = predict(
        predictor,
        loaders.test(),
        order_test=cell.order_test,
        on_batch=lambda done: report({"stage": "evaluating", "done": done / listed}),
    )
    clock.lap("evaluate")
    _write_predictions(folder, predictions)
    write_skipped(folder, loaders.skipped)
    # not safetensors' own save_file, whose files only their owner may read
    content = pack(model, cell, dataset.classes, weights)
    write_atomically(folder / ADAPTER, lambda path: path.write_bytes(content))
    clock.lap("write")

    micro_batch = min(trainer.micro_batch, predictor.micro_batch, measured.micro_batch, loaders.batch_size)
    return Result(
        cell=cell,
        status="done",
        metrics=_metrics(cell, predictions, listed, val_top1),
        measured=measured,
        train_seconds=train_seconds,
        loaded_clips_per_s=loading.clips_per_s,
        loader_wait=loading.wait,
        footnotes=tuple(
            dict.fromkeys(
                (
                    *_footnotes(cell, measured, micro_batch, loaders, context),
                    *model.backbone.notes,
                    *(() if dataset.small else loading.footnotes()),
                    *_uncompiled(cell, measured, trainer.computation.why_not, predictor.computation.why_not),
                )
            )
        ),
        seconds=seconds,
        provenance=provenance(
            cell,
            since,
            command=context.command,
            device=device_name(str(context.device)),
            threads=torch.get_num_threads(),
            batch_size=loaders.batch_size,
            micro_batch=micro_batch,
            weights_sha256=weights,
            dataset_fingerprint=context.fingerprint(cell),
            decoders=tuple(sorted(loaders.decoders)),
        ),
    )


class _Clock:
    def __init__(self, laps: dict[str, float]) -> None:
        self._laps = laps
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = now - self._since
        self._since = now


def _metrics(cell: Cell, found: Predictions, listed: int, val_top1: float | None) -> Metrics:
    reordered = {order: top_k(p, found.labels, 1) for order, p in found.reordered.items()}
    return Metrics(
        protocol=cell.protocol,
        top1=top_k(found.probabilities, found.labels, 1),
        top5=top_5(found.probabilities, found.labels),
        mean_class=mean_class(found.probabilities, found.labels),
        top1_reversed=reordered.get("reversed"),
        top1_shuffled=reordered.get("shuffled"),
        val_top1=val_top1,
        evaluated=len(found.labels),
        listed=listed,
    )


def _footnotes(cell: Cell, measured: Measured, micro_batch: int, loaders: Loaders, context: WorkerContext) -> list[str]:
    """Return what a reader of the table must know about this cell and would not expect."""
    notes = []
    if cell.backbone_name.random:
        notes.append("random weights (@none), not pretrained")
    notes += STRATEGIES.get(cell.strategy).footnotes(cell.options, FAMILIES.get(cell.backbone_name.family))
    notes += context.notes(cell)
    if loaders.batch_size < cell.recipe.batch_size:
        notes.append(
            f"no more than {counted(loaders.batch_size, 'training video')}: batches of {loaders.batch_size}, "
            f"not {cell.recipe.batch_size}"
        )
    if micro_batch < loaders.batch_size:
        notes.append(
            f"memory ran out: batches of {loaders.batch_size} computed {counted(micro_batch, 'clip')} at a time"
        )
    if context.unrepeatable:
        notes.append(f"not repeatable to the bit: {context.unrepeatable}")
    notes += decoder_footnotes(loaders.decoders, cell.decoder)
    notes += skipped_footnotes(loaders.skipped, loaders.listed_test)
    if how := FOOTNOTES.get(cell.cache_format):
        notes.append(how)
    return notes + measured_footnotes(measured)


def _uncompiled(cell: Cell, measured: Measured, *whys: str) -> list[str]:
    """Note that a cell that asks for it was not compiled; `whys`: the compiler's words, empty where it did not fail."""
    notes = [not_compiled(why) for why in whys if why]
    if cell.compile and not measured.compiled and not notes:
        notes.append("speed measured without compiling, which failed then")
    return notes


def _write_predictions(folder: Path, found: Predictions) -> None:
    """predictions.npz."""

    def predictions(path: Path) -> None:
        with path.open("wb") as file:
            arrays: dict[str, Any] = {
                "names": np.array(found.names),
                "labels": found.labels,
                "probabilities": found.probabilities.astype(np.float32),
            }
            arrays |= {f"probabilities_{order}": p.astype(np.float32) for order, p in found.reordered.items()}
            np.savez_compressed(file, **arrays)

    write_atomically(folder / "predictions.npz", predictions)
