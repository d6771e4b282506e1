"""A block of a backbone with adaptation around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.adapter import DropPath, zero_linear
from backbones.base import Backbone, Block


class TimeBias(nn.Module):
    """Bias of the attention's logits by the distance of two frames, a table of (2 T - 1, heads) as Swin has over space.

    Args:
        frames: T.
        heads: attention heads.
    """

    def __init__(self, frames: int, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(2 * frames - 1, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.index: Tensor
        at = torch.arange(frames)
        self.register_buffer("index", at[:, None] - at[None, :] + frames - 1, persistent=False)

    def forward(self) -> Tensor:
        """(heads, T, T)."""
        return self.table[self.index].permute(2, 0, 1)


class TimeBranch(nn.Module):
    """after(MSA_time(before(LN1(x)))), the residual branch that lets frames look at each other.

    With the image model's own norm and attention (AIM, section 3.3) or with a trained copy of them (TimeSformer,
    section 3); either way `after` starts at zero, so that the branch does.

    Args:
        block: whose norm and attention run over time.
        frames: T, for the bias where the block's attention has one.
        after: (..., D) -> (..., D), zero at the start.
        before: one more map on the normed tokens (AIM's SSv2 variant), the identity at the start.
        copy: train copies of the norm and the attention in place of the block's own.
    """

    def __init__(
        self, block: Block, frames: int, *, after: nn.Module, before: nn.Module | None = None, copy: bool = False
    ) -> None:
        super().__init__()
        self.block = block.copy_attention() if copy else block
        self.copied = self.block.module if copy else None
        self.bias = TimeBias(frames, block.heads) if block.time_bias else None
        self.before = before
        self.after = after

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, ..., D) -> (B*T, ..., D)."""
        x = self.block.norm1(x)
        if self.before is not None:
            x = self.before(x)
        return self.after(self.block.attend_time(x, frames, None if self.bias is None else self.bias()))


class AdaptedBlock(nn.Module):
    """A block with temporal, spatial and joint adaptation, each of them optional (AIM, section 3, eq. 3 to 8).

    x = x + DropPath(time(x));  x = x + spatial(MSA(LN1(x)));  x = x + MLP(LN2(x)) + DropPath(scale * joint(LN2(x)))

    A finetuned block drops its own branches, MSA and MLP, too.

    The module owns what was added alone: its parameters are never the backbone's.

    Args:
        block: of the backbone.
        time: the branch over time.
        spatial: an adapter with a skip.
        joint: an adapter without a skip.
        scale: s of the joint adapter.
        drop_path: rate at which the branches that were added are dropped.
        drops_own: whether the block's own branches are dropped at that rate, too.
    """

    def __init__(
        self,
        block: Block,
        *,
        time: TimeBranch | None = None,
        spatial: nn.Module | None = None,
        joint: nn.Module | None = None,
        scale: float = 0.5,
        drop_path: float = 0.0,
        drops_own: bool = False,
    ) -> None:
        super().__init__()
        self.block = block
        self.time = time
        self.spatial = spatial
        self.joint = joint
        self.scale = scale
        self.time_drop_path = DropPath(drop_path)
        self.own_drop_path = DropPath(drop_path if drops_own else 0.0)
        self.drop_path = DropPath(drop_path)

    def drop_as_released(self, backbone: Backbone) -> None:
        """Draw along the axes along which AIM's released code of the backbone's family does, not for whole clips."""
        self.time_drop_path.axes = backbone.time_drop_axes
        self.own_drop_path.axes = self.drop_path.axes = backbone.drop_axes

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, ..., D) with T = frames -> (B*T, ..., D')."""
        return self.feed_forward(self.attention(self.block.enter(x), frames), frames)

    def attention(self, x: Tensor, frames: int) -> Tensor:
        """The stream behind the attentions: (B*T, ..., D) -> the same shape."""
        block = self.block
        if self.time is not None:
            x = x + self.time_drop_path(self.time(x, frames), frames)
        attended = block.attend(block.norm1(x))
        return x + self.own_drop_path(attended if self.spatial is None else self.spatial(attended), frames)

    def feed_forward(self, x: Tensor, frames: int) -> Tensor:
        """The stream behind the MLP: (B*T, ..., D) -> the same shape."""
        block = self.block
        normed = block.norm2(x)
        x = x + self.own_drop_path(block.mlp(normed), frames)
        if self.joint is not None:
            x = x + self.drop_path(self.scale * self.joint(normed), frames)
        return x


class SideBlock(AdaptedBlock):
    """x + MLP(LN2 x) + s up(dropout(ReLU(down x))) on the stream after attention (AdaptFormer, eq. 2 and 3).

    `down` starts as torch's Linear (Kaiming uniform, a = sqrt 5) without a bias, `up` at zero.

    Args:
        block: of the backbone.
        bottleneck: h.
        scale: s.
        dropout: between the two layers.
    """

    def __init__(self, block: Block, bottleneck: int, scale: float, dropout: float) -> None:
        super().__init__(block)
        self.down = nn.Linear(block.width, bottleneck)
        nn.init.zeros_(self.down.bias)
        self.up = zero_linear(bottleneck, block.width)
        self.side_scale = scale
        self.dropout = dropout

    def feed_forward(self, x: Tensor, frames: int) -> Tensor:
        side = self.up(F.dropout(F.relu(self.down(x)), self.dropout, self.training))
        return super().feed_forward(x, frames) + self.side_scale * side
