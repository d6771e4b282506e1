"""Layer norm under autocast, in float32, with its result and what it keeps for the gradients in half precision."""

from __future__ import annotations

from typing import Any

import open_clip.transformer
import timm.layers
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from backbones.kernels.precision import of_products
from backbones.kernels.recompute import from_norm, remember
from backbones.kernels.switch import is_fast, is_plain_module

# layer norms whose arithmetic is F.layer_norm's
_PLAIN = (nn.LayerNorm, open_clip.transformer.LayerNorm, open_clip.transformer.LayerNormFp32, timm.layers.LayerNorm)


def normed(x: Tensor, norm: Any) -> Tensor:
    """`norm(x)`; under autocast and of a plain LayerNorm in the autocast's own precision, for a product that follows.

    Autocast alone gives float32, which each of the products after it turns into half precision by itself, and keeps the
    float32 input for the gradients. Here statistics and norm are in float32 too, the result is rounded once and the
    input is kept rounded: half the bytes. The input's gradient differs by about that rounding, 1e-4 of its norm. The
    plain form is `norm(x)` in any case.

    Args:
        x: (..., D).
        norm: the image model's, of any kind.
    """
    dtype = of_products(x)
    if not is_fast() or dtype == x.dtype or not is_plain_module(norm, *_PLAIN):
        return norm(x)
    if not torch.is_grad_enabled():
        return nn.functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(dtype)
    y, kept = _Norm.apply(x, norm.weight, norm.bias, norm.normalized_shape, norm.eps, dtype)
    if norm.weight is None or norm.bias is None or torch.compiler.is_compiling():
        return y
    return remember(y, from_norm(kept, norm.weight, norm.bias, norm.eps))


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int], eps: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        # sums between blocks can lie beyond fp16's largest number
        kept = x if dtype == torch.float16 else x.to(dtype)
        ctx.mark_non_differentiable(kept)
        ctx.save_for_backward(kept, mean, rstd, weight, bias)
        ctx.shape = shape
        return y.to(dtype), kept

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight, bias = ctx.saved_tensors  # type: ignore[attr-defined]
        # a CPU's kernel alone mixes half precision and float32, and goes by the weight's format
        if x.device.type != "cpu" or x.dtype == torch.float32 or weight is None:
            gradient, x = gradient.float(), x.float()
        needed = [bool(needs) for needs in ctx.needs_input_grad[:3]]  # type: ignore[attr-defined]
        found = torch.ops.aten.native_layer_norm_backward(
            gradient.contiguous(), x, ctx.shape, mean, rstd, weight, bias, needed  # type: ignore[attr-defined]
        )  # fmt: skip
        return *(value if needs else None for value, needs in zip(found, needed, strict=True)), None, None, None
