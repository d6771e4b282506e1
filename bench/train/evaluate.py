"""Predictions of a trained model over a test's views, and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from adapters.classifier import VideoClassifier
from bench.data.dataset import DataError
from bench.spec import Precision
from bench.train.compute import Batched, Computation
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
    def __call__(self, views: Tensor) -> Tensor:
        """(B, V, T, 3, H, W) uint8, V views a video -> probabilities (B, classes), float32 on the CPU."""
        self.model.eval()
        batch, count = views.shape[:2]
        flat = views.flatten(0, 1)
        parts = self.in_parts(lambda: [self._softmax(part) for part in flat.split(self.micro_batch)], len(flat))
        return torch.cat(parts).view(batch, count, -1).mean(dim=1).cpu()

    def _softmax(self, clips: Tensor) -> Tensor:
        return self.computation(clips, self.micro_batch).float().softmax(dim=1)


@dataclass
class Predictions:
    """Predictions of a test: names, labels (V,) and probabilities (V, classes) of V videos."""

    names: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    # probabilities with each clip's frames in another order: "reversed", "shuffled"
    reordered: dict[str, np.ndarray] = field(default_factory=dict)


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
    batches: Iterable[tuple[Tensor, Tensor, list[str]]],
    *,
    order_test: bool,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Predictions:
    """Predict every video of a test.

    Args:
        predictor: the model.
        batches: views (B, V, T, 3, H, W) uint8, labels (B,), names.
        order_test: also predict with the frames of each clip reversed, and shuffled (per video, seeded).
        on_batch: called with the number of videos done.

    Raises:
        Diverged: a probability that is not a number.
        DataError: not one video of the test could be read.
    """
    generator = torch.Generator().manual_seed(0)
    names: list[str] = []
    labels: list[Tensor] = []
    straight: list[Tensor] = []
    reordered: dict[str, list[Tensor]] = {"reversed": [], "shuffled": []} if order_test else {}
    for views, label, name in batches:
        straight.append(predictor(views))
        if order_test:
            reordered["reversed"].append(predictor(views.flip(2)))
            orders = torch.stack([shuffled_order(views.shape[2], generator) for _ in views])
            mixed_up = torch.stack([view[:, order] for view, order in zip(views, orders, strict=True)])
            reordered["shuffled"].append(predictor(mixed_up))
        labels.append(label)
        names += name
        on_batch(len(names))
    if not names:
        raise DataError("not one video of the test could be read")
    if not all(torch.isfinite(part).all() for part in (*straight, *(p for parts in reordered.values() for p in parts))):
        raise Diverged("a prediction is not a number: try a lower lr, or fp32")
    return Predictions(
        names,
        torch.cat(labels).numpy(),
        torch.cat(straight).numpy(),
        {order: torch.cat(parts).numpy() for order, parts in reordered.items()},
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
