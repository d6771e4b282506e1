"""AdamW over the trained parameters, in groups found by structure, and the released recipe's schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from adapters.classifier import VideoClassifier
from bench.spec import Recipe


def _undecayed(model: VideoClassifier) -> Iterator[nn.Parameter]:
    """Norms, CLS tokens, position embeddings, tables of biases by position, and what a strategy names besides."""
    yield from model.backbone.embeddings()
    yield from model.body.undecayed()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm) or type(module).__name__.lower().endswith("norm"):
            yield from module.parameters(recurse=False)


def parameter_groups(model: VideoClassifier, recipe: Recipe) -> list[dict[str, Any]]:
    """The trained parameters by lr and decay: head, temporal embedding, the rest; norms and embeddings undecayed.

    Each group has `base_lr`, the learning rate that the schedule scales.
    """
    undecayed = {id(p) for p in _undecayed(model)}
    head = {id(p) for p in model.head.parameters()}
    time = {id(p) for p in model.body.time_parameters()}
    # a model of which nothing trains has one group, of no parameters
    groups: dict[tuple[float, float], list[nn.Parameter]] = {} if any(model.trained()) else {(recipe.lr, 0.0): []}
    for _, parameter in model.trained():
        lr = recipe.lr
        if id(parameter) in head:
            lr = recipe.head_lr
        elif id(parameter) in time and recipe.time_lr is not None:
            lr = recipe.time_lr
        decay = 0.0 if id(parameter) in undecayed else recipe.weight_decay
        groups.setdefault((lr, decay), []).append(parameter)
    return [
        {"params": parameters, "base_lr": lr, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]


def adamw(model: VideoClassifier, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW as the recipe says, with torch's fused kernel, one launch for all parameters."""
    return torch.optim.AdamW(parameter_groups(model, recipe), betas=recipe.betas, fused=True)


def lr_scale(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Learning rate of step `step` (from 0) / the group's base learning rate.

    Cosine from 1 to 0 over the epochs, stepped once an epoch or every step; during the warm-up that value is scaled by
    a line from `warmup_start` to 1, stepped every step (AIM's released configuration: mmcv's CosineAnnealing, linear
    warm-up counted in epochs).
    """
    total = recipe.epochs * steps_per_epoch
    done = step if recipe.schedule == "step" else step // steps_per_epoch * steps_per_epoch
    scale = 0.5 * (1 + math.cos(math.pi * done / total))
    warmup = recipe.warmup_epochs * steps_per_epoch
    if step < warmup:
        scale *= 1 - (1 - step / warmup) * (1 - recipe.warmup_start)
    return scale
