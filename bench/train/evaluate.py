"""Predictions of a trained model over a test's views, and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapters.classifier import VideoClassifier
from adapters.frozen_pass import KeptStates
from bench.data.dataset import DataError
from bench.spec import Precision
from bench.train.compute import Batched, Computation
from bench.train.ranks import ALONE, Ranks
from bench.train.trainer import Diverged


class Predictor(Batched):
    """Class probabilities of videos: softmax of each view, then the mean over views.

    Args:
        model: put on the device; its frozen weights are cast to the precision (`cast_frozen_weights`).
        device, precision: where, and in which number format.
        micro_batch: views computed at once, halved where memory runs out.
        compile: see `bench.train.compute.Computation`.
    """

    def __init__(
        self,
        model: VideoClassifier,
        device: torch.device,
        precision: Precision,
        micro_batch: int,
        compile: bool | str = False,
    ) -> None:
        super().__init__(Computation(model, device, precision, compile), micro_batch)
        self.model = model

    @torch.no_grad()
    def __call__(self, views: Tensor | KeptStates) -> Tensor:
        """(B, V, T, 3, H, W) uint8, V views a video -> probabilities (B, classes), float32 on the CPU.

        Of kept states each clip is a video's one view.
        """
        self.model.eval()
        flat: Tensor | KeptStates
        if isinstance(views, KeptStates):
            batch, count, flat = len(views), 1, views
        else:
            (batch, count), flat = views.shape[:2], views.flatten(0, 1)
        parts = self.in_parts(lambda: [self._softmax(part) for part in flat.split(self.micro_batch)], len(flat))
        return torch.cat(parts).view(batch, count, -1).mean(dim=1).cpu()

    def _softmax(self, clips: Tensor | KeptStates) -> Tensor:
        return self.computation(clips, self.micro_batch).float().softmax(dim=1)


# names, labels and probabilities, straight and reordered, of some videos
_Predicted = tuple[list[str], np.ndarray, list[np.ndarray]]


@dataclass
class Predictions:
    """Predictions of a test: names, labels (V,) and probabilities (V, classes) of V videos."""

    names: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    # probabilities with each clip's frames in another order: "reversed", "shuffled"
    reordered: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write them as npz, `probabilities_reversed` and so on beside `probabilities`. Raises OSError."""
        arrays: dict[str, Any] = {
            "names": np.array(self.names),
            "labels": self.labels,
            "probabilities": self.probabilities.astype(np.float32),
        }
        arrays |= {f"probabilities_{order}": p.astype(np.float32) for order, p in self.reordered.items()}
        with path.open("wb") as file:  # numpy appends its suffix to a name that has none
            np.savez_compressed(file, **arrays)


def shuffled_order(frames: int, generator: torch.Generator) -> Tensor:
    """A random order of the frames that is neither the order itself nor, from three frames on, its reverse."""
    order = torch.arange(frames)
    while frames > 1 and (
        order.equal(torch.arange(frames)) or (frames > 2 and order.equal(torch.arange(frames).flip(0)))
    ):
        order = torch.randperm(frames, generator=generator)
    return order


def predict(
    predictor: Predictor,
    batches: Iterable[tuple[Tensor | KeptStates, Tensor, list[str]]],
    *,
    order_test: bool,
    on_batch: Callable[[int], None] = lambda done: None,
    ranks: Ranks = ALONE,
) -> Predictions:
    """Predict every video of a test.

    Of several ranks each predicts its share of every batch; all return the predictions of all, in the list's order.

    Args:
        predictor: the model.
        batches: views (B, V, T, 3, H, W) uint8, labels (B,), names; without the order test also kept states.
        order_test: also predict with the frames of each clip reversed, and shuffled (per video, seeded).
        on_batch: called with the number of videos done, by all ranks.
        ranks: the processes that predict together.

    Raises:
        Diverged: a probability that is not a number.
        DataError: not one video of the test could be read.
    """
    generator = torch.Generator().manual_seed(0)
    kinds = ("straight", "reversed", "shuffled") if order_test else ("straight",)
    done = 0
    batchwise: list[_Predicted | None] = []  # None: nothing of a batch is this rank's
    for views, label, name in batches:
        shown = views.shape[2] if name and isinstance(views, Tensor) else 0
        shapes = ranks.gather((len(name), shown))
        # every rank draws the orders of all videos, so that a video's order is the same however many ranks there are
        orders: list[Tensor] = []
        if order_test:
            frames = max(frames for _, frames in shapes)
            orders = [shuffled_order(frames, generator) for count, _ in shapes for _ in range(count)]
        before = sum(count for count, _ in shapes[: ranks.rank])
        found: _Predicted | None = None
        if name:
            predicted = [predictor(views)]
            if order_test and isinstance(views, Tensor):
                predicted.append(predictor(views.flip(2)))
                own = orders[before : before + len(name)]
                mixed_up = torch.stack([view[:, order] for view, order in zip(views, own, strict=True)])
                predicted.append(predictor(mixed_up))
            found = list(name), label.numpy(), [each.numpy() for each in predicted]
        batchwise.append(found)
        done += sum(count for count, _ in shapes)
        on_batch(done)
    gathered = ranks.gather(batchwise)
    parts = [part for of_ranks in zip(*gathered, strict=True) for part in of_ranks if part is not None]
    if not parts:
        raise DataError("not one video of the test could be read")
    probabilities = {kind: np.concatenate([found[place] for _, _, found in parts]) for place, kind in enumerate(kinds)}
    if not all(np.isfinite(each).all() for each in probabilities.values()):
        raise Diverged("a prediction is not a number: try a lower lr, or fp32")
    return Predictions(
        [name for names, _, _ in parts for name in names],
        np.concatenate([labels for _, labels, _ in parts]),
        probabilities.pop("straight"),
        probabilities,
    )


def top_k(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Percent of videos whose label is among the k most probable classes; ties count for the lower class index."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return 100.0 * float((order == labels[:, None]).any(axis=1).mean())


def top_5(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """`top_k` of five; None where there are no more classes than that, and every video would count as right."""
    return top_k(probabilities, labels, 5) if probabilities.shape[1] > 5 else None


def mean_class(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the percent of their videos that are predicted right.

    mmaction's mean_class_accuracy counts a class that is predicted and never occurs, too, as 0 percent.
    """
    right = probabilities.argmax(axis=1) == labels
    return 100.0 * float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
