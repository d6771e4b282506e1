"""One cell, executed in this process: its measurements, its training, its evaluation, as far as it has these stages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from adapters.heads import HEADS
from backbones.base import Backbone
from backbones.families import FAMILIES
from backbones.kernels.switch import using
from backbones.weights import digest
from bench.data.cache.entry import FOOTNOTES as CODEC_FOOTNOTES
from bench.data.decode.open import footnotes as decoder_footnotes
from bench.data.transforms import FOOTNOTES as PIXEL_FOOTNOTES
from bench.data.transforms import normalise
from bench.data.trial_data import footnotes as held_out_footnotes
from bench.files import write_atomically
from bench.measure import model as measuring
from bench.measure.counts import UncountedOperation, macs
from bench.measure.loading import Loading
from bench.measure.machine import device_name
from bench.measure.params import count
from bench.measure.result import PLAIN_KERNELS, Measured
from bench.measure.result import footnotes as measured_footnotes
from bench.run import footnotes
from bench.run.build import classifier, image_model
from bench.run.context import WorkerContext
from bench.run.engines.jobs import JOB
from bench.run.features import FOOTNOTE as KEPT_FEATURES
from bench.run.loaders import Loaders
from bench.run.model_files.adapter_file import pack
from bench.run.provenance import Stopwatch, provenance
from bench.run.repeatable import make_repeatable
from bench.run.result import Attempt, Counts, Metrics, Result, Training
from bench.run.store import ADAPTER, PREDICTIONS, write_skipped
from bench.run.training import ResumableTraining
from bench.spec import Cell
from bench.train.compute import mixed
from bench.train.evaluate import Predictor, mean_class, predict, top_5, top_k
from bench.train.trainer import Trainer

Report = Callable[[dict[str, Any]], None]
Found = TypeVar("Found")


def measure(cell: Cell, context: WorkerContext) -> tuple[Measured, tuple[str, ...]]:
    """Measure a cell's model; its measurements, and what was assumed of its weights.

    Raises whatever building and running the model raises.
    """
    classes = cell.classes or len(context.dataset(cell).classes)
    make_repeatable(cell.seed, strict=not context.unrepeatable)
    with using(cell.kernels):
        model = classifier(cell, classes)
        measured = measuring.measure(
            model,
            cell.recipe,
            context.device,
            cell.precision,
            compile=cell.compile,
            checkpoint_activations=cell.checkpoint_activations,
        )
    return measured, tuple(model.backbone.notes)


def execute(
    cell: Cell,
    context: WorkerContext,
    *,
    counts: Counts | None = None,
    measured: Measured | None = None,
    folder: Path | None = None,
    report: Report = lambda event: None,
) -> Result:
    """Run the stages of a cell, and write its files, all but result.json.

    Args:
        cell: what is done.
        context: what the worker keeps.
        counts: of the model, made before.
        measured: its measurements, made before; made here where they are not given and the cell has that stage.
        folder: of the cell, there already; a cell that does not train can do without it.
        report: gets {"stage": ..., "done": 0..1, "loss": ..., "clips_per_s": ...} from time to time.

    Raises:
        DataError, UnsupportedModel, WeightsError, Diverged, OSError and whatever a strategy's own code raises.
    """
    if _runs(cell):
        with using(cell.kernels):
            return Execution(cell, context, measured, folder, report).result()
    since = Stopwatch()
    assumed: tuple[str, ...] = ()
    if "measure" in cell.stages and measured is None:
        measured, assumed = measure(cell, context)
    told = [footnotes.RANDOM] if cell.stages and cell.backbone_name.random else []
    if measured is not None:
        told += footnotes.of_memory(measured.batch_size, measured.micro_batch)
        told += footnotes.of_repeating(context.unrepeatable)
        told += [*assumed, *context.device_notes, *measured_footnotes(measured)]
    return Result(
        cell=cell,
        status="done",
        counts=counts,
        measured=measured,
        footnotes=tuple(told),
        provenance=provenance(
            cell,
            since,
            command=context.command,
            device=device_name(str(context.device)),
            threads=torch.get_num_threads(),
            batch_size=None if measured is None else measured.batch_size,
            micro_batch=None if measured is None else measured.micro_batch,
        ),
    )


def assist(
    cell: Cell, context: WorkerContext, *, measured: Measured | None = None, folder: Path | None, report: Report
) -> None:
    """Do this rank's part of a cell that rank 0 executes, and write nothing.

    Args and errors are those of `execute`; `report` is called as often as on rank 0.
    """
    if not _runs(cell):
        raise ValueError("a cell that neither trains nor is evaluated is executed by one process")
    with using(cell.kernels):
        Execution(cell, context, measured, folder, report).run()


def _runs(cell: Cell) -> bool:
    return bool({"train", "evaluate"} & set(cell.stages))


class Execution:
    """A cell that trains, or is evaluated, or both. All ranks do `run`, and rank 0 has the result.

    Attributes:
        together: number of cells that train from one forward pass, this one among them, see `bench.run.together`.
    """

    together = 1

    def __init__(
        self, cell: Cell, context: WorkerContext, measured: Measured | None, folder: Path | None, report: Report
    ) -> None:
        self.since = Stopwatch()
        self.clock = _Clock()
        self.cell, self.context, self.folder, self.report = cell, context, folder, report
        make_repeatable(cell.seed, strict=not context.unrepeatable)
        report({"stage": "building", "done": 0.0})
        self.ranks = context.ranks
        for left in folder.glob(".*.tmp") if folder and self.ranks.first else ():
            if not left.name.startswith(f".{JOB}."):  # which another process is just writing
                left.unlink(missing_ok=True)  # by a run that was killed while it wrote
        self.measured = measured
        if "measure" in cell.stages and measured is None:
            self.measured, _ = measure(cell, context)
        self.dataset = context.dataset(cell)
        self.notes: list[str] = []
        self.model, self.weights_sha256 = self._built()
        self.counts = None if self.measured or not self.ranks.first else self._counted()
        self.loading = self._watched_loading()
        self.loaders = self._opened_loaders()
        make_repeatable(cell.seed, strict=not context.unrepeatable)
        self.trainer = self._trainer() if "train" in cell.stages else None
        batch = max(cell.recipe.batch_size, 1)
        self.predictor = Predictor(self.model, context.device, cell.precision, micro_batch=batch, compile=cell.compile)
        self.clock.lap("build")

    def run(self) -> tuple[Training | None, Metrics | None, tuple[Attempt, ...]]:
        """Train and evaluate, as far as the cell has these stages."""
        training, val_top1, attempts = self._train(self.trainer) if self.trainer else (None, None, ())
        metrics = None
        if "evaluate" in self.cell.stages:
            metrics = self._evaluate(val_top1 if self.cell.trial is None else None)
        skipped = self.loaders.gathered_state()
        if not self.ranks.alone and self.ranks.first:
            self.loaders.load_state_dict(skipped)
        self.predictor.micro_batch = min(self.ranks.gather(self.predictor.micro_batch))
        return training, metrics, attempts

    def result(self) -> Result:
        """Run the cell and write its files.

        Raises what `execute` raises.
        """
        cell, loaders = self.cell, self.loaders
        training, metrics, attempts = self.run()
        adapter_bytes = None
        if self.folder is not None:
            write_skipped(self.folder, loaders.skipped)
        # nobody uses what a trial trained, which of a whole model takes much room
        if self.folder is not None and self.trainer is not None and cell.trial is None:
            # not safetensors' own save_file, whose files only their owner may read
            content = pack(self.model, cell, self.dataset.classes, self.weights_sha256)
            write_atomically(self.folder / ADAPTER, lambda path: path.write_bytes(content))
            adapter_bytes = len(content)
        self.clock.lap("write")
        at_once = [each.micro_batch for each in (self.trainer, self.predictor, self.measured) if each is not None]
        micro_batch = min(*at_once, loaders.batch_size)
        return Result(
            cell=cell,
            status="done",
            counts=self.counts,
            measured=self.measured,
            training=training,
            metrics=metrics,
            adapter_bytes=adapter_bytes,
            skipped=loaders.skipped,
            footnotes=self._footnotes(micro_batch),
            seconds=self.clock.laps,
            provenance=provenance(
                cell,
                self.since,
                command=self.context.command,
                device=device_name(str(self.context.device)),
                threads=torch.get_num_threads(),
                world_size=self.ranks.size,
                shared_pass=self.together,
                batch_size=loaders.batch_size,
                micro_batch=micro_batch,
                attempts=attempts,
                weights_sha256=self.weights_sha256,
                dataset_fingerprint=self.context.fingerprint(cell),
                decoders=tuple(sorted(loaders.decoders)),
                head={"name": cell.head, **HEADS.get(cell.head).about(self.model.head)},
            ),
        )

    def _watched_loading(self) -> Loading:
        return Loading(self.context.device)

    def _opened_loaders(self) -> Loaders:
        backbone = self.model.backbone
        return Loaders(self.cell, self.dataset, backbone.input_size, backbone.mean, self.context, self.loading.timed)

    def _image_model(self) -> tuple[Backbone, str]:
        """The backbone of a model that is built anew, and the hash of its weights, before anything is adapted."""
        backbone = image_model(self.cell)
        return backbone, digest(backbone)

    def _built(self) -> tuple[VideoClassifier, str]:
        """The model, new or from its file, and the hash of its backbone's weights."""
        cell = self.cell
        if (file := self.context.model_file(cell)) is None:
            backbone, weights = self._image_model()
            return classifier(cell, cell.classes or self.dataset.classes, backbone), weights
        model, notes = file.build(cell.frames)
        self.notes += notes
        if cell.input_size != file.input_size:
            before = model.backbone.input_size
            model = file.resized(model, cell.input_size)
            self.notes.append(
                f"frames of {model.backbone.input_size} pixels: the checkpoint's model is one for {before}"
            )
        return model, file.weights_sha256_of(model)

    def _counted(self) -> Counts:
        params, trained = count(self.model)
        macs_view = None
        try:
            macs_view = macs(self.model.deployed().to(self.context.device))
        except UncountedOperation as error:
            self.notes.append(f"multiply-accumulates are not counted: {error}")
        return Counts(params=params, trained_params=trained, macs_view=macs_view)

    def _trainer(self) -> Trainer:
        cell, model, context = self.cell, self.model, self.context
        trainer = Trainer(
            model,
            cell.recipe,
            context.device,
            cell.precision,
            compile=cell.compile,
            checkpoint_activations=cell.checkpoint_activations,
            ranks=self.ranks,
        )
        trainer.expect(self.loaders.batch_size)
        if cell.recipe.time_init and not cell.cache_features:  # what goes on from features has no such start
            first, _ = next(self.loaders.training(0, whole=True))
            assert isinstance(first, torch.Tensor)
            pixels = normalise(first.to(context.device), model.backbone.mean, model.backbone.std)
            with mixed(context.device, cell.precision):
                model.body.start(pixels, cell.recipe.time_init)
        return trainer

    def _train(self, trainer: Trainer) -> tuple[Training, float | None, tuple[Attempt, ...]]:
        """Train; its times, the last accuracy on the validation videos, and its attempts before this one."""
        if self.folder is None:
            raise ValueError("a training needs the cell's folder")
        if self.cell.cache_features:
            identity = {"weights": self.weights_sha256, "data": self.context.fingerprint(self.cell)}
            self.loaders.keep_features(self.predictor, identity, self.report)
            self.clock.lap("features")
        training = ResumableTraining(
            self.cell,
            self.context,
            self.folder,
            trainer,
            self.predictor,
            self.loaders,
            self.loading,
            self.report,
            weights_sha256=self.weights_sha256,
            since=self.since,
        )
        found = training.run()
        self.notes += training.notes
        self.clock.lap("train")
        return found, training.val_top1, tuple(training.attempts)

    def _evaluate(self, val_top1: float | None) -> Metrics:
        """Predict the videos of the cell's split, and keep the predictions where there is a folder."""
        self.report({"stage": "evaluating", "done": 0.0})
        listed = self.loaders.listed
        found = predict(
            self.predictor,
            self.loaders.evaluated(),
            order_test=self.cell.order_test,
            on_batch=lambda done: self.report({"stage": "evaluating", "done": done / listed}),
            ranks=self.ranks,
        )
        self.clock.lap("evaluate")
        if self.folder is not None and self.ranks.first:
            write_atomically(self.folder / PREDICTIONS, found.write)
        self.notes += footnotes.of_order(self.cell, self.model.order_aware, found)
        reordered = {order: top_k(p, found.labels, 1) for order, p in found.reordered.items()}
        return Metrics(
            protocol=self.cell.protocol,
            order_aware=self.model.order_aware,
            top1=top_k(found.probabilities, found.labels, 1),
            top5=top_5(found.probabilities, found.labels),
            mean_class=mean_class(found.probabilities, found.labels),
            top1_reversed=reordered.get("reversed"),
            top1_shuffled=reordered.get("shuffled"),
            val_top1=val_top1,
            evaluated=len(found.labels),
            listed=listed,
        )

    def _footnotes(self, micro_batch: int) -> tuple[str, ...]:
        """Return what a reader of the table must know about this cell and would not expect."""
        cell, context, loaders, measured = self.cell, self.context, self.loaders, self.measured
        told = list(self.notes)
        told += [footnotes.RANDOM] if cell.backbone_name.random else []
        if self.trainer:
            family = FAMILIES.get(cell.backbone_name.family)
            told += STRATEGIES.get(cell.strategy).footnotes(cell.options, family)
        told += context.notes(cell)
        told += held_out_footnotes(context.dataset(cell)) if cell.trial or cell.tuning else []
        told += [PIXEL_FOOTNOTES[cell.pixels]] if cell.model_file else []
        told += footnotes.of_subset(cell, loaders.drawn)
        told += footnotes.of_small_training_set(cell, loaders.batch_size)
        told += footnotes.of_memory(loaders.batch_size, micro_batch, self.trainer.share if self.trainer else None)
        told += footnotes.of_ranks(self.ranks.size)
        told += footnotes.of_sharing(self.together)
        told += footnotes.of_repeating(context.unrepeatable)
        told += decoder_footnotes(loaders.decoders, cell.decoder)
        told += footnotes.of_skipped(loaders.skipped, loaders.listed, cell.split)
        told += [CODEC_FOOTNOTES[cell.cache_format]] if cell.cache_format in CODEC_FOOTNOTES else []
        told += [KEPT_FEATURES] if cell.cache_features else []
        told += [PLAIN_KERNELS] if cell.kernels == "plain" else []
        told += measured_footnotes(measured) if measured and "measure" in cell.stages else []
        told += self.model.backbone.notes
        told += [] if self.dataset.small or not self.trainer else self.loading.footnotes()
        whys = [each.computation.why_not for each in (self.trainer, self.predictor) if each is not None]
        told += footnotes.of_compiling(cell, measured, *whys)
        return tuple(dict.fromkeys(told))


class _Clock:
    """Seconds of a cell's stages."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._since
        self._since = now
