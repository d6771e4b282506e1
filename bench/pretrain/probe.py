"""Probe of a frozen backbone's features on stills: the accuracy of linear classifiers on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backbones.base import Backbone
from bench.data.transforms import normalise
from bench.pretrain.batches import StillBatch, StillBatches
from bench.pretrain.objectives import LOGITS, attribute_loss, split
from bench.pretrain.stills import ATTRIBUTES

_SIZE = 256


@torch.no_grad()
def _features(backbone: Backbone, batches: list[StillBatch]) -> Tensor:
    device = next(backbone.parameters()).device
    found = [backbone(normalise(batch.pictures.to(device), backbone.mean, backbone.std)) for batch in batches]
    return torch.cat(found).float()


def _shown(batches: list[StillBatch], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.cat([batch.shown[name] for batch in batches]).to(device) for name in ATTRIBUTES}


def probe(backbone: Backbone, seed: int = 0, fit: int = 32, held_out: int = 16, steps: int = 400) -> dict[str, float]:
    """Percent right for each attribute, on held-out stills: the likeliest value is one that some shape has.

    Stills that show no value of an attribute are left out of its percentage.

    Args:
        backbone: in evaluation mode for this; its weights stay as they are.
        seed: of the stills.
        fit, held_out: batches of 256 stills to fit the classifiers on, and to test them on.
        steps: of Adam over all features at once.
    """
    training = backbone.training
    backbone.eval()
    sets = [
        list(StillBatches(count, _SIZE, backbone.input_size, seed, stream).drawn(0))
        for count, stream in ((fit, 101), (held_out, 102))
    ]
    features = [_features(backbone, batches) for batches in sets]
    backbone.train(training)
    mean, std = features[0].mean(0), features[0].std(0) + 1e-6
    features = [(found - mean) / std for found in features]
    device = features[0].device
    torch.manual_seed(seed)
    heads = nn.Linear(features[0].shape[1], LOGITS).to(device)
    optimiser = torch.optim.Adam(heads.parameters(), lr=0.02)
    shown = _shown(sets[0], device)
    for _ in range(steps):
        optimiser.zero_grad()
        attribute_loss(split(heads(features[0])), shown).backward()
        optimiser.step()
    with torch.no_grad():
        logits = split(heads(features[1]))
    right = {}
    for name, target in _shown(sets[1], device).items():
        has = target.sum(1) > 0
        hit = target[has].gather(1, logits[name][has].argmax(1, keepdim=True))
        right[name] = 100 * float(hit.mean())
    return right
