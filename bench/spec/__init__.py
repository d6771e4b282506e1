"""Specifications of trainings and their measurements: validated, frozen and hashable."""

from bench.spec.cell import Cell, sized_label
from bench.spec.fields import (
    MAX_FRAMES,
    Decoder,
    FrameCounts,
    FrozenModel,
    InputSize,
    Names,
    Plugins,
    Precision,
    checked_device,
    device_name,
    problems_of,
)
from bench.spec.recipe import Recipe
from bench.spec.request import Matrix, Request
from bench.spec.source import DataSource

__all__ = [
    "MAX_FRAMES",
    "Cell",
    "DataSource",
    "Decoder",
    "FrameCounts",
    "FrozenModel",
    "InputSize",
    "Matrix",
    "Names",
    "Plugins",
    "Precision",
    "Recipe",
    "Request",
    "checked_device",
    "device_name",
    "problems_of",
    "sized_label",
]
