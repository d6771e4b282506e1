"""Contract of a strategy: the body that it makes of an image model, and the parameters that train.

Nothing here imports torch until a body is built, so that names and options can be listed and checked at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from backbones.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from adapters.body import Body
    from adapters.classifier import VideoClassifier
    from backbones.base import Backbone

Trains = Literal["head", "added", "all"]


class Options(BaseModel):
    """Options of a strategy or head; this base has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("expected no true or false")  # pydantic alone takes True for 1
        return value


@dataclass(frozen=True)
class BodyConfig:
    """The part of a cell and its recipe that shapes a body.

    Attributes:
        frames: T of a clip.
        drop_path: rate of the last block; the first has none, linear in between.
        drop_path_mode: "clip": whole clips lose a branch; "released": what AIM's released code of the family drops at
            once, see `Backbone.drop_axes`.
        adapter_init: start of an adapter's first layer: "released": as in AIM's released code; "torch": that of any
            `nn.Linear`.
    """

    frames: int
    drop_path: float = 0.0
    drop_path_mode: Literal["clip", "released"] = "clip"
    adapter_init: Literal["released", "torch"] = "released"


class FamilyFacts(Protocol):
    """Facts of a backbone family that are known before a model is built."""

    name: str
    tubelet: int
    released_freezing: bool


class Strategy:
    """One way to make an image model a video model.

    Attributes:
        name: as on the command line.
        summary: one line for `bench list strategies`.
        trains: the kind, for lists and for recipes that hold for a kind: the "head" alone, what was "added" as well, or
            "all". The parameters themselves are those of `trainable`.
        options: the pydantic model of its options.
        order_aware: whether the features depend on the order of a clip's frames.
        any_frames: whether a trained model takes clips of another length than its own.
        gives_sequence: whether its body gives all tokens, for heads that read them.
        of_field: whether it is another paper's than AIM's: `--strategies field` has these too, `all` does not.
        frozen_backbone: whether the image model computes the same as without it, before and after training, and no
            gradient enters it, so that trainings may share its forward pass; its body says which states it reads, see
            `adapters.body.Body.reads`. Not inherited: a class that changes more than its parent says it anew.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    trains: ClassVar[Trains] = "added"
    options: ClassVar[type[Options]] = Options
    order_aware: ClassVar[bool] = False
    any_frames: ClassVar[bool] = True
    gives_sequence: ClassVar[bool] = True
    of_field: ClassVar[bool] = False
    frozen_backbone: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.frozen_backbone = bool(vars(cls).get("frozen_backbone", False))

    def refuses(self, backbone: Backbone) -> str | None:
        """Return the reason why a backbone cannot take this strategy; None where it can.

        Args:
            backbone: opened, of the size that is asked for, on torch's meta device: shapes and no weights.
        """
        return None

    def fit_options(
        self, options: Mapping[str, Any], family: FamilyFacts, frames: Iterable[int]
    ) -> tuple[dict[str, Any], list[str]]:
        """Settle the options that depend on the backbone's family.

        Args:
            options: all of them.
            family: of the backbone.
            frames: of clips that they are for.

        Returns:
            The options of a cell, and a sentence on each that does not fit.
        """
        return dict(options), []

    def footnotes(self, options: Mapping[str, Any], family: FamilyFacts) -> list[str]:
        """Sentences on what a reader of a trained cell's numbers would not expect."""
        return []

    def body(self, backbone: Backbone, config: BodyConfig, options: Any) -> Body:
        """Build what turns clips into features. It shares the backbone's weights and owns what was added alone.

        Args:
            backbone: whose weights were hashed already; they may be moved or wrapped, not changed.
            config: frames, and what the recipe asks of the body.
            options: of the class `self.options`.

        Raises:
            ValueError: options that fit neither the frames nor the backbone.
        """
        raise NotImplementedError(f"{type(self).__name__} builds no body")

    def trainable(self, model: VideoClassifier) -> Iterable[nn.Parameter]:
        """The parameters that train beside the head's: here all that the body owns."""
        return model.body.parameters()

    def merge(self, model: VideoClassifier) -> VideoClassifier:
        """The trained model as it is deployed, which predicts the same; in place. Here the model as it is."""
        return model


_MODULES = ("baselines", "aim", "bitfit", "lora", "adaptformer", "vpt", "st_adapter", "zeroi2v", "evl")
STRATEGIES: Registry[Strategy] = Registry(
    "strategy", "aim_bench.strategies", tuple(f"adapters.{module}" for module in _MODULES)
)


def register_strategy(strategy: type[Strategy]) -> type[Strategy]:
    """Class decorator: make a strategy known under its `name`."""
    STRATEGIES.add(strategy.name, strategy())
    return strategy
