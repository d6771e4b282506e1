"""From a strategy's attributes to the adapted block."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.adapter import Adapter, zero_linear
from adapters.base import AdapterOptions, JointOptions, Options, Strategy, TemporalOptions
from adapters.block import AdaptedBlock, TimeBranch
from backbones.base import Block


def chosen(blocks: Sequence[Block], options: Options) -> list[bool]:
    """Return for each block whether it is adapted. "top" is the half next to the head (AIM, Table 7).

    "second" is every second block: of a Swin the unshifted ones, as the others do not attend over time.
    """
    depth = len(blocks)
    which = options.blocks if isinstance(options, AdapterOptions) else "all"
    at = {
        "all": range(depth),
        "bottom": range(depth // 2),
        "top": range(depth - depth // 2, depth),
        "second": range(1, depth, 2) if any(block.attends_time for block in blocks[1::2]) else range(0, depth, 2),
    }[which]
    return [index in at for index in range(depth)]


def adapted(strategy: Strategy, block: Block, frames: int, options: Options, drop_path: float) -> AdaptedBlock:
    """A block with the adapters that the strategy's attributes ask for. See `Strategy.adapt`."""
    time = None
    if strategy.time == "own":
        time = TimeBranch(block, frames, after=zero_linear(block.width, block.width), copy=True)
    elif strategy.time == "shared" and block.attends_time and isinstance(options, TemporalOptions):
        two = options.temporal_adapters == 2
        time = TimeBranch(
            block,
            frames,
            before=Adapter(block.width, options.ratio, skip=True) if two else None,
            after=Adapter(block.width, options.ratio, skip=False),
        )
    return AdaptedBlock(
        block,
        time=time,
        spatial=Adapter(block.width, _ratio(options), skip=True) if strategy.spatial else None,
        joint=Adapter(block.width, _ratio(options), skip=False) if strategy.joint else None,
        scale=options.scale if isinstance(options, JointOptions) else 1.0,
        drop_path=drop_path,
        drops_own=strategy.trains == "all",
    )


def _ratio(options: Options) -> float:
    return options.ratio if isinstance(options, AdapterOptions) else AdapterOptions().ratio
