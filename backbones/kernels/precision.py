"""The number format that products are computed in, and frozen weights held in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backbones.kernels.switch import is_fast

# modules whose parameters take part in products alone, which autocast computes in half precision
_PRODUCTS = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear, nn.Conv2d, nn.MultiheadAttention)


def of_products(x: Tensor) -> torch.dtype:
    """The format of products with x here: autocast's where it is on, else x's own."""
    device = x.device.type
    # torch's meta device, on which nothing is computed, knows no autocast; doubles are never rounded
    if device == "meta" or x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


def cast_frozen_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Hold the frozen weights of products in the format that products are computed in, in place.

    Autocast would round them to the same numbers at every use, and keep each rounded copy for the gradients. In the
    plain form it does.
    """
    if not is_fast():
        return
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if type(module) in _PRODUCTS and not any(parameter.requires_grad for parameter in own):
            for parameter in own:
                parameter.data = parameter.data.to(dtype)
