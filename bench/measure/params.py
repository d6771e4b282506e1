"""Parameter counts of a built model."""

from __future__ import annotations

from adapters.model import VideoClassifier


def count(model: VideoClassifier) -> tuple[int, int]:
    """All parameters, and those that the strategy trains; each parameter counts once."""
    return (
        sum(parameter.numel() for parameter in model.parameters()),
        sum(parameter.numel() for _, parameter in model.trained()),
    )
