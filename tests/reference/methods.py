"""Parts that other papers than AIM's add to an image model, from their equations, one clip and one token at a time.

Weights are read from the modules as they are, so that gradients reach them; no module is called. The image model's own
block is that of aim_block.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from tests.reference.aim_block import Affine, Weights, attention, linear, mlp, norm

ROLES = {"query": 0, "key": 1, "value": 2}


def low_rank(own: Weights, updates: dict[str, tuple[Tensor, Tensor]], scale: float) -> Weights:
    """LoRA, eq. 3: W + s B A, for the named projections. A (r, D_in), B (D_out, r)."""
    for role, (down, up) in updates.items():
        update = scale * (up @ down)
        if role in ROLES:
            width = own.norm1.weight.shape[0]
            rows = [update if part == ROLES[role] else torch.zeros_like(update) for part in range(3)]
            assert update.shape == (width, width)
            own = replace(own, qkv=Affine(own.qkv.weight + torch.cat(rows), own.qkv.bias))
        else:
            name = {"output": "out", "up": "first", "down": "second"}[role]
            before: Affine = getattr(own, name)
            own = replace(own, **{name: Affine(before.weight + update, before.bias)})
    return own


def beside(x: Tensor, down: Affine, up: Affine, scale: float) -> Tensor:
    """AdaptFormer, eq. 2 and 3: s ReLU(x W_down) W_up."""
    hidden = linear(x, down)
    return scale * linear(torch.where(hidden > 0, hidden, torch.zeros_like(hidden)), up)


def space_time(x: Tensor, down: Affine, kernel: Tensor, bias: Tensor, up: Affine) -> Tensor:
    """ST-Adapter, eq. 5, of patches (T, H, W, D): x + W_up DWConv3d(W_down x), zeros outside. kernel (h, t, h, w)."""
    hidden = linear(x, down)
    sizes, taps = hidden.shape[:3], kernel.shape[1:]
    places = []
    for t in range(sizes[0]):
        for row in range(sizes[1]):
            for column in range(sizes[2]):
                total = bias
                for i in range(taps[0]):
                    for j in range(taps[1]):
                        for k in range(taps[2]):
                            at = (t + i - taps[0] // 2, row + j - taps[1] // 2, column + k - taps[2] // 2)
                            if all(0 <= a < size for a, size in zip(at, sizes, strict=True)):
                                total = total + kernel[:, i, j, k] * hidden[at]
                places.append(total)
    return x + linear(torch.stack(places).view(*sizes, -1), up)


def shifted_attention(x: Tensor, own: Weights, bias: Tensor | None = None, *, shifts: list[int]) -> Tensor:
    """ZeroI2V, section 3.2, of tokens (T, N, D): keys and values take groups of D / 12 channels from other frames."""
    frames, _, width = x.shape
    depth, group = width // own.heads, width // 12
    q, k, v = linear(x, own.qkv).split(width, dim=-1)

    def moved(y: Tensor) -> Tensor:
        out = []
        for t in range(frames):
            channels = [y[t, :, c] for c in range(width)]
            for index, shift in enumerate(shifts):
                source = t - shift
                if 0 <= source < frames:
                    for c in range(index * group, (index + 1) * group):
                        channels[c] = y[source, :, c]
            out.append(torch.stack(channels, dim=-1))
        return torch.stack(out)

    k, v = moved(k), moved(v)
    found = []
    for t in range(frames):
        heads = []
        for h in range(own.heads):
            part = slice(h * depth, (h + 1) * depth)
            logits = q[t, :, part] @ k[t, :, part].T / math.sqrt(depth)
            logits = logits if bias is None else logits + bias[h]
            heads.append(torch.softmax(logits, dim=1) @ v[t, :, part])
        found.append(linear(torch.cat(heads, dim=1), own.out))
    return torch.stack(found)


def linear_adapter(x: Tensor, down: Affine, up: Affine, scale: float) -> Tensor:
    """x + s W_up (W_down x + b) + ..., without an activation (ZeroI2V, section 3.3)."""
    return x + scale * linear(linear(x, down), up)


def cross_frame(query: Tensor, key: Tensor, table: Tensor, grid: tuple[int, int], heads: int) -> Tensor:
    """EVL, section 3.3, of patches of two frames (P, D): the attention's mean over the heads, by relative position."""
    count, width = query.shape
    depth = width // heads
    weights = torch.zeros(count, count, dtype=query.dtype)
    for h in range(heads):
        part = slice(h * depth, (h + 1) * depth)
        weights = weights + torch.softmax(query[:, part] @ key[:, part].T / math.sqrt(depth), dim=1) / heads
    rows, columns = grid
    found = []
    for i in range(count):
        total = torch.zeros(table.shape[1], dtype=table.dtype)
        for j in range(count):
            down, across = i // columns - j // columns, i % columns - j % columns
            total = total + weights[i, j] * table[(down + rows - 1) * (2 * columns - 1) + across + columns - 1]
        found.append(total)
    return torch.stack(found)


def reads(x: Tensor, tokens: Tensor, q: Affine, k: Affine, v: Affine, heads: int) -> Tensor:
    """Attention of one query (D,) over tokens (M, D), before an output projection."""
    query, keys, values = linear(x, q), linear(tokens, k), linear(tokens, v)
    depth = len(query) // heads
    parts = [slice(h * depth, (h + 1) * depth) for h in range(heads)]
    return torch.cat([torch.softmax(keys[:, p] @ query[p] / math.sqrt(depth), dim=0) @ values[:, p] for p in parts])


def image_block(x: Tensor, own: Weights) -> Tensor:
    """(T, N, D): the image model's block, frame by frame."""
    x = x + torch.stack([attention(norm(frame, own.norm1), own) for frame in x])
    return x + mlp(norm(x, own.norm2), own)


def zero_shot(frames: Tensor, projection: Tensor, classes: Tensor, scale: float) -> Tensor:
    """CLIP's logits of one clip: frames (T, D) into the shared space (D, E), classes (C, E) of length 1 -> (C,)."""
    total = torch.zeros_like(classes[0])
    for frame in frames:
        vector = frame @ projection
        total = total + vector / vector.square().sum().sqrt()
    clip = total / len(frames)
    clip = clip / clip.square().sum().sqrt()
    return torch.stack([scale * (clip * each).sum() for each in classes])
