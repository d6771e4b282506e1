"""From a cell to its model."""

from __future__ import annotations

import torch

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.families import build as build_backbone
from bench.spec import Cell


def classifier(cell: Cell, classes: int) -> VideoClassifier:
    """The cell's model on the CPU, the same for the same seed: random weights, adapters and head come from it.

    Raises:
        UnsupportedModel, WeightsError: see `backbones.families.build`.
    """
    torch.manual_seed(cell.seed)
    backbone = build_backbone(cell.backbone_name, cell.input_size)
    strategy = STRATEGIES.get(cell.strategy)
    return VideoClassifier(
        backbone,
        strategy,
        strategy.options(**cell.options),
        classes=classes,
        frames=cell.frames,
        drop_path=cell.recipe.drop_path,
        drop_path_mode=cell.recipe.drop_path_mode,
        adapter_init=cell.recipe.adapter_init,
        dropout=cell.recipe.dropout,
    )
