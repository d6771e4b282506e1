"""From a cell to its model."""

from __future__ import annotations

import torch

from adapters.model import VideoClassifier
from adapters.strategy import STRATEGIES
from backbones.families import build as build_backbone
from bench.spec import Cell


def classifier(cell: Cell, classes: int) -> VideoClassifier:
    """The cell's model on the CPU, the same for the same seed: random weights, adapters and head come from it.

    Raises:
        UnsupportedModel, WeightsError: see `backbones.families.build`.
    """
    torch.manual_seed(cell.seed)
    backbone = build_backbone(cell.backbone_name)
    strategy = STRATEGIES.get(cell.strategy)
    return VideoClassifier(
        backbone,
        strategy,
        strategy.options(**cell.options),
        classes=classes,
        frames=cell.frames,
        drop_path=cell.recipe.drop_path,
        drop_path_mode=cell.recipe.drop_path_mode,
        dropout=cell.recipe.dropout,
    )
