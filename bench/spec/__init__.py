"""Specifications of trainings and their measurements: validated, frozen and hashable."""

from bench.spec.cell import STAGES, Cell, ModelFile, sized_label
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
from bench.spec.request import EvaluationRequest, Matrix, PredictionRequest, ProfileRequest, Request
from bench.spec.source import DataSource
from bench.spec.tuning import Budget, Dimension, Trial, Tuning

__all__ = [
    "MAX_FRAMES",
    "STAGES",
    "Budget",
    "Cell",
    "DataSource",
    "Decoder",
    "Dimension",
    "EvaluationRequest",
    "FrameCounts",
    "FrozenModel",
    "InputSize",
    "Matrix",
    "ModelFile",
    "Names",
    "Plugins",
    "Precision",
    "PredictionRequest",
    "ProfileRequest",
    "Recipe",
    "Request",
    "Trial",
    "Tuning",
    "checked_device",
    "device_name",
    "problems_of",
    "sized_label",
]
