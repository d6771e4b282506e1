"""Contract of a strategy: the adapters that a block gets, attention over time or none, and the parameters that train.

Nothing here imports torch until a block is adapted, so that names and options can be listed and checked at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from backbones.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from backbones.base import Block

Trains = Literal["head", "added", "all"]


class Options(BaseModel):
    """A strategy's options; this base has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("expected no true or false")  # pydantic alone takes True for 1
        return value


class AdapterOptions(Options):
    """Options of every strategy with adapters."""

    ratio: float = Field(0.25, gt=0, le=4, description="width of an adapter's bottleneck / width of the block")
    blocks: Literal["all", "top", "bottom", "second"] = Field(
        "all", description="which blocks are adapted: all, the top or bottom half, every second one (AIM, Table 7)"
    )
    released_freezing: bool = Field(
        False,
        description="of a Swin, freeze what AIM's released code does: final norm and bias over time, no embedding",
    )


class TemporalOptions(AdapterOptions):
    """Options of the strategies with temporal adapters."""

    temporal_adapters: Literal[1, 2] = Field(
        1, description="2: one more adapter, with skip, before the attention over time (AIM's SSv2 variant)"
    )
    tubelet: Literal[1, 2] | None = Field(
        None, description="frames that one patch covers; by default the published model's: of Swin 2, of others 1"
    )


class JointOptions(TemporalOptions):
    """Options of AIM."""

    scale: float = Field(0.5, ge=0, le=10, description="s of the joint adapter (AIM: 0.5, on SSv2: 1)")


class Strategy:
    """One way to make an image model a video model. Subclasses set the attributes; few need more than that.

    Attributes:
        name: as on the command line.
        summary: one line for `bench list strategies`.
        trains: "head" alone; "added": the head, what was added and the backbone's final norm; "all": everything.
        time: attention over time: None, "shared" (the frozen weights) or "own" (trained copies, TimeSformer).
        spatial, joint: whether a block gets these adapters.
        options: the pydantic model of its options.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    trains: ClassVar[Trains] = "added"
    time: ClassVar[Literal["shared", "own"] | None] = None
    spatial: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    options: ClassVar[type[Options]] = Options

    def refuses(self, family: str) -> str | None:
        """Return the reason why a backbone family cannot take this strategy; None where it can."""
        return None

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Options, drop_path: float) -> nn.Module:
        """The block with what this strategy adds; called as module(x, frames).

        Blocks that the option `blocks` leaves out are not asked for: they stay as they are.

        Args:
            block: of the backbone.
            index: of the block, from 0.
            depth: number of blocks.
            frames: T.
            options: of the class `self.options`.
            drop_path: rate of this block.
        """
        from adapters.build import adapted

        return adapted(self, block, frames, options, drop_path)


STRATEGIES: Registry[Strategy] = Registry("strategy", "aim_bench.strategies", ("adapters.strategies",))


def register_strategy(strategy: type[Strategy]) -> type[Strategy]:
    """Class decorator: make a strategy known under its `name`."""
    STRATEGIES.add(strategy.name, strategy())
    return strategy
