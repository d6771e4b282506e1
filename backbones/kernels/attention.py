"""Multi-head attention over projected tokens: among the tokens of a frame, and among the frames at each position."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.kernels.recompute import from_product, remember
from backbones.kernels.switch import is_fast, is_plain_module

# tokens up to which a CPU is faster in half precision with whole products than with a kernel that goes by tiles
_SHORT = 512
_LINEAR = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)


def multi_head(qkv: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, head by head (Vaswani et al., 2017, eq. 1).

    Args:
        qkv: (G, N, 3 D), queries, keys and values of G groups of N tokens, side by side.
        heads: number of heads; D is a multiple of it.
        bias: (heads, N, N), the same for every group, or (G, heads, N, N).

    Returns:
        (G, N, D), before the output projection.
    """
    groups, tokens, width = qkv.shape
    parts = qkv.view(groups, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    if is_fast() and qkv.device.type == "cpu" and qkv.dtype != torch.float32 and tokens <= _SHORT:
        out = _products(parts.flatten(1, 2), heads, bias).unflatten(0, (groups, heads))
    else:
        q, k, v = parts.unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
    return out.transpose(1, 2).reshape(groups, tokens, width // 3)


def among_frames(qkv: Tensor, frames: int, heads: int, bias: Tensor | None = None) -> Tensor:
    """`multi_head` over the frames at each token position, of projections that lie as the tokens do.

    Frames are few and positions many: products of T x d matrices, tens of thousands of them. Kernels for long sequences
    pad each of them; batched products are faster, and on a GPU a kernel that is made for it. The plain form rearranges
    the projections position by position and is `multi_head`.

    Args:
        qkv: (B*T, ..., 3 D), queries, keys and values side by side.
        frames: T.
        heads: number of heads; D is a multiple of it.
        bias: (heads, T, T), the same at every position.

    Returns:
        (B*T, ..., D), before the output projection.
    """
    between, width = qkv.shape[1:-1].numel(), qkv.shape[-1] // 3
    if not is_fast():
        rearranged = qkv.reshape(-1, frames, between, 3 * width).transpose(1, 2).reshape(-1, frames, 3 * width)
        out = multi_head(rearranged, heads, bias).view(-1, between, frames, width)
        return out.transpose(1, 2).reshape(*qkv.shape[:-1], width)
    if bias is None and _has_kernel(qkv.device, frames, width // heads):
        from backbones.kernels.frame_attention import frame_attention

        return frame_attention(qkv.view(len(qkv), between, 3 * width), frames, heads).view(*qkv.shape[:-1], width)
    parts = qkv.view(-1, frames, between, 3, heads, width // heads).permute(3, 0, 2, 4, 1, 5)
    out = _products(parts.flatten(1, 3), heads, bias)
    out = out.view(-1, between, heads, frames, width // heads).permute(0, 3, 1, 2, 4)
    return out.reshape(*qkv.shape[:-1], width)


def among_windows(qkv: Tensor, window: tuple[int, int], heads: int, bias: Tensor) -> Tensor:
    """Attention in the windows of a frame, of projections that lie as the tokens do (Liu et al., 2021, section 3.2).

    Windows and heads are cut out of the projections in one copy, and the bias of a frame's windows serves all frames.
    The plain form cuts out windows, repeats the bias for every frame and is `multi_head`.

    Args:
        qkv: (B*T, H, W, 3 D), queries, keys and values side by side.
        window: its height and width, of which H and W are multiples.
        heads: number of heads; D is a multiple of it.
        bias: (windows, heads, N, N) for the N tokens of each window of a frame, in the order of rows; or (1, heads, N,
            N), the same in all windows.

    Returns:
        (B*T, H, W, D), before the output projection.
    """
    frames, height, width, _ = qkv.shape
    tall, wide = window
    down, across, depth = height // tall, width // wide, qkv.shape[-1] // (3 * heads)
    if not is_fast():
        windows = qkv.view(frames, down, tall, across, wide, -1).transpose(2, 3).reshape(-1, tall * wide, qkv.shape[-1])
        out = multi_head(windows, heads, bias.repeat(len(windows) // len(bias), 1, 1, 1))
        out = out.view(frames, down, across, tall, wide, -1).transpose(2, 3)
        return out.reshape(frames, height, width, heads * depth)
    cut = qkv.view(frames, down, tall, across, wide, 3, heads, depth).permute(5, 0, 1, 3, 6, 2, 4, 7)
    q, k, v = cut.reshape(3, -1, bias.shape[0] * heads, tall * wide, depth).unbind(0)
    bias = bias.flatten(0, 1).to(q.dtype)
    if qkv.device.type == "cpu":
        logits = _logits(q.flatten(0, 1), k.flatten(0, 1)).unflatten(0, q.shape[:2]).add_(bias)
        out = torch.bmm(_weights(logits).flatten(0, 1), v.flatten(0, 1))
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    out = out.view(frames, down, across, heads, tall, wide, depth).permute(0, 1, 4, 2, 5, 3, 6)
    return out.reshape(frames, height, width, heads * depth)


def projected(attended: Tensor, projection: Any) -> Tensor:
    """The output projection of attention: (..., D) -> (..., D').

    Args:
        attended: what the attention gave, which it keeps for its gradients.
        projection: a Linear, or what a strategy has put in its place.
    """
    out = projection(attended)
    if not is_fast() or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return out
    if not is_plain_module(projection, *_LINEAR) or projection.bias is None:
        return out
    return remember(out, from_product(attended, projection.weight, projection.bias))


def _products(qkv: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Attention as two batched products: (3, G*heads, N, d) -> (G*heads, N, d)."""
    q, k, v = qkv.unbind(0)
    logits = _logits(q, k)
    if bias is not None:
        logits = logits.unflatten(0, (-1, heads)).add_(bias.to(logits.dtype)).flatten(0, 1)
    return torch.bmm(_weights(logits), v)


def _logits(q: Tensor, k: Tensor) -> Tensor:
    """q k^T / sqrt(d) of (G, N, d), the factor taken into the product."""
    return torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5)


def _weights(logits: Tensor) -> Tensor:
    """softmax over the last axis."""
    # for rows of 16 to 31 a CPU takes four times as long in half precision as in float32
    half = logits.dtype in (torch.bfloat16, torch.float16)
    slow = half and logits.device.type == "cpu" and 16 <= logits.shape[-1] < 32
    return logits.softmax(dim=-1, dtype=torch.float32 if slow else None).to(logits.dtype)


@torch.compiler.assume_constant_result
def _has_kernel(device: torch.device, frames: int, depth: int) -> bool:
    """Return whether the kernel for attention among frames is available and agrees with products on a few numbers."""
    return _tried(device, frames, depth)


@cache
def _tried(device: torch.device, frames: int, depth: int) -> bool:
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    # in a thread of its own, whose computing is neither in half precision nor traced, whatever goes on in this one
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_kernel_agrees, device, frames, depth).result()


def _kernel_agrees(device: torch.device, frames: int, depth: int) -> bool:
    try:
        from backbones.kernels.frame_attention import MOST_DEPTH, MOST_FRAMES, frame_attention

        if frames > MOST_FRAMES or depth > MOST_DEPTH:
            return False
        qkv = torch.randn(frames, 5, 3 * depth, generator=torch.Generator().manual_seed(0)).to(device)
        expected = _products(qkv.view(frames, 5, 3, depth).permute(2, 1, 0, 3), 1, None).transpose(0, 1)
        return torch.allclose(frame_attention(qkv, frames, 1), expected, atol=1e-2)
    except Exception:  # a GPU or a driver that Triton does not compile for; products do everywhere
        return False
