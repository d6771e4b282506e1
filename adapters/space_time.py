"""Adapters with a convolution over space and time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapters.block import AdaptedBlock
from adapters.body import BlockwiseBody
from backbones.base import Block


class SpaceTimeAdapter(nn.Module):
    """x_patch + fc2(DWConv3d(fc1(x_patch))), without an activation; CLS and registers stay (ST-Adapter, eq. 5).

    The convolution starts at zero, weight and bias, and so do the biases of the Linears.

    Args:
        width: D.
        bottleneck: h.
        kernel: over (T, H, W).
        prefix: tokens of a frame before its patches.

    Attributes:
        grid: (H, W) of the patches that come next, where they do not lie so themselves.
    """

    grid: tuple[int, int] = (1, 1)

    def __init__(self, width: int, bottleneck: int, kernel: tuple[int, int, int], prefix: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        frames, rows, columns = (side // 2 for side in kernel)
        self.conv = nn.Conv3d(bottleneck, bottleneck, kernel, padding=(frames, rows, columns), groups=bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.conv.weight)
        for module in (self.down, self.conv, self.up):
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        self.prefix = prefix

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, N, D), or (B*T, H, W, D), with T = frames -> the same shape."""
        if x.ndim == 4:
            return x + self._added(x, frames)
        patches = x[:, self.prefix :].unflatten(1, self.grid)
        moved = patches + self._added(patches, frames)
        return torch.cat([x[:, : self.prefix], moved.flatten(1, 2)], dim=1)

    def _added(self, patches: Tensor, frames: int) -> Tensor:
        volume = self.down(patches).unflatten(0, (-1, frames)).movedim(-1, 1)  # (B, h, T, H, W)
        return self.up(self.conv(volume).movedim(1, -1).flatten(0, 1))


class SpaceTimeBlock(AdaptedBlock):
    """A block with space-time adapters on its stream, before its attention's norm, before its MLP's, or both.

    Args:
        block: of the backbone.
        before_attention, before_mlp: the adapters.
    """

    def __init__(
        self, block: Block, before_attention: SpaceTimeAdapter | None, before_mlp: SpaceTimeAdapter | None
    ) -> None:
        super().__init__(block)
        self.before_attention = before_attention
        self.before_mlp = before_mlp

    def attention(self, x: Tensor, frames: int) -> Tensor:
        return super().attention(x if self.before_attention is None else self.before_attention(x, frames), frames)

    def feed_forward(self, x: Tensor, frames: int) -> Tensor:
        return super().feed_forward(x if self.before_mlp is None else self.before_mlp(x, frames), frames)


class MeanFirstBody(BlockwiseBody):
    """Feature of a clip: the mean of its frames' tokens, then the final norm and the model's own pooling."""

    def embed(self, clips: Tensor) -> Tensor:
        # a model may take frames of another shape than its own
        side = self.backbone.patch_side
        for module in self.blocks.modules():
            if isinstance(module, SpaceTimeAdapter):
                module.grid = clips.shape[-2] // side, clips.shape[-1] // side
        return super().embed(clips)

    def features(self, clips: Tensor) -> Tensor:
        return self.backbone.finish(self.tokens(clips).unflatten(0, (len(clips), -1)).mean(dim=1))

    def frame_features(self, clips: Tensor) -> Tensor:
        return self.features(clips)[:, None]
