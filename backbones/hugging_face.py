"""Image models as Hugging Face's transformers has them: their tensors by the names that timm or OpenAI gives them.

The names are those on the hub, and those that transformers computes with since version 5 and can save as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from backbones.names import WeightsError
from backbones.settings import Settings, settings_beside, settings_of_others
from backbones.weight_files import WeightFiles

# what no backbone here has: text towers, projections and classifiers, decoders, poolers that only their own
# pretraining used, and what is computed anew
IGNORED = re.compile(
    r"(text_model|text_projection|visual_projection|classifier|cls_classifier|distillation_classifier|decoder|pooler)\..+"
    r"|logit_scale|logit_bias|embeddings\.(mask_token|position_ids)"
    r"|.+\.(relative_position_index|relative_coords_table)"
)
# the tensor by which a layout is known and its prefix found: of CLIP and SigLIP, of the others
MARKERS = ("embeddings.patch_embedding.weight", "embeddings.patch_embeddings.projection.weight")

# outside of the blocks: theirs -> timm's
OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.class_embedding": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.position_embedding.weight": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.norm": "patch_embed.norm",
    "pre_layrnorm": "norm_pre",
    "post_layernorm": "norm",
    "layernorm": "norm",
    # SigLIP's attention pooling
    "head.probe": "attn_pool.latent",
    "head.attention.in_proj_weight": "attn_pool.in_proj.weight",
    "head.attention.in_proj_bias": "attn_pool.in_proj.bias",
    "head.attention.out_proj": "attn_pool.proj",
    "head.layernorm": "attn_pool.norm",
    "head.mlp.fc1": "attn_pool.mlp.fc1",
    "head.mlp.fc2": "attn_pool.mlp.fc2",
}
# within a block, or a stage of a Swin
INSIDE = {
    "layernorm_before": "norm1",
    "layer_norm1": "norm1",
    "norm1": "norm1",
    "layernorm_after": "norm2",
    "layer_norm2": "norm2",
    "norm2": "norm2",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "self_attn.out_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "intermediate.dense": "mlp.fc1",
    "mlp.fc1": "mlp.fc1",
    "mlp.weights_in": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_out": "mlp.fc2",
    "mlp.down_proj": "mlp.fc2",
    "attention.self.relative_position_bias_table": "attn.relative_position_bias_table",
    "attention.relative_position_bias.relative_position_bias_table": "attn.relative_position_bias_table",
    "attention.self.logit_scale": "attn.logit_scale",
    "attention.self.continuous_position_bias_mlp.0": "attn.cpb_mlp.0",
    "attention.self.continuous_position_bias_mlp.2": "attn.cpb_mlp.2",
    "downsample.norm": "downsample.norm",
    "downsample.reduction": "downsample.reduction",
}
# matrices that timm has in one, in this order
STACKED = {
    "attn.qkv": (
        ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
        ("attention.self.query", "attention.self.key", "attention.self.value"),
        ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ),
    "mlp.fc1": (("mlp.gate_proj", "mlp.up_proj"),),
}
# a Swin V2 has no bias on its keys
SWINV2 = {"attention.self.query.bias": "attn.q_bias", "attention.self.value.bias": "attn.v_bias"}
# timm's -> OpenAI's, in this order; open_clip knows no others
OPENAI = (
    ("cls_token", "class_embedding"),
    ("pos_embed", "positional_embedding"),
    ("patch_embed.proj", "conv1"),
    ("norm_pre", "ln_pre"),
    ("blocks.", "transformer.resblocks."),
    ("norm1", "ln_1"),
    ("norm2", "ln_2"),
    ("attn.qkv.", "attn.in_proj_"),
    ("attn.proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("norm.", "ln_post."),
)

_LAYER = re.compile(r"(?:encoder\.)?layers?\.(\d+)\.(blocks\.\d+\.)?(.+)")
_PARTS = {part: (ours, names, at) for ours, rows in STACKED.items() for names in rows for at, part in enumerate(names)}


def understood(state: dict[str, Tensor], files: WeightFiles, path: Path) -> tuple[dict[str, Tensor], Settings]:
    """A state dict by names that the libraries here know, and the settings that the files beside it give.

    Args:
        state: of any origin; what is not transformers' stays as it is.
        files: where it comes from.
        path: what the user calls it.

    Raises:
        WeightsError: tensors that no such model has or lacks, settings that cannot be read or are of another model.
    """
    marker, prefix = _marker(state, path)
    if not marker:
        return state, settings_of_others(files)
    layout = _layout(state, marker, prefix)
    settings = replace(settings_beside(files, layout, path), patch=state[prefix + marker].shape[-1])
    return _converted(state, prefix, layout, path), settings


def _marker(state: Mapping[str, Tensor], path: Path) -> tuple[str, str]:
    """The marker in a state dict and the prefix before it; empty texts where there is none."""
    found = [
        (marker, name.removesuffix(marker))
        for name, value in state.items()
        for marker in MARKERS
        if (name == marker or name.endswith(f".{marker}")) and value.dim() == 4
    ]
    if len(found) > 1:
        raise WeightsError(f"{path} holds several models: {', '.join(prefix for _, prefix in found[:5])}; expected one")
    return found[0] if found else ("", "")


def _layout(state: Mapping[str, Tensor], marker: str, prefix: str) -> str:
    if marker == MARKERS[0]:
        return "clip" if f"{prefix}embeddings.class_embedding" in state else "siglip"
    signs = {"continuous_position_bias_mlp": "swinv2", "relative_position_bias_table": "swin", "lambda1": "dinov2"}
    return next((layout for sign, layout in signs.items() if any(sign in name for name in state)), "vit")


def _converted(state: Mapping[str, Tensor], prefix: str, layout: str, path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    wanted: dict[str, list[str]] = {}
    strange = []
    for name, value in state.items():
        # what lies beside the image model has other names than its parts
        own = name.removeprefix(prefix)
        if IGNORED.fullmatch(own):
            continue
        ours, siblings, at = _renamed(own, layout) if name.startswith(prefix) else ("", (), 0)
        if not ours or ours in found or (ours in stacks and (not siblings or at in stacks[ours])):
            strange.append(name)
        elif siblings:
            stacks.setdefault(ours, {})[at] = value
            wanted[ours] = [name.removesuffix(own) + sibling for sibling in siblings]
        else:
            found[ours] = value
    missing = [name for ours, names in wanted.items() for at, name in enumerate(names) if at not in stacks[ours]]
    problems = [f"{what}: {_some(names)}" for what, names in (("missing", missing), ("surplus", strange)) if names]
    if problems:
        raise WeightsError(f"{path} does not fit a {layout} model of transformers; {'; '.join(problems)}")
    try:
        found |= {ours: torch.cat([parts[at] for at in sorted(parts)]) for ours, parts in stacks.items()}
        return _finished(found, layout)
    except (RuntimeError, IndexError) as error:
        raise WeightsError(f"{path} does not fit a {layout} model of transformers: {error}") from error


def _renamed(name: str, layout: str) -> tuple[str, tuple[str, ...], int]:
    """Our name of a tensor, and of a matrix in parts all their names of the parts and the place of this one."""
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return _looked_up(OUTSIDE, name), (), 0
    number, block, rest = layer[1], layer[2] or "", layer[3]
    swin = layout.startswith("swin")
    if swin != bool(block) and not (swin and rest.startswith("downsample.")):
        return "", (), 0
    place = f"layers.{number}.{block}" if swin else f"blocks.{number}."
    if layout == "swinv2" and rest in SWINV2:
        return place + SWINV2[rest], (), 0
    part, _, kind = rest.rpartition(".")
    if part in _PARTS and kind in ("weight", "bias"):
        ours, parts, at = _PARTS[part]
        siblings = tuple(f"{name.removesuffix(rest)}{sibling}.{kind}" for sibling in parts)
        return f"{place}{ours}.{kind}", siblings, at
    ours = _looked_up(INSIDE, rest)
    return ours and place + ours, (), 0


def _looked_up(table: Mapping[str, str], name: str) -> str:
    """A tensor's name by a table of names of tensors and modules; empty where it has none."""
    module, _, kind = name.rpartition(".")
    if name in table:
        return table[name]
    return f"{table[module]}.{kind}" if module in table and kind in ("weight", "bias") else ""


def _finished(found: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Tensors cut, joined and shaped as ours are."""
    if layout == "clip":
        return {_openai(name): value for name, value in found.items()}
    if layout == "siglip" and "pos_embed" in found:
        found["pos_embed"] = found["pos_embed"][None]
    if "reg_token" in found and {"cls_token", "pos_embed"} <= found.keys():
        # timm's positions are those of the patches alone: that of CLS is part of the token
        found["cls_token"] = found["cls_token"] + found["pos_embed"][:, :1]
        found["pos_embed"] = found["pos_embed"][:, 1:]
    for kind in ("weight", "bias"):
        if (whole := found.pop(f"attn_pool.in_proj.{kind}", None)) is not None:
            width = len(whole) // 3
            found[f"attn_pool.q.{kind}"], found[f"attn_pool.kv.{kind}"] = whole[:width], whole[width:]
    return found


def _openai(name: str) -> str:
    for ours, theirs in OPENAI:
        name = name.replace(ours, theirs)
    return name


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
