"""Training of a cell's model: one step, the loop over epochs, and its log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.classifier import VideoClassifier
from bench.spec import Precision, Recipe
from bench.train.compute import Computation
from bench.train.optimiser import adamw, lr_scale


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device (or the CPU's allocator) had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "MPS backend out of memory")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


class Trainer:
    """One optimiser step after another on uint8 clips. What the throughput tables measure is this very step.

    A batch that does not fit the device's memory is computed in halves, quarters ... whose gradients add up to the
    batch's; the optimiser's step stays that of the whole batch.

    Args:
        model: put on the device; its frozen weights are cast to the precision (`cast_frozen_weights`).
        recipe: of the optimiser.
        device, precision: where, and in which number format. In fp16 the loss is scaled.
        compile: see `bench.train.compute.Computation`.
        checkpoint_activations: see `adapters.body.Body`.

    Attributes:
        micro_batch: clips computed at once; the batch size unless memory ran out.
        computation: of the logits.
        trains: whether the model has parameters that train; a step of one without them computes the loss alone.
    """

    def __init__(
        self,
        model: VideoClassifier,
        recipe: Recipe,
        device: torch.device,
        precision: Precision,
        *,
        compile: bool | str = False,
        checkpoint_activations: bool = False,
    ) -> None:
        self.model = model
        self.model.body.checkpoint_activations = checkpoint_activations
        self.computation = Computation(model, device, precision, compile)
        self.recipe = recipe
        self.device = device
        self.micro_batch = recipe.batch_size
        self.trains = any(model.trained())
        self.optimiser = adamw(model, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.model.train()

    def scale_lr(self, scale: float) -> float:
        """Scale every group's base learning rate; returns the largest learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["base_lr"] * scale
        return max(group["lr"] for group in self.optimiser.param_groups)

    def _gradients(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        for part, label in zip(clips.split(self.micro_batch), labels.split(self.micro_batch), strict=True):
            label = label.to(self.device, non_blocking=True)
            logits = self.computation(part, self.micro_batch)
            loss = F.cross_entropy(logits.float(), label, label_smoothing=self.recipe.label_smoothing, reduction="sum")
            if self.trains:
                self.scaler.scale(loss / len(clips)).backward()
            loss_sum += loss.detach()
            correct += (logits.detach().argmax(1) == (label if label.ndim == 1 else label.argmax(1))).sum()
        return loss_sum / len(clips), correct

    def step(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Forward, backward and update.

        Args:
            clips: (B, T, 3, H, W) uint8.
            labels: (B,), or each class's share in a mixed clip, (B, classes).

        Returns:
            The mean loss and the number of right predictions, as tensors on the device: reading them waits for it. A
            prediction for a mixed clip is right where it names the class with the largest share.

        Raises:
            torch.OutOfMemoryError: not even one clip fits.
        """
        while True:
            self.optimiser.zero_grad(set_to_none=True)
            try:
                loss, correct = self._gradients(clips, labels)
                break
            except Exception as error:
                if self.computation.fall_back_to_eager(error):
                    continue
                if not is_out_of_memory(error) or self.micro_batch == 1:
                    raise
                self.micro_batch = max(1, min(self.micro_batch, len(clips)) // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        if self.trains:
            self.scaler.step(self.optimiser)
            self.scaler.update()
        return loss, correct


class Diverged(RuntimeError):
    """The loss is not a number any more."""


def fit(
    trainer: Trainer,
    epochs: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    steps_per_epoch: int,
    on_interval: Callable[[dict[str, float]], None],
    on_epoch: Callable[[int], None],
    interval_seconds: float = 0.5,
) -> float:
    """Train for the recipe's epochs.

    Args:
        trainer: holds model, recipe and device.
        epochs: epoch (from 0) -> its batches.
        steps_per_epoch: number of batches that each gives.
        on_interval: gets epoch, step, steps, loss, lr, clips_per_s, interval_seconds and train_top1 (percent) of the
            steps since the last call, about every `interval_seconds` and at the end of each epoch. Loss and accuracy
            are of the clips as augmented and mixed.
        on_epoch: called after each epoch; its time is not counted.

    Returns:
        Seconds spent training: loading, steps and logging.

    Raises:
        Diverged: the loss became infinite or NaN.
    """
    recipe = trainer.recipe
    seconds = 0.0
    for epoch in range(recipe.epochs):
        trainer.model.train()
        begun = since = time.perf_counter()
        losses, rights, clips = [], [], 0
        for index, (batch, labels) in enumerate(_counted(epochs(epoch), steps_per_epoch)):
            step = epoch * steps_per_epoch + index
            lr = trainer.scale_lr(lr_scale(recipe, step, steps_per_epoch))
            loss, right = trainer.step(batch, labels)
            losses.append(loss)
            rights.append(right)
            clips += len(batch)
            now = time.perf_counter()
            if now - since < interval_seconds and index + 1 < steps_per_epoch:
                continue
            mean_loss = torch.stack(losses).mean().item()  # waits for the device
            now = time.perf_counter()
            if not torch.isfinite(torch.tensor(mean_loss)):
                raise Diverged(f"the loss is {mean_loss} at step {step} (lr {lr:.2g}): try a lower lr")
            on_interval(
                {
                    "epoch": epoch + (index + 1) / steps_per_epoch,
                    "step": step + 1,
                    "steps": recipe.epochs * steps_per_epoch,
                    "loss": mean_loss,
                    "lr": lr,
                    "clips_per_s": clips / (now - since),
                    "interval_seconds": now - since,
                    "train_top1": 100 * torch.stack(rights).sum().item() / clips,
                }
            )
            losses, rights, clips, since = [], [], 0, now
        seconds += time.perf_counter() - begun
        on_epoch(epoch)
    return seconds


def _counted(batches: Iterable[tuple[Tensor, Tensor]], expected: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches; a loader that gives another number than the schedule counts on is an error, not a shift."""
    count = 0
    for batch in batches:
        count += 1
        yield batch
    if count != expected:
        raise RuntimeError(f"the loader gave {count} batches in an epoch, expected {expected}")


class Log:
    """Appends JSON lines; a new training starts the file anew."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)  # a line at a time reaches the disk whole
        self._begun = time.perf_counter()

    def write(self, values: dict[str, float]) -> None:
        """One line: the values, rounded to six significant digits, and `seconds` since the start."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        self._file.write(json.dumps({"seconds": round(time.perf_counter() - self._begun, 3), **rounded}) + "\n")

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
