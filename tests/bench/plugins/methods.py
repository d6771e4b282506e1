"""Plugin with methods that are not AIM's: a low-rank update, prompts, a probe, a decoder, and a head that never trains.

Everything is in this one file; the package knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from adapters.base import BodyConfig, Options, Strategy, register_strategy
from adapters.baselines import Frozen
from adapters.block import AdaptedBlock
from adapters.blockwise import BlockwiseStrategy
from adapters.body import Body
from adapters.classifier import VideoClassifier
from adapters.heads import Head, HeadConfig, register_head
from backbones.base import Backbone, Block, compute

ROLES = ("query", "value")


class Rank(Options):
    rank: int = Field(2, ge=1, description="of the update")


class LowRankBlock(AdaptedBlock):
    """A block whose query and value matrices get up(down(x)) added; `up` starts at zero."""

    def __init__(self, block: Block, rank: int) -> None:
        super().__init__(block)
        self.updates = nn.ModuleDict()
        for role in ROLES:
            down = nn.Linear(block.width, rank, bias=False)
            up = nn.Linear(rank, block.width, bias=False)
            nn.init.zeros_(up.weight)
            self.updates[role] = nn.Sequential(down, up)
            block.linear(role).add(self.updates[role])

    def merge(self) -> None:
        for role, update in self.updates.items():
            self.block.linear(role).fold(update, update[1].weight @ update[0].weight)
        self.updates = nn.ModuleDict()


@register_strategy
class LowRank(BlockwiseStrategy):
    name = "low-rank"
    summary = "a low-rank update of the query and value matrices"
    options = Rank

    def refuses(self, backbone: Backbone) -> str | None:
        lacking = [role for role in ROLES if backbone.blocks[0].linear(role) is None]
        return f"no module of its own computes {' and '.join(lacking)}" if lacking else None

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Rank, drop_path: float) -> nn.Module:
        return LowRankBlock(block, options.rank)

    def merge(self, model: VideoClassifier) -> VideoClassifier:
        for block in model.body.blocks:
            block.merge()
        return model


class Tokens(Options):
    tokens: int = Field(3, ge=1, description="in every block")


class PromptedBlock(AdaptedBlock):
    """A block that sees learned tokens between a frame's CLS and its patches, and forgets them behind itself."""

    def __init__(self, block: Block, tokens: int, prefix: int) -> None:
        super().__init__(block)
        self.prompts = nn.Parameter(0.02 * torch.randn(tokens, block.width))
        self.prefix = prefix

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, N, D) -> the same shape."""
        cut = self.prefix
        prompts = self.prompts.to(x.dtype).expand(len(x), -1, -1)
        x = super().forward(torch.cat([x[:, :cut], prompts, x[:, cut:]], dim=1), frames)
        return torch.cat([x[:, :cut], x[:, cut + len(self.prompts) :]], dim=1)


@register_strategy
class Prompts(BlockwiseStrategy):
    name = "prompts"
    summary = "learned tokens in every block"
    options = Tokens

    def refuses(self, backbone: Backbone) -> str | None:
        return None if backbone.takes_tokens else "its blocks take no tokens beside a frame's own"

    def body(self, backbone: Backbone, config: BodyConfig, options: Tokens) -> Body:
        self._prefix = backbone.prefix_tokens
        return super().body(backbone, config, options)

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Tokens, drop_path: float) -> nn.Module:
        return PromptedBlock(block, options.tokens, self._prefix)


class Probe(nn.Module):
    """One learned query that attends over all tokens of all frames: (B, T, N, D) -> (B, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width, 1))
        self.value = nn.Linear(width, width)
        self.classify = nn.Linear(width, classes)

    def forward(self, sequence: Tensor) -> Tensor:
        tokens = sequence.flatten(1, 2)
        weights = (tokens @ self.query).softmax(dim=1)  # (B, T*N, 1)
        return self.classify((weights * self.value(tokens)).sum(dim=1))


@register_head
class ProbeHead(Head):
    name = "probe"
    summary = "a probe over all tokens"
    reads = "sequence"

    def module(self, backbone: Backbone, config: HeadConfig) -> nn.Module:
        return Probe(config.width, config.classes)


class DecoderBody(Body):
    """A query per clip reads the outputs of the last two blocks of a frozen model, with a place for each frame."""

    def __init__(self, backbone: Backbone, frames: int) -> None:
        super().__init__(backbone)
        self.width = backbone.blocks[-1].width
        self.places = nn.Parameter(torch.randn(2, frames, 1, self.width))
        self.query = nn.Parameter(torch.randn(2, self.width, 1))
        self.key = nn.ModuleList(nn.Linear(self.width, self.width) for _ in range(2))
        self.norm = nn.LayerNorm(self.width)
        self.graph_below = False

    def features(self, clips: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.embed(clips)
            outputs = []
            for block in self.backbone.blocks:
                x = compute(block, x)
                outputs.append(x)
        self.graph_below = self.graph_below or x.requires_grad
        out = 0
        for level, tokens in enumerate(outputs[-2:]):
            tokens = tokens.unflatten(0, (len(clips), -1)).flatten(2, -2) + self.places[level]
            tokens = tokens.flatten(1, 2)
            weights = (self.key[level](tokens) @ self.query[level] / self.width**0.5).softmax(dim=1)
            out = out + (weights * tokens).sum(dim=1)
        return self.norm(out)


@register_strategy
class Decoder(Strategy):
    name = "decoder"
    summary = "a decoder over the last blocks of a frozen model"
    order_aware = True
    any_frames = False
    gives_sequence = False

    def body(self, backbone: Backbone, config: BodyConfig, options: Options) -> Body:
        return DecoderBody(backbone, config.frames)


@register_strategy
class Still(Frozen):
    name = "still"
    summary = "the frozen model, for heads that do not train"


@register_head
class Fixed(Head):
    name = "fixed"
    summary = "a random classifier that never trains"

    def module(self, backbone: Backbone, config: HeadConfig) -> nn.Module:
        return nn.Linear(config.width, config.classes)

    def trainable(self, module: nn.Module) -> Iterable[Any]:
        return ()
