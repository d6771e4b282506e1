"""LoRA's update in the format of the library peft: adapter_config.json and adapter_model.safetensors in a folder.

peft's base model is the library's own image model, timm's or open_clip's tower, whose modules it names. Where a model
keeps query, key and value in one matrix, peft updates the whole of it: its A is the stack of ours, its B has ours in
blocks, and its rank is the sum of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters.classifier import VideoClassifier
from adapters.lora import LoRA
from backbones.base import Block
from backbones.projections import Projection
from bench.files import write_atomically, write_text
from bench.run.model_files.adapter_file import AdapterFile, content
from bench.run.model_files.base import PEFT

_CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
# where the library's own model has its classifier; an image tower has none, there the head keeps our name
_HEADS = {"vit": "head", "swin": "head.fc"}


@dataclass
class _Target:
    """A module that peft updates.

    Attributes:
        path: in peft's base model.
        owner: the module itself.
        parts: the names that the adapter file gives the updates -> their rows; in the order of peft's rank.
    """

    path: str
    owner: nn.Module
    parts: dict[str, slice] = field(default_factory=dict)


def export(checkpoint: AdapterFile, folder: Path) -> list[str]:
    """Write a LoRA's update as peft loads it onto the library's own model.

    Returns:
        What a user of the folder must know, a sentence each.

    Raises:
        UserError: the cell is not a LoRA, or its model cannot be built.
        OSError: the folder cannot be written.
    """
    if checkpoint.strategy != LoRA.name:
        raise checkpoint.wrong([f"it holds the strategy {checkpoint.strategy}: peft's format has {LoRA.name} alone"])
    if checkpoint.merged:
        raise checkpoint.wrong(["its updates are folded into its matrices: expected the adapter file of the training"])
    model, notes = checkpoint.build(checkpoint.cell.frames)
    if "output" in model.options.roles and _joint_attention(model.backbone.blocks[0]) is not None:
        # peft 0.21 adds it to the weight, then once more (tuners/lora/layer.py, MultiheadAttention.merge)
        raise checkpoint.wrong(
            ["peft computes the update of an nn.MultiheadAttention's output twice: expected without"]
        )
    options, family = model.options, checkpoint.cell.backbone_name.family
    tensors: dict[str, Tensor] = {}
    ranks, alphas = {}, {}
    state = dict(model.stored())
    found = _targets(model)
    for target in found:
        count = len(target.parts)
        ranks[target.path], alphas[target.path] = count * options.rank, count * options.alpha
        tensors |= _stacked(target, state, options.rank, count)
    head = _HEADS.get(family) if checkpoint.cell.head == "linear" else None
    for name, parameter in state.items():
        if name.startswith("head."):
            told = name.replace("head.linear", head, 1) if head else name
            tensors[f"{_PREFIX}{told}"] = parameter.detach()
    attention = any(isinstance(target.owner, nn.MultiheadAttention) for target in found)
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": checkpoint.cell.backbone_name.model,
        "inference_mode": True,
        "r": options.rank,
        "lora_alpha": options.alpha,
        # peft knows none within nn.MultiheadAttention
        "lora_dropout": 0.0 if attention else options.dropout,
        "target_modules": list(ranks),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "modules_to_save": [head] if head else None,
        "bias": "none",
        "fan_in_fan_out": False,
    }
    written = content(tensors, checkpoint.cell, checkpoint.class_names or (), checkpoint.weights_sha256, layout="peft")
    folder.mkdir(exist_ok=True)
    write_atomically(folder / PEFT, lambda path: path.write_bytes(written))
    write_text(folder / _CONFIG, json.dumps(config, indent=2) + "\n")
    if not head:
        notes.append(
            "the library's own model has no classifier: the head's tensors are in the file, and peft skips them"
        )
    return notes


def converted(model: VideoClassifier, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a folder that `export` wrote, by the names that the model gives them.

    Raises:
        ValueError: an update that is not one of each projection by itself.
    """
    left = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    found: dict[str, Tensor] = {}
    rank = model.options.rank
    for target in _targets(model):
        output = f"{target.path}.base_layer.out_proj"
        beside = [left.pop(f"{output}.{kind}.weight", None) for kind in ("lora_A", "lora_B")]
        if beside[1] is not None and beside[1].any():
            raise ValueError(f"{output} has an update: expected none, as peft computes it twice")
        down, up = (left.pop(f"{target.path}.{kind}.weight", None) for kind in ("lora_A", "lora_B"))
        if down is None or up is None:
            continue  # it is told as missing
        remaining = up.clone()
        for index, (name, rows) in enumerate(target.parts.items()):
            columns = slice(index * rank, (index + 1) * rank)
            found[f"{name}.down.weight"] = down[columns]
            found[f"{name}.up.weight"] = up[rows, columns]
            remaining[rows, columns] = 0
        if remaining.any():
            raise ValueError(f"the update of {target.path} mixes projections: expected one of each by itself")
    for name, tensor in left.items():
        module, _, kind = name.rpartition(".")
        found[f"head.linear.{kind}" if module in _HEADS.values() else name] = tensor
    return found


def _targets(model: VideoClassifier) -> list[_Target]:
    """The modules that hold the updated matrices, in the order of computation."""
    paths = {id(module): name for name, module in model.backbone.named_modules()}
    found: dict[int, _Target] = {}
    for index, block in enumerate(model.backbone.blocks):
        for role in model.options.roles:
            projection = _projection(block.linear(role))
            path = paths[id(projection.owner)].removeprefix("model.")
            target = found.setdefault(id(projection.owner), _Target(path, projection.owner))
            target.parts[f"body.blocks.{index}.updates.{role}"] = projection.rows
    return list(found.values())


def _projection(found: Projection | None) -> Projection:
    assert found is not None  # LoRA refuses such a backbone
    return found


def _joint_attention(block: Block) -> nn.MultiheadAttention | None:
    attention = getattr(block.module, "attn", None)
    return attention if isinstance(attention, nn.MultiheadAttention) else None


def _stacked(target: _Target, state: Mapping[str, Tensor], rank: int, count: int) -> dict[str, Tensor]:
    """peft's A and B of a target."""
    owner: Any = target.owner
    attention = isinstance(owner, nn.MultiheadAttention)
    width, rows = (owner.embed_dim, 3 * owner.embed_dim) if attention else (owner.in_features, owner.out_features)
    down, up = torch.zeros(count * rank, width), torch.zeros(rows, count * rank)
    for index, (name, at) in enumerate(target.parts.items()):
        columns = slice(index * rank, (index + 1) * rank)
        down[columns] = state[f"{name}.down.weight"].detach()
        up[at, columns] = state[f"{name}.up.weight"].detach()
    tensors = {f"{target.path}.lora_A.weight": down, f"{target.path}.lora_B.weight": up}
    if attention:  # which peft updates with its output's matrix, or not at all
        output = f"{target.path}.base_layer.out_proj"
        tensors[f"{output}.lora_A.weight"] = torch.zeros(count * rank, width)
        tensors[f"{output}.lora_B.weight"] = torch.zeros(width, count * rank)
    return {f"{_PREFIX}{name}": tensor for name, tensor in tensors.items()}
