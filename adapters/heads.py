"""Heads: from a body's features, or all its tokens, to class scores."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from adapters.base import Options, Strategy
from backbones.names import WeightsError
from backbones.registry import Registry, did_you_mean

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
        options: of the head's class of options.
    """

    width: int
    classes: int
    class_names: tuple[str, ...] = ()
    frames: int = 1
    dropout: float = 0.5
    options: Any = None


class Head:
    """One way to score classes.

    Attributes:
        name: as on the command line.
        summary: one line for `bench list heads`.
        reads: "features" (B, D), those of the "frames" (B, T, D), or the "sequence" of all tokens (B, T, N, D).
        order_aware: whether the scores depend on the order of the frames it reads, be they the same otherwise.
        options: the pydantic model of its options.
        reads_classes: whether it needs the names of the classes.
        frozen_backbone: whether it neither trains nor changes anything of the image model, see `Strategy`. Not
            inherited.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    reads: ClassVar[Literal["features", "frames", "sequence"]] = "features"
    order_aware: ClassVar[bool] = False
    options: ClassVar[type[Options]] = Options
    reads_classes: ClassVar[bool] = False
    frozen_backbone: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.frozen_backbone = bool(vars(cls).get("frozen_backbone", False))

    def refuses(self, backbone: Backbone, options: Any = None) -> str | None:
        """Return the reason why this head cannot stand on a backbone; None where it can. See `Strategy.refuses`.

        Args:
            backbone: opened, without its numbers.
            options: of the class `self.options`; None for the defaults.
        """
        return None

    def prepare(self, backbone: Backbone) -> None:
        """Get what the head needs beside an opened backbone, before anything runs. Raises WeightsError."""

    def module(self, backbone: Backbone, config: HeadConfig) -> nn.Module:
        """Build the head: called with what it `reads`, gives (B, classes)."""
        raise NotImplementedError(f"{type(self).__name__} builds no module")

    def trainable(self, module: nn.Module) -> Iterable[nn.Parameter]:
        """The parameters of the module that train: here all."""
        return module.parameters()

    def about(self, module: nn.Module) -> dict[str, Any]:
        """Facts on the built head for the provenance of a result, in values that JSON knows."""
        return {}


HEADS: Registry[Head] = Registry("head", "aim_bench.heads", ("adapters.heads",))


def register_head(head: type[Head]) -> type[Head]:
    """Class decorator: make a head known under its `name`."""
    HEADS.add(head.name, head())
    return head


def order_aware(strategy: Strategy, head: Head) -> bool:
    """Return whether scores depend on the order of a clip's frames: a property of strategy and head together.

    A head that knows the time makes an order-blind strategy aware; none makes an aware one blind.
    """
    return strategy.order_aware or head.order_aware


def unread(strategy: Strategy, head: Head) -> str | None:
    """Return the reason why a strategy's body gives a head nothing to read; None where it does."""
    if strategy.gives_sequence or head.reads == "features":
        return None
    what = "all tokens" if head.reads == "sequence" else "the image model's feature of each frame"
    return f"the head {head.name} reads {what}, and {strategy.name} gives one feature a clip"


@register_head
class Linear(Head):
    name = "linear"
    summary = "dropout and a Linear on the mean of the frames' features (AIM)"
    frozen_backbone = True

    def module(self, backbone: Backbone, config: HeadConfig) -> nn.Module:
        from collections import OrderedDict

        from torch import nn

        linear = nn.Linear(config.width, config.classes)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(OrderedDict(dropout=nn.Dropout(config.dropout), linear=linear))


class ProbeOptions(Options):
    depth: int = Field(4, ge=1, le=64, description="blocks of the probe, the last one's cross-attention among them")
    heads: int = Field(16, ge=1, le=1024, description="of every attention in the probe")


@register_head
class Attentive(Head):
    """V-JEPA 2's probe: three blocks of self-attention, one of cross-attention, 16 heads, without dropout."""

    name = "attentive"
    summary = "an attentive probe over all tokens of all frames (V-JEPA 2), without their order"
    reads = "sequence"
    options: ClassVar[type[ProbeOptions]] = ProbeOptions
    frozen_backbone = True

    def refuses(self, backbone: Backbone, options: Any = None) -> str | None:
        width, heads = backbone.width, (options or self.options()).heads
        return f"its width {width} does not divide among the probe's {heads} heads" if width % heads else None

    def module(self, backbone: Backbone, config: HeadConfig) -> nn.Module:
        from adapters.attentive import AttentiveProbe

        chosen = config.options or self.options()
        return AttentiveProbe(
            config.width, config.classes, config.frames, time=self.order_aware, depth=chosen.depth, heads=chosen.heads
        )


@register_head
class AttentiveTime(Attentive):
    name = "attentive-time"
    summary = "the attentive probe, with a sinusoidal embedding of each frame's time"
    order_aware = True
    frozen_backbone = True


class TextOptions(Options):
    templates: str = Field(
        "kinetics",
        description="prompts with {} for the class, joined by |; kinetics: CLIP's 28 for actions; openai: its 80 for "
        "ImageNet",
    )
    words: bool = Field(True, description="write names such as brush_hair and ApplyEyeMakeup as words")

    @field_validator("templates", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        return "|".join(map(str, value)) if isinstance(value, list | tuple) else value

    @field_validator("templates")
    @classmethod
    def _with_place(cls, value: str) -> str:
        if value in NAMED_TEMPLATES:
            return value
        parts = [part.strip() for part in value.split("|")]
        for template in parts:
            if "{}" not in template or re.search("[{}]", template.replace("{}", "", 1)):
                near = did_you_mean(value, NAMED_TEMPLATES)
                raise ValueError(
                    f"expected {' or '.join(NAMED_TEMPLATES)}, or prompts with {{}} once, joined by |{near}"
                )
        return "|".join(parts)


NAMED_TEMPLATES = ("kinetics", "openai")


@register_head
class Text(Head):
    """CLIP's zero-shot classifier (Radford et al., 2021), from which training starts (Wortsman et al., 2022)."""

    name = "text"
    summary = "CLIP's classifier from the classes' names: zero-shot with 0 epochs, else its start"
    reads = "frames"
    options: ClassVar[type[TextOptions]] = TextOptions
    reads_classes = True
    frozen_backbone = True

    def refuses(self, backbone: Backbone, options: Any = None) -> str | None:
        return backbone.no_text if backbone.text is None else None

    def prepare(self, backbone: Backbone) -> None:
        if backbone.text is None:
            raise WeightsError(
                f"the head text cannot stand on these weights ({backbone.pretrained}): {backbone.no_text}"
            )
        backbone.text.load()

    def module(self, backbone: Backbone, config: HeadConfig) -> nn.Module:
        from adapters.text import TextClassifier

        if (reason := self.refuses(backbone)) is not None:
            raise ValueError(f"the head text cannot stand on this backbone: {reason}")
        return TextClassifier(backbone.text, config.classes, config.class_names, config.options or self.options())

    def trainable(self, module: Any) -> Iterable[nn.Parameter]:
        return module.linear.parameters()

    def about(self, module: Any) -> dict[str, Any]:
        # of one whose weights come from a file there is nothing to tell
        return {"templates": list(module.templates), "classes": list(module.words)} if module.templates else {}
