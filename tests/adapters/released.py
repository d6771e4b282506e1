"""State dicts as AIM's released code writes them, name by name, and their logits by the equations.

Nothing here comes from the code under test: the names are written out, the tensors are random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor

from tests.reference import aim_block as plain
from tests.reference.windows import merged, windowed

State = dict[str, Tensor]
CLASSES = 10


@dataclass
class Maker:
    """Fills a state dict with random tensors; on the device "meta" with shapes alone."""

    device: str = "cpu"
    seed: int = 0
    state: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def tensor(self, name: str, *shape: int, mean: float = 0.0, std: float = 0.2) -> None:
        if self.device == "meta":
            self.state[name] = torch.empty(shape, device="meta")
        else:
            self.state[name] = mean + std * torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def linear(self, name: str, inputs: int, outputs: int) -> None:
        self.tensor(f"{name}.weight", outputs, inputs)
        self.tensor(f"{name}.bias", outputs)

    def norm(self, name: str, width: int) -> None:
        self.tensor(f"{name}.weight", width, mean=1.0)
        self.tensor(f"{name}.bias", width)

    def adapter(self, name: str, width: int, hidden: int) -> None:
        self.linear(f"{name}.D_fc1", width, hidden)
        self.linear(f"{name}.D_fc2", hidden, width)


def clip(
    adapters: Sequence[Sequence[str]],
    *,
    width: int = 96,
    patch: int = 8,
    size: int = 32,
    hidden: int = 24,
    frames: int | None = 3,
    device: str = "cpu",
    classes: int = CLASSES,
) -> State:
    """A CLIP with these adapters in each block, such as ("S_Adapter", "T_Adapter")."""
    maker = Maker(device)
    maker.tensor("backbone.class_embedding", width)
    maker.tensor("backbone.positional_embedding", (size // patch) ** 2 + 1, width)
    if frames is not None:
        maker.tensor("backbone.temporal_embedding", 1, frames, width)
    maker.tensor("backbone.conv1.weight", width, 3, patch, patch)
    maker.norm("backbone.ln_pre", width)
    for index, kinds in enumerate(adapters):
        block = f"backbone.transformer.resblocks.{index}"
        maker.tensor(f"{block}.attn.in_proj_weight", 3 * width, width)
        maker.tensor(f"{block}.attn.in_proj_bias", 3 * width)
        maker.linear(f"{block}.attn.out_proj", width, width)
        maker.norm(f"{block}.ln_1", width)
        maker.linear(f"{block}.mlp.c_fc", width, 4 * width)
        maker.linear(f"{block}.mlp.c_proj", 4 * width, width)
        maker.norm(f"{block}.ln_2", width)
        for kind in kinds:
            maker.adapter(f"{block}.{kind}", width, hidden)
    maker.norm("backbone.ln_post", width)
    maker.linear("cls_head.fc_cls", width, classes)
    return maker.state


def vit(
    adapters: Sequence[Sequence[str]],
    *,
    width: int = 96,
    patch: int = 8,
    size: int = 32,
    hidden: int = 24,
    frames: int | None = 3,
    device: str = "cpu",
    classes: int = CLASSES,
    final: str = "ln_post",
) -> State:
    """A ViT with these adapters in each block."""
    maker = Maker(device)
    maker.tensor("backbone.cls_token", 1, 1, width)
    maker.tensor("backbone.pos_embed", 1, (size // patch) ** 2 + 1, width)
    if frames is not None:
        maker.tensor("backbone.temporal_embedding", 1, frames, width)
    maker.tensor("backbone.patch_embed.proj.weight", width, 3, patch, patch)
    maker.tensor("backbone.patch_embed.proj.bias", width)
    for index, kinds in enumerate(adapters):
        block = f"backbone.blocks.{index}"
        maker.norm(f"{block}.norm1", width)
        maker.linear(f"{block}.attn.qkv", width, 3 * width)
        maker.linear(f"{block}.attn.proj", width, width)
        maker.norm(f"{block}.norm2", width)
        maker.linear(f"{block}.mlp.fc1", width, 4 * width)
        maker.linear(f"{block}.mlp.fc2", 4 * width, width)
        for kind in kinds:
            maker.adapter(f"{block}.{kind}", width, hidden)
    maker.norm(f"backbone.{final}", width)
    maker.linear("cls_head.fc_cls", width, classes)
    return maker.state


def swin(
    adapters: Sequence[Sequence[str]],
    *,
    depths: Sequence[int] = (2, 2),
    heads: Sequence[int] = (2, 4),
    width: int = 64,
    window: int = 4,
    ratio: float = 0.25,
    steps: int = 3,
    tubelet: int = 2,
    device: str = "cpu",
    classes: int = CLASSES,
) -> State:
    """A Swin with these adapters in each block; a T_Adapter comes with its table and its buffer."""
    maker = Maker(device)
    name = "backbone.patch_embed.proj"
    maker.tensor(f"{name}.weight", width, 3, 4, 4)
    maker.state[f"{name}.weight"] = maker.state[f"{name}.weight"][:, :, None].repeat(1, 1, tubelet, 1, 1) / tubelet
    maker.tensor(f"{name}.bias", width)
    maker.norm("backbone.patch_embed.norm", width)
    places = [(stage, index) for stage, depth in enumerate(depths) for index in range(depth)]
    for (stage, index), kinds in zip(places, adapters, strict=True):
        block, wide = f"backbone.layers.{stage}.blocks.{index}", width * 2**stage
        maker.norm(f"{block}.norm1", wide)
        maker.linear(f"{block}.attn.qkv", wide, 3 * wide)
        maker.linear(f"{block}.attn.proj", wide, wide)
        maker.tensor(f"{block}.attn.relative_position_bias_table", (2 * window - 1) ** 2, heads[stage])
        maker.state[f"{block}.attn.relative_position_index"] = torch.zeros(window**2, window**2, dtype=torch.int64)
        maker.norm(f"{block}.norm2", wide)
        maker.linear(f"{block}.mlp.fc1", wide, 4 * wide)
        maker.linear(f"{block}.mlp.fc2", 4 * wide, wide)
        for kind in kinds:
            maker.adapter(f"{block}.{kind}", wide, int(wide * ratio))
        if "T_Adapter" in kinds:
            maker.tensor(f"{block}.attn.temporal_position_bias_table", 2 * steps - 1, heads[stage])
            maker.state[f"{block}.attn.t_relative_coords"] = torch.zeros(steps**2, dtype=torch.int64)
        elif stage == 0:
            maker.state[f"{block}.attn_mask"] = torch.zeros(4, window**2, window**2)
    for stage in range(len(depths) - 1):
        wide = width * 2**stage
        maker.norm(f"backbone.layers.{stage}.downsample.norm", 4 * wide)
        maker.tensor(f"backbone.layers.{stage}.downsample.reduction.weight", 2 * wide, 4 * wide)
    last = width * 2 ** (len(depths) - 1)
    maker.norm("backbone.norm", last)
    maker.linear("cls_head.fc_cls", last, classes)
    return maker.state


def _affine(state: State, name: str, epsilon: float = 0.0) -> plain.Affine:
    return plain.Affine(state[f"{name}.weight"], state[f"{name}.bias"], epsilon)


def _adapter(state: State, name: str) -> tuple[plain.Affine, plain.Affine] | None:
    return (
        (_affine(state, f"{name}.D_fc1"), _affine(state, f"{name}.D_fc2")) if f"{name}.D_fc1.weight" in state else None
    )


def _added(state: State, block: str, scale: float, spatial: str, joint: str) -> plain.Added:
    return plain.Added(
        before=_adapter(state, f"{block}.T_Adapter_in"),
        after=_adapter(state, f"{block}.T_Adapter"),
        table=state.get(f"{block}.attn.temporal_position_bias_table"),
        spatial=_adapter(state, f"{block}.{spatial}"),
        joint=_adapter(state, f"{block}.{joint}"),
        scale=scale,
    )


def _weights(
    state: State, block: str, heads: int, epsilon: float, names: Sequence[str], activation: str
) -> plain.Weights:
    norm1, out, norm2, first, second = (f"{block}.{name}" for name in names)
    qkv = (
        _affine(state, f"{block}.attn.qkv")
        if f"{block}.attn.qkv.weight" in state
        else plain.Affine(state[f"{block}.attn.in_proj_weight"], state[f"{block}.attn.in_proj_bias"])
    )
    return plain.Weights(
        heads=heads,
        norm1=_affine(state, norm1, epsilon),
        qkv=qkv,
        out=_affine(state, out),
        norm2=_affine(state, norm2, epsilon),
        first=_affine(state, first),
        second=_affine(state, second),
        activation=activation,
    )


def _projection(state: State, name: str) -> SimpleNamespace:
    weight = state[f"{name}.weight"]
    return SimpleNamespace(weight=weight, bias=state.get(f"{name}.bias"), kernel_size=tuple(weight.shape[2:]))


def logits_clip(state: State, x: Tensor, scale: float, *, heads: int = 4) -> Tensor:
    """(B, T, 3, H, W) -> (B, classes). LayerNorm's epsilon is torch's own, the activation QuickGELU."""
    names = ("ln_1", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    time = state.get("backbone.temporal_embedding")
    found = []
    for frames in x:
        tokens = plain.embedded(
            frames,
            _projection(state, "backbone.conv1"),
            state["backbone.class_embedding"],
            state["backbone.positional_embedding"],
            None if time is None else time[0],
        )
        tokens = plain.norm(tokens, _affine(state, "backbone.ln_pre", 1e-5))
        for index in range(4):
            block = f"backbone.transformer.resblocks.{index}"
            weights = _weights(state, block, heads, 1e-5, names, "QuickGELU")
            tokens = plain.block(tokens, weights, _added(state, block, scale, "S_Adapter", "MLP_Adapter"))
        final = _affine(state, "backbone.ln_post", 1e-5)
        found.append(plain.classified(tokens, final, _affine(state, "cls_head.fc_cls")))
    return torch.stack(found)


def logits_vit(state: State, x: Tensor, scale: float, *, heads: int = 4) -> Tensor:
    """(B, T, 3, H, W) -> (B, classes). The epsilon is 1e-6, the activation GELU."""
    names = ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    time = state.get("backbone.temporal_embedding")
    found = []
    for frames in x:
        tokens = plain.embedded(
            frames,
            _projection(state, "backbone.patch_embed.proj"),
            state["backbone.cls_token"][0, 0],
            state["backbone.pos_embed"][0],
            None if time is None else time[0],
        )
        for index in range(4):
            block = f"backbone.blocks.{index}"
            weights = _weights(state, block, heads, 1e-6, names, "GELU")
            tokens = plain.block(tokens, weights, _added(state, block, scale, "S_Adapter", "MLP_Adapter"))
        name = "backbone.ln_post" if "backbone.ln_post.weight" in state else "backbone.norm"
        found.append(plain.classified(tokens, _affine(state, name, 1e-6), _affine(state, "cls_head.fc_cls")))
    return torch.stack(found)


def logits_swin(
    state: State,
    x: Tensor,
    scale: float,
    *,
    heads: Sequence[int] = (2, 4),
    spatial: str = "S_Adapter2",
    joint: str = "S_Adapter",
) -> Tensor:
    """(B, T, 3, 32, 32) -> (B, classes): two stages of two blocks, windows of 4, the second block's shifted."""
    names = ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    found = []
    for frames in x:
        weight = state["backbone.patch_embed.proj.weight"]
        tokens = plain.norm(
            _video_patches(frames, weight, state["backbone.patch_embed.proj.bias"]),
            _affine(state, "backbone.patch_embed.norm", 1e-5),
        )
        if "backbone.temporal_embedding" in state:
            tokens = tokens + state["backbone.temporal_embedding"][0][:, None, None]
        for stage, index in ((0, 0), (0, 1), (1, 0), (1, 1)):
            block = f"backbone.layers.{stage}.blocks.{index}"
            of = _weights(state, block, heads[stage], 1e-5, names, "GELU")
            added = _added(state, block, scale, spatial, joint)
            if added.over_time:
                branch = plain.time_branch(tokens.flatten(1, 2), of, added)
                tokens = tokens + branch.view(tokens.shape)
            table = state[f"{block}.attn.relative_position_bias_table"]
            shift = 2 if (stage, index) == (0, 1) else 0  # the second stage is one window
            attended = windowed(plain.norm(tokens, of.norm1), of, table, (4, 4), (shift, shift))
            tokens = tokens + plain.spatial_branch(attended, added)
            normed = plain.norm(tokens, of.norm2)
            tokens = tokens + plain.mlp(normed, of)
            if added.joint is not None:
                tokens = tokens + plain.joint_branch(normed, added)
            if (stage, index) == (0, 1):
                merge = "backbone.layers.0.downsample"
                reduction = state[f"{merge}.reduction.weight"]
                tokens = torch.stack(
                    [merged(frame, _affine(state, f"{merge}.norm", 1e-5), reduction) for frame in tokens]
                )
        features = plain.norm(tokens, _affine(state, "backbone.norm", 1e-5)).mean(dim=(0, 1, 2))
        found.append(plain.linear(features, _affine(state, "cls_head.fc_cls")))
    return torch.stack(found)


def _video_patches(clip: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution over time and space whose stride is its kernel (D, 3, t, p, p): (T / t, H / p, W / p, D)."""
    over, side = weight.shape[2], weight.shape[-1]
    steps = []
    for first in range(0, len(clip), over):
        boxes = [plain.patches(frame, side).unflatten(1, (3, -1)) for frame in clip[first : first + over]]
        tokens = torch.stack(boxes, dim=2).flatten(1) @ weight.flatten(1).T + bias
        steps.append(tokens.view(clip.shape[2] // side, clip.shape[3] // side, -1))
    return torch.stack(steps)
