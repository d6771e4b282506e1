"""From a strategy's attributes to the adapted block."""

from __future__ import annotations

from adapters.adapter import Adapter, zero_linear
from adapters.block import AdaptedBlock, TimeBranch
from adapters.strategy import AdapterOptions, JointOptions, Options, Strategy, TemporalOptions
from backbones.base import Block


def chosen(blocks: str, index: int, depth: int) -> bool:
    """Whether the block `index` of `depth` is adapted. "top" is the half next to the head (AIM, Table 7)."""
    return {
        "all": True,
        "bottom": index < depth // 2,
        "top": index >= depth - depth // 2,
        "second": index % 2 == 1,
    }[blocks]


def adapted(
    strategy: Strategy, block: Block, index: int, depth: int, frames: int, options: Options, drop_path: float
) -> AdaptedBlock:
    """A block with the adapters that the strategy's attributes ask for. See `Strategy.adapt`."""
    if isinstance(options, AdapterOptions) and not chosen(options.blocks, index, depth):
        return AdaptedBlock(block)
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
    )


def _ratio(options: Options) -> float:
    return options.ratio if isinstance(options, AdapterOptions) else AdapterOptions().ratio
