"""A decoder over the blocks of a frozen image model (EVL)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.body import Body
from backbones.base import Backbone, Block, compute
from backbones.projections import Role


class CrossFrameAttention(nn.Module):
    """Attention of each patch over the patches of the next and of the previous frame, with the block's own q and k.

    The weights, averaged over the heads, sum up a learned table by relative position (EVL, section 3.3).

    Args:
        grid: (H, W) of the patches.
        width: D.
    """

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        rows, columns = grid
        self.previous, self.next = (nn.Parameter(torch.zeros((2 * rows - 1) * (2 * columns - 1), width)) for _ in "pn")
        row, column = torch.arange(rows * columns) // columns, torch.arange(rows * columns) % columns
        down = row[:, None] - row + rows - 1
        across = column[:, None] - column + columns - 1
        self.index: Tensor
        self.register_buffer("index", down * (2 * columns - 1) + across, persistent=False)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, T, heads, P, d) each, of the P patches -> (B, T, P, D)."""
        from_previous = self._read(query[:, 1:], key[:, :-1], self.previous)
        from_next = self._read(query[:, :-1], key[:, 1:], self.next)
        nothing = from_next.new_zeros(len(query), 1, *from_next.shape[2:])
        return torch.cat([nothing, from_previous], dim=1) + torch.cat([from_next, nothing], dim=1)

    def _read(self, query: Tensor, key: Tensor, table: Tensor) -> Tensor:
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=2)
        by_patch = weights.flatten(0, 1).transpose(0, 1)  # (P, B*(T-1), P), of the patches that ask
        return (by_patch @ table[self.index]).transpose(0, 1).unflatten(0, weights.shape[:2])


class DecoderLayer(nn.Module):
    """x + MHA(LN x, LN y, LN y), then x + MLP(LN x), of one query token x.

    Args:
        width: D.
        heads: of the attention.
        dropout: in the MLP, behind QuickGELU.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm_query, self.norm_mlp, self.norm_tokens = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = dropout
        for linear in (self.query, self.key, self.value, self.output, self.up, self.down):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x (B, 1, D), tokens (B, M, D) -> (B, 1, D)."""
        normed = self.norm_tokens(tokens)
        q, k, v = self.query(self.norm_query(x)), self.key(normed), self.value(normed)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        x = x + self.output(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        hidden = self.up(self.norm_mlp(x))
        hidden = F.dropout(hidden * torch.sigmoid(1.702 * hidden), self.dropout, self.training)
        return x + self.down(hidden)


class DecoderBody(Body):
    """One query token reads the last blocks' tokens, those of each block with what is learned of time.

    To the tokens of a block are added a depthwise convolution over the frames, a time embedding and
    `CrossFrameAttention`. The feature is the query token behind all layers, normed.

    Args:
        backbone: stays frozen and is run without gradients.
        frames: T.
        layers: of the decoder; the first reads the block `layers` from the end.
        dropout: see `DecoderLayer`.
    """

    def __init__(self, backbone: Backbone, frames: int, layers: int, dropout: float) -> None:
        super().__init__(backbone)
        read = backbone.blocks[-layers:]
        self.width = width = read[-1].width
        self.prefix = backbone.prefix_tokens
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1, groups=width) for _ in read)
        self.embeddings = nn.ParameterList(torch.zeros(frames, width) for _ in read)
        self.cross = nn.ModuleList(CrossFrameAttention(backbone.grid, width) for _ in read)
        self.layers = nn.ModuleList(DecoderLayer(width, block.heads, dropout) for block in read)
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.norm = nn.LayerNorm(width)

    def features(self, clips: Tensor) -> Tensor:
        x = self.query.expand(len(clips), 1, -1)
        tokens = self.embed_frozen(clips)
        first = len(self.backbone.blocks) - len(self.layers)
        for index, block in enumerate(self.backbone.blocks):
            if index < first:
                tokens, _ = _computed(block, tokens, ())
                continue
            tokens, (query, key) = _computed(block, tokens, ("query", "key"))
            x = self.layers[index - first](x, self._with_time(index - first, tokens, query, key, len(clips)))
        return self.norm(x)[:, 0]

    @torch.no_grad()
    def embed_frozen(self, clips: Tensor) -> Tensor:
        """`embed` without gradients."""
        return self.embed(clips)

    def _with_time(self, index: int, tokens: Tensor, query: Tensor, key: Tensor, clips: int) -> Tensor:
        """A block's tokens (B*T, N, D) with what the decoder knows of time: (B, T*N, D)."""
        y = tokens.unflatten(0, (clips, -1))
        moved = self.convolutions[index](y.permute(0, 2, 3, 1).flatten(0, 1))
        moved = moved.unflatten(0, (clips, -1)).permute(0, 3, 1, 2)
        heads = self.layers[index].heads
        q, k = (
            part[:, self.prefix :].unflatten(0, (clips, -1)).unflatten(-1, (heads, -1)).transpose(2, 3)
            for part in (query, key)
        )
        y = y + moved + self.embeddings[index][:, None]
        added = F.pad(self.cross[index](q, k), (0, 0, self.prefix, 0))
        return (y + added).flatten(1, 2)

    def time_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.embeddings


@torch.no_grad()
def _computed(block: Block, x: Tensor, roles: tuple[Role, ...]) -> tuple[Tensor, list[Tensor]]:
    """The block's tokens, and what its projections gave meanwhile: (B*T, N, D) -> the same, and (B*T, N, D) each."""
    with _watched(block, roles) as found:
        x = compute(block, x)
    return x, [found[role] for role in roles]


@contextmanager
def _watched(block: Block, roles: tuple[Role, ...]) -> Iterator[dict[Role, Tensor]]:
    found: dict[Role, Tensor] = {}
    handles = []
    for role in roles:
        projection = block.linear(role)
        assert projection is not None  # the strategy refuses such a backbone

        def keep(_: nn.Module, __: Any, output: Tensor, role: Role = role, rows: slice = projection.rows) -> None:
            found[role] = output[..., rows]

        handles.append(projection.module.register_forward_hook(keep))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
