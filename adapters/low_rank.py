"""Low-rank updates of a block's projections (LoRA)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.block import AdaptedBlock
from backbones.base import Block
from backbones.projections import Projection, Role


class LowRank(nn.Module):
    """x -> scale B A dropout(x), (..., D_in) -> (..., D_out) (LoRA, eq. 3). A starts as any Linear does, B at zero.

    Args:
        inputs, outputs: D_in, D_out.
        rank: r.
        scale: alpha / r.
        dropout: of x.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.up.weight)
        self.scale = scale
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.scale * self.down(F.dropout(x, self.dropout, self.training)))

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """(D_out, D_in) of the update in evaluation."""
        return self.scale * self.up.weight.double() @ self.down.weight.double()


class LowRankBlock(AdaptedBlock):
    """A block, some of whose projections have a low-rank update.

    Args:
        block: of the backbone.
        roles: the projections.
        rank, alpha, dropout: see `adapters.lora.LoRAOptions`.

    Raises:
        ValueError: the block does not say where a projection is.
    """

    def __init__(self, block: Block, roles: Iterable[Role], rank: int, alpha: float, dropout: float) -> None:
        super().__init__(block)
        self.updates = nn.ModuleDict()
        for role in roles:
            projection = self._place(role)
            outputs, inputs = projection.weight.shape
            self.updates[role] = LowRank(inputs, outputs, rank, alpha / rank, dropout)
            projection.add(self.updates[role])

    def _place(self, role: Role) -> Projection:
        projection = self.block.linear(role)
        if projection is None:
            raise ValueError(f"projections holds {role}: no module of its own computes it in this backbone")
        return projection

    def fold(self) -> None:
        """Add every update to its matrix and drop it."""
        for role, update in self.updates.items():
            self._place(role).fold(update, update.matrix())  # type: ignore[arg-type, operator]
        self.updates = nn.ModuleDict()
