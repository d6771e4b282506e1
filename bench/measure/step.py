"""Multiply-accumulates that a training step needs."""

from __future__ import annotations

import torch

from adapters.classifier import VideoClassifier
from bench.measure.flops import counted, view_of


def step_macs(model: VideoClassifier, clips: int, *, training: bool) -> int:
    """Multiply-accumulates of a batch: forward, and in training backward, which leaves out what no gradient needs.

    Frozen weights get no gradient, and nothing is computed below the lowest parameter that trains.

    Args:
        model: on torch's meta device, where only shapes are computed.
        clips: B.

    Raises:
        UncountedOperation: an operation with products that nothing counts.
    """
    view = view_of(model, clips)
    if not training:
        with torch.no_grad():
            return counted(lambda: model.eval()(view))
    return counted(lambda: model.train()(view).sum().backward())
