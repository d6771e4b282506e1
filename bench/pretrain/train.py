"""Pretraining of a family's tiny backbone on stills: on their attributes as labels, or on their captions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone
from backbones.families import build, resolve
from bench.data.transforms import normalise
from bench.pretrain.stills import ATTRIBUTES, CONTEXT, VOCABULARY, StillBatch, StillBatches


def split(logits: Tensor) -> dict[str, Tensor]:
    """(B, values of all attributes) -> attribute -> (B, values)."""
    sizes = [len(words) for words in ATTRIBUTES.values()]
    return dict(zip(ATTRIBUTES, logits.split(sizes, dim=1), strict=True))


LOGITS = sum(len(words) for words in ATTRIBUTES.values())


def attribute_loss(logits: dict[str, Tensor], shown: dict[str, Tensor]) -> Tensor:
    """Sum over the attributes of the mean cross-entropy, the target spread evenly over the values that are shown.

    Stills that show no value of an attribute (the angle of a circle) do not count for it.
    """
    total = torch.zeros((), device=next(iter(logits.values())).device)
    for name, target in shown.items():
        values = target.sum(1, keepdim=True)
        has = values[:, 0] > 0
        if has.any():
            total = total + F.cross_entropy(logits[name][has], (target / values.clamp(min=1))[has])
    return total


class Attributes(nn.Module):
    """A linear classifier for each attribute (vit, swin)."""

    name = "supervised attributes"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.Linear(width, LOGITS)

    def forward(self, features: Tensor, batch: StillBatch) -> Tensor:
        return attribute_loss(split(self.heads(features)), batch.shown)


class Captions(nn.Module):
    """Image-text contrast (Radford et al., 2021) with open_clip's text tower and loss.

    The image's features are compared with the text's as they are: behind a projection of their own, what tells few
    pairs apart would stay small in them, and a linear head would find it slowly.
    """

    name = "image-text contrastive, captions"

    def __init__(self, width: int) -> None:
        super().__init__()
        from open_clip.loss import ClipLoss
        from open_clip.transformer import TextTransformer

        self.text = TextTransformer(
            context_length=CONTEXT, vocab_size=VOCABULARY, width=64, heads=4, layers=2, output_dim=width
        )
        self.scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.loss = ClipLoss()

    def forward(self, features: Tensor, batch: StillBatch) -> Tensor:
        image = F.normalize(features, dim=1)
        text = F.normalize(self.text(batch.captions), dim=1)
        loss: Tensor = self.loss(image, text, self.scale.clamp(max=4.6).exp())
        return loss


@dataclass(frozen=True)
class PretrainRecipe:
    """AdamW with a linear warm-up and a cosine to 0, stepped every step."""

    steps: int = 5000
    batch_size: int = 128
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_steps: int = 300
    clip_norm: float = 1.0
    seed: int = 0


# families whose towers are trained with captions; all others learn attributes
CONTRASTIVE = ("clip",)

# a contrast learns from the batch it is drawn against: small ones are told apart by colour and number alone. With more
# steps or larger batches a probe reads more off the features, but a head of few steps less: their directions are uneven
_CHANGES: dict[str, dict[str, Any]] = {"clip": {"steps": 1400, "batch_size": 256}, "swin": {"steps": 4000}}

# (step, steps, loss, stills a second)
Progress = Callable[[int, int, float, float], None]


@dataclass
class Pretrained:
    """A pretrained backbone with its recipe, time and losses."""

    backbone: Backbone
    objective: str
    recipe: PretrainRecipe
    seconds: float
    losses: list[float] = field(default_factory=list)


def recipe_for(family: str, steps: int | None = None, seed: int = 0) -> PretrainRecipe:
    """The recipe of a family: how the bundled weights were made."""
    chosen = replace(PretrainRecipe(seed=seed), **_CHANGES.get(family, {}))
    return chosen if steps is None else replace(chosen, steps=steps)


def _lr_scale(recipe: PretrainRecipe, step: int) -> float:
    warm = min(1.0, (step + 1) / max(1, min(recipe.warmup_steps, recipe.steps // 10)))
    return warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def _groups(modules: list[nn.Module], recipe: PretrainRecipe) -> list[dict[str, object]]:
    """Weight decay for matrices alone."""
    parameters = [p for module in modules for p in module.parameters()]
    return [
        {"params": [p for p in parameters if p.ndim == 2 and min(p.shape) > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim != 2 or min(p.shape) == 1], "weight_decay": 0.0},
    ]


def pretrain(
    family: str, recipe: PretrainRecipe, device: torch.device, progress: Progress | None = None, processes: int = 1
) -> Pretrained:
    """Train a family's tiny backbone from random weights.

    Args:
        family: whose tiny model is trained.
        recipe: see `recipe_for`.
        device: where.
        progress: called every 50 steps.
        processes: that draw stills beside this one.
    """
    begun = time.perf_counter()
    torch.manual_seed(recipe.seed)
    backbone = build(resolve(f"{family}:tiny@none", "tiny")).to(device).train()
    objective = (Captions if family in CONTRASTIVE else Attributes)(backbone.width).to(device)
    optimiser = torch.optim.AdamW(_groups([backbone, objective], recipe), lr=recipe.lr)
    stills = StillBatches(recipe.steps, recipe.batch_size, backbone.input_size, recipe.seed, stream=100)
    found = Pretrained(backbone, objective.name, recipe, 0.0)
    recent, since = [], time.perf_counter()
    for step, batch in enumerate(stills.drawn(processes)):
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * _lr_scale(recipe, step)
        batch = StillBatch(
            batch.pictures.to(device), {n: t.to(device) for n, t in batch.shown.items()}, batch.captions.to(device)
        )
        loss = objective(backbone(normalise(batch.pictures, backbone.mean, backbone.std)), batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], recipe.clip_norm)
        optimiser.step()
        recent.append(loss.detach())
        if (step + 1) % 50 == 0 or step + 1 == recipe.steps:
            mean = torch.stack(recent).mean().item()
            now = time.perf_counter()
            found.losses.append(mean)
            if progress:
                progress(step + 1, recipe.steps, mean, len(recent) * recipe.batch_size / (now - since))
            recent, since = [], now
    found.seconds = time.perf_counter() - begun
    backbone.eval()
    return found
