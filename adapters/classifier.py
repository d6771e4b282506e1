"""VideoClassifier: a backbone, its adapted blocks, and a head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from adapters.adapter import Adapter
from adapters.base import AdapterOptions, Options, Strategy, TemporalOptions
from adapters.block import AdaptedBlock, TimeBias
from adapters.build import chosen
from adapters.checkpointing import recomputed
from backbones.base import Backbone


class VideoClassifier(nn.Module):
    """A video model made of an image model (AIM, section 3).

    Every frame goes through the backbone's blocks with the strategy's additions around them; the head sees the mean of
    the frames' features. Where attention over time runs, each frame's tokens get a temporal embedding (1, T, D), zero
    at the start; a strategy without it has none, or it would no longer be blind to the frames' order.

    On construction exactly the strategy's parameters are set to require gradients.

    Args:
        backbone: the image model; its weights are shared, not copied.
        strategy: what is added and what trains.
        options: of the strategy.
        classes: number of classes.
        frames: T of a clip. Where the option `tubelet` makes patches cover several, T below stands for T / tubelet.
        drop_path: rate of the last block; the first has none, linear in between.
        drop_path_mode: "clip": whole clips lose a branch; "released": what AIM's released code of the family drops at
            once, see `Backbone.drop_axes`.
        adapter_init: start of the adapters' `down`: "released": see `Adapter.start_as_released`; "torch": that of any
            `nn.Linear`.
        dropout: before the head.

    Raises:
        ValueError: options that do not fit the frames or the backbone.

    Attributes:
        checkpoint_activations: whether a block keeps for its gradients only its input and what its attentions gave, and
            works the rest out again (selective recomputation; Korthikanti et al., 2022): the same numbers, less memory,
            more time.
    """

    checkpoint_activations = False

    def __init__(
        self,
        backbone: Backbone,
        strategy: Strategy,
        options: Options,
        *,
        classes: int,
        frames: int,
        drop_path: float = 0.0,
        drop_path_mode: Literal["clip", "released"] = "clip",
        adapter_init: Literal["released", "torch"] = "released",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.strategy = strategy
        self.frames = frames
        self.tubelet = _tubelet(backbone, options, frames)
        self.released_freezing = _released_freezing(backbone, options)
        steps = frames // self.tubelet
        depth = len(backbone.blocks)
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        picked = chosen(backbone.blocks, options)
        self.blocks = nn.ModuleList(
            strategy.adapt(block, index, depth, steps, options, rates[index]) if picked[index] else AdaptedBlock(block)
            for index, block in enumerate(backbone.blocks)
        )
        for module in self.blocks.modules():
            if isinstance(module, AdaptedBlock) and drop_path_mode == "released":
                module.drop_as_released(backbone)
            elif isinstance(module, Adapter) and adapter_init == "released":
                module.start_as_released()
        over_time = strategy.time is not None and not self.released_freezing
        self.temporal_embedding = nn.Parameter(torch.zeros(1, steps, backbone.blocks[0].width)) if over_time else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.width, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self._choose_trained()

    def _choose_trained(self) -> None:
        self.requires_grad_(self.strategy.trains == "all")
        self.head.requires_grad_(True)
        if self.strategy.trains == "added":
            self.blocks.requires_grad_(True)  # they own what was added alone
            self.backbone.final_norm.requires_grad_(not self.released_freezing)
            if self.temporal_embedding is not None:
                self.temporal_embedding.requires_grad_(True)
            if self.released_freezing:
                for module in self.blocks.modules():
                    if isinstance(module, TimeBias):
                        module.requires_grad_(False)

    @torch.no_grad()
    def start_temporal_embedding(self, clips: Tensor, share: float) -> None:
        """Start the temporal embedding as sinusoids over the frames (Vaswani et al., 2017, section 3.5), not at zero.

        In a training of a few hundred steps an embedding that starts at zero stays too small to tell frames apart; the
        published one starts there. Nothing happens where the strategy has no attention over time.

        Args:
            clips: (B, T, 3, H, W), normalised; the backbone's tokens of them set the scale.
            share: root mean square of the sinusoids / that of the tokens they are added to.
        """
        if self.temporal_embedding is None or share == 0:
            return
        scale = self.backbone.tokens(clips.flatten(0, 1), self.tubelet).float().pow(2).mean().sqrt()
        waves = sinusoids(*self.temporal_embedding.shape[1:]).to(clips.device)
        self.temporal_embedding.copy_(share * scale * waves / waves.pow(2).mean().sqrt())

    def features(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W), normalised -> (B, D), the mean over frames."""
        batch, steps = len(clips), clips.shape[1] // self.tubelet
        offset = (
            None if self.temporal_embedding is None else self.temporal_embedding.expand(batch, -1, -1).flatten(0, 1)
        )
        x = self.backbone.embed(clips.flatten(0, 1), offset, self.tubelet)
        checkpointing = self.checkpoint_activations and torch.is_grad_enabled()
        for block in self.blocks:
            x = recomputed(block, x, steps) if checkpointing else block(x, steps)
        return self.backbone.finish(x).view(batch, steps, -1).mean(dim=1)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W), normalised -> logits (B, classes)."""
        return self.head(self.dropout(self.features(clips)))

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that the strategy trains, in the order of the state dict."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def stored(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that the image model does not bring: those that train, and those that were added and
        stay as they started."""
        return (
            (name, parameter)
            for name, parameter in self.named_parameters()
            if parameter.requires_grad or not name.startswith("backbone.")
        )


def _tubelet(backbone: Backbone, options: Options, frames: int) -> int:
    """Frames that a patch covers. Raises ValueError where the frames or the backbone do not allow it."""
    if not isinstance(options, TemporalOptions):
        return 1  # a strategy without attention over time must not see which frames are neighbours
    tubelet = backbone.tubelet if options.tubelet is None else options.tubelet
    if tubelet not in (1, backbone.tubelet):
        raise ValueError(f"tubelet is {tubelet}: expected {' or '.join(map(str, sorted({1, backbone.tubelet})))}")
    if frames % tubelet:
        raise ValueError(f"frames is {frames}: expected a multiple of the tubelet, {tubelet}")
    return tubelet


def _released_freezing(backbone: Backbone, options: Options) -> bool:
    """Return whether training freezes what AIM's code does. Raises ValueError where it released no such model."""
    asked = isinstance(options, AdapterOptions) and options.released_freezing
    if asked and not backbone.released_freezing:
        raise ValueError("released_freezing is true: AIM's released code freezes more in a Swin alone, expected false")
    return asked


def sinusoids(frames: int, width: int) -> Tensor:
    """(1, T, D): sines in the even columns, cosines in the odd ones, wavelengths from 2 pi to 20,000 pi frames."""
    rates = 10_000 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(frames)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None, :, :width]
