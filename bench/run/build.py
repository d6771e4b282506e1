"""From a cell to its model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from adapters.heads import HEADS
from backbones.base import Backbone
from backbones.families import FAMILIES
from backbones.families import build as build_backbone
from backbones.names import BackboneName
from bench.spec import Cell


def image_model(cell: Cell) -> Backbone:
    """The cell's backbone on the CPU, before anything is adapted: random weights come from the seed.

    Raises:
        UnsupportedModel, WeightsError: see `backbones.families.build`.
    """
    torch.manual_seed(cell.seed)
    return build_backbone(cell.backbone_name, cell.input_size)


def classifier(cell: Cell, classes: int | Sequence[str], backbone: Backbone | None = None) -> VideoClassifier:
    """The cell's model on the CPU, the same for the same seed: random weights, adapters and head come from it.

    Args:
        cell: what to build.
        classes: their number, or their names by label.
        backbone: what `image_model` has just made of the cell; made here where it is not given.

    Raises:
        UnsupportedModel, WeightsError: see `backbones.families.build`.
        ValueError: options that do not fit.
    """
    strategy, head = STRATEGIES.get(cell.strategy), HEADS.get(cell.head)
    return VideoClassifier(
        image_model(cell) if backbone is None else backbone,
        strategy,
        strategy.options(**cell.options),
        classes=classes if isinstance(classes, int) else len(classes),
        class_names=() if isinstance(classes, int) else tuple(classes),
        frames=cell.frames,
        head=cell.head,
        head_options=head.options(**cell.head_options),
        drop_path=cell.recipe.drop_path,
        drop_path_mode=cell.recipe.drop_path_mode,
        adapter_init=cell.recipe.adapter_init,
        dropout=cell.recipe.dropout,
    )


@cache
def without_weights(name: BackboneName, size: int | None) -> Backbone:
    """The backbone on torch's meta device; with random numbers where a plugin's code needs some."""
    bare = BackboneName(name.family, name.model, "none")
    try:
        with torch.device("meta"):
            opened = build_backbone(bare, size)
    except Exception:  # a plugin's code can raise anything; with numbers it is told what is wrong
        opened = build_backbone(bare, size)
    if reason := FAMILIES.get(name.family).no_text(name):
        opened.text, opened.no_text = None, reason
    return opened
