"""Files of a pretrained backbone: its weights, and a card with its recipe and its linear probe."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from backbones.base import Backbone
from backbones.families import build, resolve
from backbones.weights import digest
from bench.data.transforms import normalise
from bench.files import write_atomically, write_text
from bench.measure.machine import device_name, versions
from bench.pretrain.stills import ATTRIBUTES, StillBatch, StillBatches
from bench.pretrain.train import LOGITS, Pretrained, attribute_loss, split


def describe(family: str, found: Pretrained, device: torch.device) -> dict[str, Any]:
    """The card: recipe, time, machine, and the linear probe of the weights beside that of random ones."""
    torch.manual_seed(found.recipe.seed)
    untrained = build(resolve(f"{family}:tiny@none", "tiny")).to(device)
    return {
        "backbone": f"{family}:tiny",
        "objective": found.objective,
        "data": "rendered stills, drawn anew for every step (bench/pretrain/stills.py)",
        "recipe": asdict(found.recipe),
        "stills": found.recipe.steps * found.recipe.batch_size,
        "last_loss": found.losses[-1],
        "seconds": round(found.seconds, 1),
        "device": device_name(str(device)),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "linear_probe_percent": {name: round(value, 1) for name, value in probe(found.backbone).items()},
        "linear_probe_percent_at_none": {name: round(value, 1) for name, value in probe(untrained).items()},
        "weights_sha256": digest(found.backbone),
    }


def write(family: str, found: Pretrained, device: torch.device, folder: Path) -> tuple[Path, Path]:
    """`<family>_tiny.safetensors`, a state dict of the library's own model, and `<family>_tiny.json`, its card.

    Raises OSError where the folder cannot be written.
    """
    weights, card = folder / f"{family}_tiny.safetensors", folder / f"{family}_tiny.json"
    about = describe(family, found, device)
    model: Any = found.backbone.model
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(weights, lambda path: path.write_bytes(save(state)))
    write_text(card, json.dumps(about, indent=2) + "\n")
    return weights, card


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
