"""Writes a pretrained backbone and the card that says how it came about and what it knows."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from backbones.families import build, resolve
from backbones.weights import digest
from bench.files import write_atomically, write_text
from bench.measure.machine import device_name, versions
from bench.pretrain.probe import probe
from bench.pretrain.train import Pretrained


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
