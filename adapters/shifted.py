"""Attention whose keys and values are shifted in time, and linear adapters beside frozen matrices (ZeroI2V)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.adapter import zero_linear
from adapters.block import AdaptedBlock
from backbones.base import Block
from backbones.projections import Projection, Role


class LinearAdapter(nn.Module):
    """x -> x + s fc2(dropout(fc1 x)), (..., D) -> (..., D), without an activation; fc2 starts at zero."""

    def __init__(self, width: int, hidden: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = zero_linear(hidden, width)
        self.scale = scale
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.up(F.dropout(self.down(x), self.dropout, self.training))

    @torch.no_grad()
    def affine(self) -> tuple[Tensor, Tensor]:
        """M (D, D) and m (D,) of x M^T + m in evaluation, in float64."""
        down, up = self.down, self.up
        matrix = self.scale * up.weight.double() @ down.weight.double()
        matrix += torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        return matrix, self.scale * (up.weight.double() @ down.bias.double() + up.bias.double())


class TimeShift(nn.Module):
    """Channels of other frames in place of a frame's own, by groups of D // 12; the remaining channels stay.

    A frame without such a neighbour keeps its own.

    Args:
        shifts: of each group, the frames back that it comes from; negative: ahead.

    Attributes:
        frames: T of the clips that come next.
        images: B*T of them.
    """

    def __init__(self, shifts: Sequence[int]) -> None:
        super().__init__()
        self.shifts = tuple(shifts)
        self.frames = self.images = 1

    def forward(self, x: Tensor) -> Tensor:
        """(B*T, ..., D), or the windows of all frames (B*T*W, n, D) -> the same shape."""
        clips = x.reshape(self.images // self.frames, self.frames, -1, x.shape[-1])
        count = x.shape[-1] // 12
        groups = []
        for index, shift in enumerate(self.shifts):
            own = clips[..., index * count : (index + 1) * count]
            if abs(shift) >= self.frames or shift == 0:
                groups.append(own)
            elif shift > 0:
                groups.append(torch.cat([own[:, :shift], own[:, :-shift]], dim=1))
            else:
                groups.append(torch.cat([own[:, -shift:], own[:, shift:]], dim=1))
        return torch.cat([*groups, clips[..., len(self.shifts) * count :]], dim=-1).view(x.shape)


class ShiftedBlock(AdaptedBlock):
    """A block whose keys and values are shifted in time, with linear adapters before and behind attention and MLP.

    Args:
        block: of the backbone.
        shifts: see `TimeShift`.
        hidden: h of the adapters.
        scale, dropout: see `LinearAdapter`.
    """

    def __init__(self, block: Block, shifts: Sequence[int], hidden: int, scale: float, dropout: float) -> None:
        super().__init__(block)
        self.shift = TimeShift(shifts)
        for role in ("key", "value"):
            self._place(role).change(self.shift)
        self.before_attention, self.behind_attention, self.before_mlp, self.behind_mlp = (
            LinearAdapter(block.width, hidden, scale, dropout) for _ in range(4)
        )
        self._place("output").change(self.behind_attention)
        self._place("down").change(self.behind_mlp)
        self.folded = False

    def _place(self, role: Role) -> Projection:
        projection = self.block.linear(role)
        assert projection is not None  # the strategy refuses such a backbone
        return projection

    def attention(self, x: Tensor, frames: int) -> Tensor:
        self.shift.frames, self.shift.images = frames, len(x)
        normed = self.block.norm1(x)
        return x + self.block.attend(normed if self.folded else self.before_attention(normed))

    def feed_forward(self, x: Tensor, frames: int) -> Tensor:
        normed = self.block.norm2(x)
        return x + self.block.mlp(normed if self.folded else self.before_mlp(normed))

    def fold(self) -> None:
        """Multiply every adapter into the matrices beside it and drop it; the shift stays."""
        if self.folded:
            return
        before: tuple[Role, ...] = ("query", "key", "value")
        behind: tuple[tuple[Role, LinearAdapter], ...] = (
            ("output", self.behind_attention),
            ("down", self.behind_mlp),
        )
        for role in before:
            self._place(role).fold_before(*self.before_attention.affine())
        self._place("up").fold_before(*self.before_mlp.affine())
        for role, adapter in behind:
            self._place(role).take_back(adapter)
            self._place(role).fold_behind(*adapter.affine())
        del self.before_attention, self.behind_attention, self.before_mlp, self.behind_mlp
        self.folded = True
