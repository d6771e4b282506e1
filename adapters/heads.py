"""Heads: from a body's features, or all its tokens, to class scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from backbones.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from backbones.base import Backbone


@dataclass(frozen=True)
class HeadConfig:
    """The facts that a head is built from.

    Attributes:
        width: of the features or tokens.
        classes: number of classes.
        class_names: theirs, by label, where they are known.
        frames: T of a clip.
        dropout: before the classifier.
    """

    width: int
    classes: int
    class_names: tuple[str, ...] = ()
    frames: int = 1
    dropout: float = 0.5


class Head:
    """One way to score classes.

    Attributes:
        name: as on the command line.
        summary: one line for `bench list heads`.
        reads: "features" (B, D) or the "sequence" (B, T, N, D).
        order_aware: whether the scores of a sequence depend on the order of its frames.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    reads: ClassVar[Literal["features", "sequence"]] = "features"
    order_aware: ClassVar[bool] = False

    def refuses(self, backbone: Backbone) -> str | None:
        """Return the reason why this head cannot stand on a backbone; None where it can. See `Strategy.refuses`."""
        return None

    def module(self, backbone: Backbone, config: HeadConfig) -> nn.Module:
        """Build the head: called with what it `reads`, gives (B, classes)."""
        raise NotImplementedError(f"{type(self).__name__} builds no module")

    def trainable(self, module: nn.Module) -> Iterable[nn.Parameter]:
        """The parameters of the module that train: here all."""
        return module.parameters()


HEADS: Registry[Head] = Registry("head", "aim_bench.heads", ("adapters.heads",))


def register_head(head: type[Head]) -> type[Head]:
    """Class decorator: make a head known under its `name`."""
    HEADS.add(head.name, head())
    return head


@register_head
class Linear(Head):
    name = "linear"
    summary = "dropout and a Linear on the mean of the frames' features (AIM)"

    def module(self, backbone: Backbone, config: HeadConfig) -> nn.Module:
        from collections import OrderedDict

        from torch import nn

        linear = nn.Linear(config.width, config.classes)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(OrderedDict(dropout=nn.Dropout(config.dropout), linear=linear))


@register_head
class Attentive(Head):
    """V-JEPA 2's probe: three blocks of self-attention, one of cross-attention, 16 heads, without dropout."""

    name = "attentive"
    summary = "an attentive probe over all tokens of all frames (V-JEPA 2), without their order"
    reads = "sequence"

    def refuses(self, backbone: Backbone) -> str | None:
        width = backbone.width
        return f"its width {width} does not divide among the probe's {_HEADS} heads" if width % _HEADS else None

    def module(self, backbone: Backbone, config: HeadConfig) -> nn.Module:
        from adapters.attentive import AttentiveProbe

        return AttentiveProbe(
            config.width, config.classes, config.frames, time=self.order_aware, depth=_DEPTH, heads=_HEADS
        )


@register_head
class AttentiveTime(Attentive):
    name = "attentive-time"
    summary = "the attentive probe, with a sinusoidal embedding of each frame's time"
    order_aware = True


_DEPTH, _HEADS = 4, 16
