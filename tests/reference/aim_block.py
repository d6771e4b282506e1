"""A video model written from AIM's equations: one clip, one frame, one head at a time, on plain tensors.

AIM (Yang et al., 2023), section 3, with x (T, N, D) the tokens of one clip:

    x = x + [keep] T_Adapter(MSA_time([T_Adapter_before](LN1(x))))      the same LN1 and MSA as below, over T
    x = x + S_Adapter(MSA_space(LN1(x)))                                S_Adapter with a skip
    x = x + MLP(LN2(x)) + [keep] s J_Adapter(LN2(x))                    J_Adapter without one

TimeSformer (Bertasius et al., 2021), section 3, divided attention: MSA_time and its LN are its own, and a Linear takes
the adapter's place. `keep` is what drop path makes of a clip's branch: 0 where it is dropped, else 1 / (1 - rate). A
finetuned model keeps MSA_space and MLP so, too.

Weights are read from the modules as they are, so that gradients reach them; no module is called.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Affine:
    """Weight (out, in) and bias (out,) of a Linear; of a norm both (D,), with its epsilon."""

    weight: Tensor
    bias: Tensor
    epsilon: float = 0.0


@dataclass(frozen=True)
class Weights:
    """An image model's block."""

    heads: int
    norm1: Affine
    qkv: Affine  # (3 D, D): queries, keys, values
    out: Affine
    norm2: Affine | None = None
    first: Affine | None = None
    second: Affine | None = None
    activation: str = "GELU"


def affine(module: nn.Linear | nn.LayerNorm) -> Affine:
    return Affine(module.weight, module.bias, getattr(module, "eps", 0.0))


def of_vit(module: nn.Module, *, attention_alone: bool = False) -> Weights:
    """timm's names."""
    attention = module.attn
    found = Weights(attention.num_heads, affine(module.norm1), affine(attention.qkv), affine(attention.proj))
    if attention_alone:
        return found
    mlp = module.mlp
    kind = type(mlp.act).__name__
    return replace(found, norm2=affine(module.norm2), first=affine(mlp.fc1), second=affine(mlp.fc2), activation=kind)


def of_clip(module: nn.Module, *, attention_alone: bool = False) -> Weights:
    """open_clip's names."""
    attention = module.attn
    qkv = Affine(attention.in_proj_weight, attention.in_proj_bias)
    found = Weights(attention.num_heads, affine(module.ln_1), qkv, affine(attention.out_proj))
    if attention_alone:
        return found
    mlp = module.mlp
    kind = type(mlp.gelu).__name__
    return replace(found, norm2=affine(module.ln_2), first=affine(mlp.c_fc), second=affine(mlp.c_proj), activation=kind)


def linear(x: Tensor, of: Affine) -> Tensor:
    return x @ of.weight.T + of.bias


def norm(x: Tensor, of: Affine) -> Tensor:
    """Over the last axis, with the biased variance."""
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return centred / (variance + of.epsilon).sqrt() * of.weight + of.bias


def activate(x: Tensor, kind: str) -> Tensor:
    """GELU: x times the normal distribution's function; CLIP's QuickGELU: x sigmoid(1.702 x)."""
    if kind == "GELU":
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    if kind == "QuickGELU":
        return x / (1 + torch.exp(-1.702 * x))
    raise ValueError(f"what is {kind}?")


def attention(x: Tensor, of: Weights, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v of each head, side by side, then the output's Linear.

    Args:
        x: (n, D), the tokens that see each other.
        of: the weights.
        bias: (heads, n, n).
    """
    width = x.shape[-1]
    depth = width // of.heads
    projected = linear(x, of.qkv)
    heads = []
    for head in range(of.heads):
        q, k, v = (projected[:, part * width + head * depth :][:, :depth] for part in range(3))
        logits = q @ k.T / math.sqrt(depth)
        if bias is not None:
            logits = logits + bias[head]
        weights = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
        heads.append(weights / weights.sum(dim=1, keepdim=True) @ v)
    return linear(torch.cat(heads, dim=1), of.out)


def over_space(x: Tensor, of: Weights) -> Tensor:
    """(T, N, D): the tokens of a frame see each other."""
    return torch.stack([attention(frame, of) for frame in x])


def over_time(x: Tensor, of: Weights, bias: Tensor | None = None) -> Tensor:
    """(T, N, D): a position sees itself in every frame."""
    return torch.stack([attention(x[:, position], of, bias) for position in range(x.shape[1])], dim=1)


def distance_bias(table: Tensor, frames: int) -> Tensor:
    """Row i - j + T - 1 of a table (2 T - 1, heads) between frames i and j: (heads, T, T)."""
    heads = table.shape[1]
    return torch.stack(
        [
            torch.stack([torch.stack([table[i - j + frames - 1, h] for j in range(frames)]) for i in range(frames)])
            for h in range(heads)
        ]
    )


def mlp(x: Tensor, of: Weights) -> Tensor:
    return linear(activate(linear(x, of.first), of.activation), of.second)


@dataclass(frozen=True)
class Added:
    """Parts that a strategy adds to a block; an adapter is its two Linears.

    Attributes:
        before, after: the temporal adapters.
        own: TimeSformer's norm and attention over time, which `linear` follows.
        table: of the bias over time.
    """

    before: tuple[Affine, Affine] | None = None
    after: tuple[Affine, Affine] | None = None
    own: Weights | None = None
    linear: Affine | None = None
    table: Tensor | None = None
    spatial: tuple[Affine, Affine] | None = None
    joint: tuple[Affine, Affine] | None = None
    scale: float = 1.0

    @property
    def over_time(self) -> bool:
        return self.after is not None or self.own is not None


def bottleneck(x: Tensor, of: tuple[Affine, Affine]) -> Tensor:
    """An adapter without its skip. AIM, section 3.2: GELU."""
    down, up = of
    return linear(activate(linear(x, down), "GELU"), up)


def time_branch(x: Tensor, of: Weights, added: Added) -> Tensor:
    """One clip's branch over time, (T, N, D), before drop path."""
    bias = None if added.table is None else distance_bias(added.table, len(x))
    if added.own is not None:
        return linear(over_time(norm(x, added.own.norm1), added.own, bias), added.linear)
    normed = norm(x, of.norm1)
    if added.before is not None:
        normed = normed + bottleneck(normed, added.before)
    return bottleneck(over_time(normed, of, bias), added.after)


def spatial_branch(attended: Tensor, added: Added) -> Tensor:
    return attended if added.spatial is None else attended + bottleneck(attended, added.spatial)


def joint_branch(normed: Tensor, added: Added) -> Tensor:
    """Before drop path."""
    return added.scale * bottleneck(normed, added.joint)


@dataclass(frozen=True)
class Keep:
    """Factors of drop path on the branches of a clip."""

    time: float = 1.0
    space: float = 1.0
    mlp: float = 1.0
    joint: float = 1.0


WHOLE = Keep()


def block(x: Tensor, of: Weights, added: Added, keep: Keep = WHOLE) -> Tensor:
    """One clip through one block, (T, N, D) -> (T, N, D)."""
    if added.over_time:
        x = x + keep.time * time_branch(x, of, added)
    x = x + keep.space * spatial_branch(over_space(norm(x, of.norm1), of), added)
    normed = norm(x, of.norm2)
    out = x + keep.mlp * mlp(normed, of)
    if added.joint is not None:
        out = out + keep.joint * joint_branch(normed, added)
    return out


def patches(frame: Tensor, side: int) -> Tensor:
    """Squares of a frame (3, H, W), row by row: (N, 3 side side)."""
    _, height, width = frame.shape
    return torch.stack(
        [
            frame[:, top : top + side, left : left + side].flatten()
            for top in range(0, height, side)
            for left in range(0, width, side)
        ]
    )


def tubelets(clip: Tensor, projection: nn.Conv2d, frames: int) -> Tensor:
    """AIM's patches of Swin: the 2-D patch weight repeated over `frames` frames and divided by their number.

    clip (T, 3, H, W) -> (T / frames, H / side, W / side, D).
    """
    side = projection.kernel_size[0]
    weight = torch.stack([projection.weight / frames] * frames, dim=2).flatten(1)  # (D, 3 frames side side)
    found = []
    for first in range(0, len(clip), frames):
        squares = [patches(frame, side).unflatten(1, (3, -1)) for frame in clip[first : first + frames]]
        tokens = torch.stack(squares, dim=2).flatten(1) @ weight.T + projection.bias
        found.append(tokens.view(clip.shape[2] // side, clip.shape[3] // side, -1))
    return torch.stack(found)


def embedded(clip: Tensor, projection: nn.Conv2d, cls: Tensor, positions: Tensor, time: Tensor | None) -> Tensor:
    """Patches, CLS before them, position embedding, and the same temporal embedding on every token of a frame.

    Args:
        clip: (T, 3, H, W).
        projection: of patches; its stride is its kernel.
        cls: (D,).
        positions: (N + 1, D).
        time: (T, D); None where the strategy has no attention over time.
    """
    weight = projection.weight.flatten(1)
    frames = []
    for index, frame in enumerate(clip):
        tokens = patches(frame, projection.kernel_size[0]) @ weight.T
        if projection.bias is not None:
            tokens = tokens + projection.bias
        tokens = torch.cat([cls[None], tokens]) + positions
        frames.append(tokens if time is None else tokens + time[index])
    return torch.stack(frames)


def classified(x: Tensor, final: Affine, head: Affine) -> Tensor:
    """Final norm, CLS of each frame, mean over frames, Linear: (T, N, D) -> (classes,)."""
    return linear(norm(x, final)[:, 0].mean(dim=0), head)
