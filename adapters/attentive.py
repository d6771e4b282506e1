"""The attentive probe of V-JEPA 2 (Assran et al., 2025): attention over all tokens of all frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.body import sinusoids
from backbones.kernels.attention import multi_head


class ProbeMLP(nn.Sequential):
    """LN, D -> 4 D, GELU, 4 D -> D."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class ProbeBlock(nn.Module):
    """x + MSA(LN x), then x + MLP(LN x): 12 D^2 + 13 D parameters."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.mlp = ProbeMLP(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, D) -> the same shape."""
        x = x + self.output(multi_head(self.qkv(self.norm(x)), self.heads))
        return x + self.mlp(x)


class AttentiveProbe(nn.Module):
    """Self-attention blocks over all tokens, then one learned query that attends over them, and a Linear.

    The cross-attention has no projection of its output: query + attention(query, LN x), then + MLP(LN query), of
    11 D^2 + 13 D parameters with the query.

    Args:
        width: D, a multiple of `heads`.
        classes: of the Linear.
        frames: T of a clip, for the time embedding.
        time: whether sinusoids over the frames are added to the tokens; without them the probe is blind to order.
        depth: of all blocks, the cross-attention's among them.
        heads: of every attention.
    """

    def __init__(
        self, width: int, classes: int, frames: int, *, time: bool = False, depth: int = 4, heads: int = 16
    ) -> None:
        super().__init__()
        self.heads = heads
        self.time: Tensor | None
        waves = sinusoids(frames, width)
        # the released probe has all sines before all cosines
        waves = torch.cat([waves[..., ::2], waves[..., 1::2]], dim=-1)
        self.register_buffer("time", waves if time else None, persistent=False)
        self.blocks = nn.ModuleList(ProbeBlock(width, heads) for _ in range(depth - 1))
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.mlp = ProbeMLP(width)
        self.linear = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, N, D) -> (B, classes)."""
        if self.time is not None:
            sequence = sequence + self.time[:, : sequence.shape[1], None].to(sequence.dtype)
        x = sequence.flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        token = self.token.expand(len(x), -1, -1)
        q, (k, v) = self.query(token), self.key_value(self.norm(x)).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        token = token + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.linear(token + self.mlp(token))[:, 0]
