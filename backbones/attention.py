"""Multi-head attention over projected tokens, for the families whose library offers no door to it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def multi_head(qkv: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, head by head (Vaswani et al., 2017, eq. 1).

    Args:
        qkv: (G, N, 3 D), queries, keys and values of G groups of N tokens, side by side.
        heads: number of heads; D is a multiple of it.
        bias: (heads, N, N), the same for every group.

    Returns:
        (G, N, D), before the output projection.
    """
    groups, tokens, width = qkv.shape
    q, k, v = qkv.view(groups, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
    return out.transpose(1, 2).reshape(groups, tokens, width // 3)
