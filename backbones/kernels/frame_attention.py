"""Attention among frames as one Triton kernel each way, for NVIDIA GPUs.

Frames are few (8 to 32) and token positions many: a kernel made for long sequences fills most of its tile with padding,
and batched products want queries, keys and values copied into matrices of T x d first. Here each program reads the
projections where they lie, for as many positions as fill a tile of 16 rows, and writes its rows of the result. The
weights are worked out again for the gradients; nothing but the projections is kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

MOST_FRAMES = 64
MOST_DEPTH = 128


@triton.jit
def _rows(group, frames: tl.constexpr, positions, at_once: tl.constexpr, block: tl.constexpr):
    """For each row of a tile: its position among the tile's, its frame, its position, and whether there is one."""
    row = tl.arange(0, block)
    local = row // frames
    position = group * at_once + local
    return local, row % frames, position, (local < at_once) & (position < positions)


@triton.jit
def _weights(q, k, local, there, scale):
    """softmax over the frames of the row's own position: (block, block), zero in rows that are not there."""
    logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    same = (local[:, None] == local[None, :]) & there[:, None] & there[None, :]
    logits = tl.where(same, logits, -1.0e30)
    weights = tl.where(same, tl.exp(logits - tl.max(logits, 1)[:, None]), 0.0)
    return weights / tl.maximum(tl.sum(weights, 1), 1.0e-30)[:, None]


@triton.jit
def _forward(qkv, out, positions, groups, heads, depth, scale, frames: tl.constexpr, at_once: tl.constexpr,
             block: tl.constexpr, wide: tl.constexpr):  # fmt: skip
    clip, head = tl.program_id(0) // groups, tl.program_id(1)
    local, frame, position, there = _rows(tl.program_id(0) % groups, frames, positions, at_once, block)
    column = tl.arange(0, wide)
    token = ((clip * frames + frame) * positions + position).to(tl.int64)
    mask = there[:, None] & (column < depth)[None, :]
    width = heads * depth
    at = qkv + token[:, None] * 3 * width + head * depth + column[None, :]
    q = tl.load(at, mask, 0.0)
    k = tl.load(at + width, mask, 0.0)
    v = tl.load(at + 2 * width, mask, 0.0)
    weights = _weights(q, k, local, there, scale)
    attended = tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    tl.store(out + token[:, None] * width + head * depth + column[None, :], attended.to(v.dtype), mask)


@triton.jit
def _backward(qkv, gradient, found, positions, groups, heads, depth, scale, frames: tl.constexpr, at_once: tl.constexpr,
              block: tl.constexpr, wide: tl.constexpr):  # fmt: skip
    clip, head = tl.program_id(0) // groups, tl.program_id(1)
    local, frame, position, there = _rows(tl.program_id(0) % groups, frames, positions, at_once, block)
    column = tl.arange(0, wide)
    token = ((clip * frames + frame) * positions + position).to(tl.int64)
    mask = there[:, None] & (column < depth)[None, :]
    width = heads * depth
    offset = token[:, None] * 3 * width + head * depth + column[None, :]
    q = tl.load(qkv + offset, mask, 0.0)
    k = tl.load(qkv + offset + width, mask, 0.0)
    v = tl.load(qkv + offset + 2 * width, mask, 0.0)
    d_out = tl.load(gradient + token[:, None] * width + head * depth + column[None, :], mask, 0.0)
    weights = _weights(q, k, local, there, scale)
    d_weights = tl.dot(d_out, tl.trans(v), input_precision="ieee")
    d_logits = weights * (d_weights - tl.sum(weights * d_weights, 1)[:, None]) * scale
    d_logits = d_logits.to(q.dtype)
    d_q = tl.dot(d_logits, k, input_precision="ieee")
    d_k = tl.dot(tl.trans(d_logits), q, input_precision="ieee")
    d_v = tl.dot(tl.trans(weights.to(q.dtype)), d_out, input_precision="ieee")
    tl.store(found + offset, d_q.to(q.dtype), mask)
    tl.store(found + offset + width, d_k.to(q.dtype), mask)
    tl.store(found + offset + 2 * width, d_v.to(q.dtype), mask)


def _launch(kernel: object, tensors: tuple[Tensor, ...], frames: int, heads: int) -> None:
    qkv = tensors[0]
    both, positions, width = qkv.shape
    depth = width // (3 * heads)
    block = max(16, triton.next_power_of_2(frames))
    at_once = block // frames
    groups = triton.cdiv(positions, at_once)
    wide = max(16, triton.next_power_of_2(depth))
    shape = {"frames": frames, "at_once": at_once, "block": block, "wide": wide}
    with torch.cuda.device_of(qkv):  # Triton launches on the current device
        kernel[(both // frames * groups, heads)](  # type: ignore[index]
            *tensors, positions, groups, heads, depth, depth**-0.5, **shape, num_warps=2 if block <= 16 else 4
        )


@torch.library.custom_op("aim_bench::frame_attention", mutates_args=())
def frame_attention(qkv: Tensor, frames: int, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over the frames at each position: (B*T, N, 3 D) -> (B*T, N, D).

    Args:
        qkv: queries, keys and values side by side, contiguous.
        frames: T, at most MOST_FRAMES.
        heads: number of heads, each of at most MOST_DEPTH.
    """
    out = qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)
    _launch(_forward, (qkv, out), frames, heads)
    return out


@torch.library.custom_op("aim_bench::frame_attention_backward", mutates_args=())
def frame_attention_backward(qkv: Tensor, gradient: Tensor, frames: int, heads: int) -> Tensor:
    """The gradient of `frame_attention` by the projections: (B*T, N, 3 D)."""
    found = torch.empty_like(qkv)
    _launch(_backward, (qkv, gradient, found), frames, heads)
    return found


@frame_attention.register_fake
def _(qkv: Tensor, frames: int, heads: int) -> Tensor:
    return qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)


@frame_attention_backward.register_fake
def _(qkv: Tensor, gradient: Tensor, frames: int, heads: int) -> Tensor:
    return torch.empty_like(qkv)


def _keep(ctx: object, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
    qkv, ctx.frames, ctx.heads = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(qkv)  # type: ignore[attr-defined]


def _gradients(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None]:
    (qkv,) = ctx.saved_tensors  # type: ignore[attr-defined]
    frames, heads = ctx.frames, ctx.heads  # type: ignore[attr-defined]
    return frame_attention_backward(qkv, gradient.contiguous(), frames, heads), None, None


frame_attention.register_autograd(_gradients, setup_context=_keep)


def products(shape: tuple[int, ...], frames: int) -> int:
    """Multiply-accumulates of q k^T and of its product with v, for projections (B*T, N, 3 D)."""
    both, positions, width = shape
    return 2 * both * positions * frames * (width // 3)


@register_flop_formula(torch.ops.aim_bench.frame_attention)
def _flops(shape: tuple[int, ...], frames: int, heads: int, **_: object) -> int:
    return 2 * products(shape, frames)


@register_flop_formula(torch.ops.aim_bench.frame_attention_backward)
def _flops_backward(shape: tuple[int, ...], gradient: object, frames: int, heads: int, **_: object) -> int:
    return 4 * products(shape, frames)
