"""The number format that products are computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def of_products(x: Tensor) -> torch.dtype:
    """The format of products with x here: autocast's where it is on, else x's own."""
    device = x.device.type
    # torch's meta device, on which nothing is computed, knows no autocast; doubles are never rounded
    if device == "meta" or x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)
