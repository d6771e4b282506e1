"""VideoClassifier: a backbone, a strategy's body on it, and a head."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adapters.base import BodyConfig, Options, Strategy
from adapters.frozen_pass import States
from adapters.heads import HEADS, HeadConfig, order_aware, unread
from backbones.base import Backbone


class VideoClassifier(nn.Module):
    """A video model made of an image model: clips (B, T, 3, H, W), normalised -> logits (B, classes).

    On construction exactly the parameters that strategy and head name are set to require gradients.

    Args:
        backbone: the image model; its weights are shared, not copied.
        strategy: what is added and what trains.
        options: of the strategy.
        classes: number of classes.
        frames: T of a clip.
        head: name of a registered head.
        head_options: of the head; None for its defaults.
        class_names: by label, for heads that read them.
        drop_path, drop_path_mode, adapter_init: see `BodyConfig`.
        dropout: before the classifier of the head.

    Raises:
        ValueError: options that do not fit the frames or the backbone; a head that the body gives nothing to read.

    Attributes:
        body: the strategy's, see `adapters.body.Body`.
        head: a module of what the head `reads`: (B, D), (B, T, D) or (B, T, N, D).
        frozen_reads: names of the states of the frozen image model from which it goes on, see `from_states`; None where
            gradients enter the image model, or it is changed.
        order_aware: whether scores depend on the order of the frames, see `adapters.heads.order_aware`.
    """

    def __init__(
        self,
        backbone: Backbone,
        strategy: Strategy,
        options: Options,
        *,
        classes: int,
        frames: int,
        head: str = "linear",
        head_options: Options | None = None,
        class_names: tuple[str, ...] = (),
        drop_path: float = 0.0,
        drop_path_mode: Literal["clip", "released"] = "clip",
        adapter_init: Literal["released", "torch"] = "released",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.strategy = strategy
        self.options: Any = options
        self.frames = frames
        self.classes = classes
        config = BodyConfig(frames, drop_path, drop_path_mode, adapter_init)
        self.body = strategy.body(backbone, config, options)
        kind = HEADS.get(head)
        if (reason := unread(strategy, kind)) is not None:
            raise ValueError(reason)
        self.reads = kind.reads
        self.order_aware = order_aware(strategy, kind)
        chosen = kind.options() if head_options is None else head_options
        about = HeadConfig(self.body.width, classes, class_names, frames, dropout, chosen)
        self.head = kind.module(backbone, about)
        shared = {id(parameter) for parameter in backbone.parameters()}
        if any(id(parameter) in shared for parameter in self.body.parameters()):
            raise ValueError(f"{strategy.name} registers parameters of the backbone as parts of its body")
        self.requires_grad_(False)
        for parameter in chain(strategy.trainable(self), kind.trainable(self.head)):
            parameter.requires_grad_(True)
        frozen = strategy.frozen_backbone and kind.frozen_backbone
        if frozen and any(parameter.requires_grad for parameter in backbone.parameters()):
            raise ValueError(
                f"{strategy.name} with the head {head} is declared to leave the backbone frozen, and trains some"
            )
        self.frozen_reads = self.body.reads(self.reads) if frozen else None
        if frozen and self.frozen_reads is None:
            raise ValueError(
                f"{strategy.name} is declared to leave the backbone frozen, and its body names no states of it: "
                "expected `reads`"
            )
        self.body_trains = any(name.startswith(("backbone.", "body.")) for name, _ in self.trained())

    def features(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W), normalised -> what the head reads: (B, D), (B, T, D) or (B, T, N, D)."""
        body = self.body
        compute = {"features": body.features, "frames": body.frame_features, "sequence": body.sequence}[self.reads]
        if self.body_trains or clips.requires_grad:
            return compute(clips)
        with torch.no_grad():  # nothing below the head trains: no activation is kept
            return compute(clips)

    def from_states(self, states: States) -> Tensor:
        """Logits (B, classes) of clips whose states these are: those of `frozen_reads`, of this very backbone."""
        if self.body_trains:
            return self.head(self.body.from_states(self.reads, states))
        with torch.no_grad():
            features = self.body.from_states(self.reads, states)
        return self.head(features)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W), normalised -> logits (B, classes)."""
        return self.head(self.features(clips))

    def deployed(self) -> VideoClassifier:
        """The model that predicts the same and is run after training: a merged copy where the strategy has one."""
        if type(self.strategy).merge is Strategy.merge:
            return self
        return self.strategy.merge(copy.deepcopy(self))

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that train, in the order of the state dict."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def stored(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that the image model does not bring: those that train, and those that were added and
        stay as they started."""
        return (
            (name, parameter)
            for name, parameter in self.named_parameters()
            if parameter.requires_grad or not name.startswith("backbone.")
        )
