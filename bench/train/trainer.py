"""Training of a cell's model: one step, the loop over epochs, and its log."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.classifier import VideoClassifier
from adapters.frozen_pass import KeptStates
from bench.spec import Precision, Recipe
from bench.train import generators
from bench.train.compute import Batched, Computation
from bench.train.optimiser import adamw, lr_scale
from bench.train.ranks import ALONE, Ranks


class Trainer(Batched):
    """One optimiser step after another on uint8 clips. What the throughput tables measure is this very step.

    A batch that does not fit the device's memory is computed in halves, quarters ... whose gradients add up to the
    batch's; the optimiser's step stays that of the whole batch. So does it where several ranks compute a share of it
    each: gradients are sums over the whole batch, and every rank takes the same step.

    Args:
        model: put on the device; its frozen weights are cast to the precision (`cast_frozen_weights`).
        recipe: of the optimiser.
        device, precision: where, and in which number format. In fp16 the loss is scaled.
        compile: see `bench.train.compute.Computation`.
        checkpoint_activations: see `adapters.body.Body`.
        ranks: the processes that train the model together.

    Attributes:
        batch_size: clips of a step over all ranks, see `expect`; None where a step's own are all.
        gradient_bytes: bytes of gradients that this rank gave to the last step's sums.
        trains: whether the model has parameters that train; a step of one without them computes the loss alone.
        steps: of the training that are done; its place in the schedule.
        seconds: spent on them: loading, steps and logging.
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
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(Computation(model, device, precision, compile), recipe.batch_size, ranks.any)
        self.ranks = ranks
        self.batch_size: int | None = None
        self.gradient_bytes = 0
        self.model = model
        self.model.body.checkpoint_activations = checkpoint_activations
        self.recipe = recipe
        self.device = device
        self.trains = any(model.trained())
        self.steps = 0
        self.seconds = 0.0
        self.optimiser = adamw(model, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.model.train()

    def scale_lr(self, scale: float) -> float:
        """Scale every group's base learning rate; returns the largest learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["base_lr"] * scale
        return max(group["lr"] for group in self.optimiser.param_groups)

    def expect(self, batch_size: int) -> None:
        """Set the number of a step's clips over all ranks; each rank computes its share at once, and so compiles it."""
        self.batch_size = batch_size
        self.micro_batch = self.share

    @property
    def share(self) -> int:
        """Clips of a step of the rank that has most."""
        return -(-(self.batch_size or self.recipe.batch_size) // self.ranks.size)

    def clips_of(self, clips: Tensor | KeptStates) -> int:
        """Return the number of a step's clips over all ranks, of which `clips` are this rank's."""
        return len(clips) if self.ranks.alone or self.batch_size is None else self.batch_size

    def _gradients(self, clips: Tensor | KeptStates, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the loss and of the right predictions over the rank's clips; gradients of their share of the mean."""
        self.optimiser.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        count = self.clips_of(clips)
        # a share that is smaller than other ranks' is as usual here
        usual = self.micro_batch if self.ranks.alone else min(self.micro_batch, len(clips))
        for start in range(0, len(clips), self.micro_batch):
            part = clips[start : start + self.micro_batch]
            label = labels[start : start + self.micro_batch].to(self.device, non_blocking=True)
            logits = self.computation(part, usual)
            loss = F.cross_entropy(logits.float(), label, label_smoothing=self.recipe.label_smoothing, reduction="sum")
            if self.trains:
                self.scaler.scale(loss / count).backward()
            loss_sum += loss.detach()
            correct += (logits.detach().argmax(1) == (label if label.ndim == 1 else label.argmax(1))).sum()
        return loss_sum, correct

    def _sum_over_ranks(self, loss_sum: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
        """Sum gradients, loss and right predictions. A rank without a clip adds zeros."""
        if self.trains:
            parameters = [each for group in self.optimiser.param_groups for each in group["params"]]
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            self.gradient_bytes = self.ranks.sum([parameter.grad for parameter in parameters])
        totals = torch.stack([loss_sum, correct])
        self.ranks.sum([totals])
        return totals[0], totals[1]

    def step(self, clips: Tensor | KeptStates, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Forward, backward and update.

        Args:
            clips: (B, T, 3, H, W) uint8, or kept states of B clips; of several ranks each one's share, which may be
                empty.
            labels: (B,), or each class's share in a mixed clip, (B, classes).

        Returns:
            The mean loss and the number of right predictions of all ranks' clips, as tensors on the device: reading
            them waits for it. A prediction for a mixed clip is right where it names the class with the largest share.

        Raises:
            torch.OutOfMemoryError: not even one clip fits.
            RankLost: another rank has ended.
        """
        self.ranks.seed_generators(self.steps)
        count = self.clips_of(clips)
        # halved from the same number on all ranks
        most = len(clips) if self.ranks.alone else self.share
        loss_sum, correct = self.in_parts(lambda: self._gradients(clips, labels), most)
        if not self.ranks.alone:
            loss_sum, correct = self._sum_over_ranks(loss_sum, correct)
        loss = loss_sum / count
        if self.trains:
            self.scaler.step(self.optimiser)
            self.scaler.update()
        return loss, correct

    def digest(self) -> str:
        """Return a hash of what trains, and of the place in the schedule."""
        found = hashlib.sha256(str(self.steps).encode())
        for _, parameter in self.model.trained():
            found.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """All that a training goes on from: trained parameters, optimiser, scaler, place in the schedule, generators.

        Tensors, numbers, texts and containers of them, so that `torch.load` reads it with `weights_only`. Tensors are
        those that train, not copies. What is frozen is built anew from the cell.
        """
        return {
            "trained": {name: parameter.detach() for name, parameter in self.model.trained()},
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
            "micro_batch": self.micro_batch,
            "halved": self.micro_batch < self.share,
            "generators": generators.states(self.device),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a trainer of the same cell; call it last before the training.

        It may be of another number of ranks. Generators go on from the state of its rank 0.

        Raises:
            ValueError: it is of a model that trains other parameters.
        """
        trained = dict(self.model.trained())
        if trained.keys() != state["trained"].keys():
            raise ValueError("the state is of a model that trains other parameters")
        for name, parameter in trained.items():
            parameter.copy_(state["trained"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.steps, self.seconds = state["steps"], state["seconds"]
        if state.get("halved", True):  # a share is another one among another number of ranks
            self.micro_batch = state["micro_batch"]
        generators.restore(self.device, state["generators"])


class Diverged(RuntimeError):
    """Error of a training whose loss is not a number any more."""


def fit(
    trainer: Trainer,
    epochs: Callable[[int, int], Iterable[tuple[Tensor | KeptStates, Tensor]]],
    steps_per_epoch: int,
    on_interval: Callable[[dict[str, float]], None],
    on_epoch: Callable[[int], None],
    interval_seconds: float = 0.5,
    *,
    pauses: Callable[[], bool] = lambda: False,
    on_pause: Callable[[], None] = lambda: None,
) -> float:
    """Train for the recipe's epochs, from where the trainer stands.

    Args:
        trainer: holds model, recipe, device and state.
        epochs: epoch (from 0) and first batch -> the batches from there on.
        steps_per_epoch: number of batches of an epoch.
        on_interval: gets epoch, step, steps, loss, lr, clips_per_s, interval_seconds and train_top1 (percent) of the
            steps since the last call, about every `interval_seconds` and at the end of each epoch. Loss and accuracy
            are of the clips as augmented and mixed.
        on_epoch: called after each epoch; its time is not counted.
        pauses: asked after each step but an epoch's last: True ends the interval there.
        on_pause: called then, after `on_interval`: the trainer's state is whole. Its time is not counted.

    Returns:
        `trainer.seconds`.

    Raises:
        Diverged: the loss became infinite or NaN.
    """
    recipe = trainer.recipe
    for epoch in range(trainer.steps // steps_per_epoch, recipe.epochs):
        trainer.model.train()
        begun = since = time.perf_counter()
        losses, rights, clips = [], [], 0
        first = trainer.steps - epoch * steps_per_epoch  # of an epoch that was interrupted, not 0
        for index, (batch, labels) in enumerate(_counted(epochs(epoch, first), steps_per_epoch - first), first):
            step = epoch * steps_per_epoch + index
            lr = trainer.scale_lr(lr_scale(recipe, step, steps_per_epoch))
            loss, right = trainer.step(batch, labels)
            trainer.steps = step + 1
            losses.append(loss)
            rights.append(right)
            clips += trainer.clips_of(batch)
            now = time.perf_counter()
            last = index + 1 == steps_per_epoch
            pausing = not last and pauses()
            if now - since < interval_seconds and not last and not pausing:
                continue
            mean_loss = torch.stack(losses).mean().item()  # waits for the device
            now = time.perf_counter()
            if not torch.isfinite(torch.tensor(mean_loss)):
                raise Diverged(f"the loss is {mean_loss} at step {step} (lr {lr:.2g}): try a lower lr")
            trainer.seconds, begun = trainer.seconds + now - begun, now
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
            if pausing:
                on_pause()
                begun = now = time.perf_counter()
            losses, rights, clips, since = [], [], 0, now
        trainer.seconds += time.perf_counter() - begun
        on_epoch(epoch)
    return trainer.seconds


def _counted(
    batches: Iterable[tuple[Tensor | KeptStates, Tensor]], expected: int
) -> Iterator[tuple[Tensor | KeptStates, Tensor]]:
    """The batches; a loader that gives another number than the schedule counts on is an error, not a shift."""
    count = 0
    for batch in batches:
        count += 1
        yield batch
    if count != expected:
        raise RuntimeError(f"the loader gave {count} batches in an epoch, expected {expected}")


class Log:
    """File of JSON lines that grows; a new training starts it anew.

    Args:
        path: of the file.
        state: of the log at a checkpoint, from which it goes on: what was written later is dropped.
    """

    def __init__(self, path: Path, state: dict[str, float] | None = None) -> None:
        if state is None:
            state = {"bytes": 0, "seconds": 0.0}
        self._file = path.open("a", encoding="utf-8", buffering=1)  # a line at a time reaches the disk whole
        self._file.truncate(min(int(state["bytes"]), path.stat().st_size))
        self._begun = time.perf_counter() - state["seconds"]

    def state_dict(self) -> dict[str, float]:
        return {"bytes": self._file.tell(), "seconds": time.perf_counter() - self._begun}

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
