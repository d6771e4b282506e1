"""The training of a cell, which keeps a checkpoint and goes on from one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.files import reason
from bench.measure.loading import Loading
from bench.run.context import WorkerContext
from bench.run.loaders import Loaders
from bench.run.provenance import Stopwatch
from bench.run.result import Attempt, Training
from bench.run.store import CHECKPOINT, LOG
from bench.spec import Cell
from bench.train.checkpoint import BadCheckpoint, CheckpointFolder, Preempted
from bench.train.evaluate import Predictor, predict, top_k
from bench.train.trainer import Log, Trainer, fit

_VALIDATED_EVERY = 5  # epochs; and after the last

Report = Callable[[dict[str, Any]], None]


class ResumableTraining:
    """One attempt at a training. Several ranks make it together; rank 0 writes the log and the checkpoints.

    Args:
        cell: what trains.
        context: of the worker.
        folder: of the cell, for log and checkpoint.
        trainer, predictor: of its model, as built.
        loaders, loading: its clips, and the watch over how they come.
        report: gets progress, see `bench.run.cell.execute`.
        weights_sha256: of the image model; a checkpoint on others is not used.
        since: when this attempt began.

    Attributes:
        val_top1: last accuracy on the validation videos, in percent.
        attempts: those before this one.
        notes: what a reader of the result must know.
    """

    def __init__(
        self,
        cell: Cell,
        context: WorkerContext,
        folder: Path,
        trainer: Trainer,
        predictor: Predictor,
        loaders: Loaders,
        loading: Loading,
        report: Report,
        *,
        weights_sha256: str,
        since: Stopwatch,
    ) -> None:
        self.cell, self.context, self.folder, self.report, self.since = cell, context, folder, report, since
        self.trainer, self.predictor, self.loaders, self.loading = trainer, predictor, loaders, loading
        identity = {"cell": cell.key, "weights_sha256": weights_sha256}
        self.ranks = context.ranks
        self.checkpoints = CheckpointFolder(folder / CHECKPOINT, identity, context.checkpoint_minutes)
        self.val_top1: float | None = None
        self.attempts: list[Attempt] = []
        self.notes: list[str] = []

    def run(self) -> Training:
        """Train to the end.

        Raises:
            Preempted: it was stopped, its checkpoint written.
            DataError, Diverged and whatever a strategy's own code raises.
        """
        log_state = self._resume()
        self._check_ranks()
        self.context.stoppable.set()
        with Log(self.folder / LOG, log_state) if self.ranks.first else contextlib.nullcontext() as log:

            def on_interval(line: dict[str, float]) -> None:
                waited = self.loading.interval(line["clips_per_s"], line["interval_seconds"])
                if log is not None:
                    log.write({**line, "loader_wait": waited})
                done = line["step"] / line["steps"]
                told = {name: line[name] for name in ("epoch", "loss", "clips_per_s")}
                self.report({"stage": "training", "done": done, **told})

            def on_epoch(epoch: int) -> None:
                # the evaluation of a trial, which follows its last epoch, is on these videos
                last = epoch + 1 == self.cell.recipe.epochs
                if (self.cell.trial is None) if last else (epoch + 1) % _VALIDATED_EVERY == 0:
                    found = predict(self.predictor, self.loaders.validation(), order_test=False, ranks=self.ranks)
                    self.val_top1 = top_k(found.probabilities, found.labels, 1)
                    if log is not None:
                        log.write({"epoch": epoch + 1.0, "val_top1": self.val_top1})
                self._keep(log)

            seconds = fit(
                self.trainer,
                self.loaders.training,
                self.loaders.steps,
                on_interval,
                on_epoch,
                pauses=lambda: self.ranks.any(self.context.stopping.is_set() or self._due),
                on_pause=lambda: self._keep(log),
            )
        return Training(
            train_seconds=seconds,
            train_clips_per_s_loaded=self.loading.clips_per_s,
            loader_wait=self.loading.wait,
            train_videos=self.loaders.train_videos,
            gradient_bytes=None if self.ranks.alone else self.trainer.gradient_bytes,
        )

    @property
    def _due(self) -> bool:
        return self.ranks.first and self.checkpoints.due

    def _check_ranks(self) -> None:
        """Find out that all ranks start from the same numbers; none are sent. Raises RuntimeError where they do not."""
        if not self.ranks.alone and len(set(self.ranks.gather(self.trainer.digest()))) > 1:
            raise RuntimeError("the processes of the cell built different models: its initialisation is not repeatable")

    def _resume(self) -> dict[str, float] | None:
        """Go on from the checkpoint, where there is a good one; the log's state at it."""
        try:
            state = self.checkpoints.read()
            if state is None:
                return None
            self.trainer.load_state_dict(state["trainer"])
            if self.ranks.first:
                self.loaders.load_state_dict(state["loaders"])
            self.loading.load_state_dict(state["loading"])
            self.context.broken |= {Path(path): why for path, why in state["broken"].items()}
            self.attempts = [Attempt(**attempt) for attempt in state["attempts"]]
            self.val_top1 = state["val_top1"]
        except (BadCheckpoint, ValueError, KeyError, TypeError) as error:
            self.notes.append(f"a checkpoint was not used, the training began anew: {error}")
            return None
        log: dict[str, float] = state["log"]
        return log

    def _keep(self, log: Log | None) -> None:
        """Write a checkpoint. Raises Preempted where the training is to stop."""
        loaders = self.loaders.gathered_state()
        for broken in self.ranks.gather(dict(self.context.broken)):
            self.context.broken |= broken
        if log is not None:
            self._write(log, loaders)
        if self.ranks.any(self.context.stopping.is_set()):
            raise Preempted(f"stopped from outside after step {self.trainer.steps}; its checkpoint is kept")

    def _write(self, log: Log, loaders: dict[str, Any]) -> None:
        attempts = [*self.attempts, Attempt(started=self.since.started, seconds=self.since.seconds)]
        state = {
            "trainer": self.trainer.state_dict(),
            "loaders": loaders,
            "loading": self.loading.state_dict(),
            "log": log.state_dict(),
            "val_top1": self.val_top1,
            "broken": {str(path): why for path, why in self.context.broken.items()},
            "attempts": [attempt.model_dump() for attempt in attempts],
        }
        try:
            self.checkpoints.write(state, self.trainer.steps)
        except OSError as error:  # a full disk must not end a training that has hours behind it
            note = f"a checkpoint could not be written: {reason(error)}"
            self.notes += [] if note in self.notes else [note]
