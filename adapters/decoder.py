"""A decoder over the blocks of a frozen image model (EVL)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.body import Body, Output
from adapters.frozen_pass import PARTS, FrozenPass, States, of_block
from backbones.base import Backbone


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
        first = len(backbone.blocks) - layers
        self.read = range(first, len(backbone.blocks))
        self._pass = FrozenPass(backbone, [of_block(index, part) for index in self.read for part in PARTS])
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.norm = nn.LayerNorm(width)

    def features(self, clips: Tensor) -> Tensor:
        return self.from_states("features", self._pass.begin(clips))

    def reads(self, output: Output) -> tuple[str, ...]:
        return self._pass.reads

    def from_states(self, output: Output, states: States) -> Tensor:
        """(B, width); "frames" are the clip's one feature, (B, 1, width)."""
        x = self.query.expand(states.clips, 1, -1)
        for at, index in enumerate(self.read):
            query, key, tokens = (states.take(of_block(index, part)) for part in PARTS)
            x = self.layers[at](x, self._with_time(at, tokens, query, key, states.clips))
        return self.norm(x) if output == "frames" else self.norm(x)[:, 0]

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
