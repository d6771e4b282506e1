"""AIM (Yang et al., ICLR 2023): spatial, temporal and joint adaptation of a frozen image model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from adapters.base import FamilyFacts, Options, register_strategy
from adapters.blockwise import BlockwiseStrategy

if TYPE_CHECKING:
    from torch import nn

    from adapters.classifier import VideoClassifier
    from backbones.base import Backbone, Block


class AdapterOptions(Options):
    """Options of every strategy with adapters."""

    ratio: float = Field(
        0.25,
        gt=0,
        le=4,
        description="width of an adapter's bottleneck / width of the block",
        json_schema_extra={"search": [0.125, 0.25, 0.5]},
    )
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

    scale: float = Field(
        0.5,
        ge=0,
        le=10,
        description="s of the joint adapter (AIM: 0.5, on SSv2: 1)",
        json_schema_extra={"search": [0.25, 0.5, 1.0]},
    )


def chosen(attends_time: Sequence[bool], which: str) -> list[bool]:
    """Return for each block whether it is adapted. "top" is the half next to the head (AIM, Table 7).

    Args:
        attends_time: of each block. "second" is every second block: of a Swin the unshifted ones, as the others do not
            attend over time.
        which: the option `blocks`.
    """
    depth = len(attends_time)
    at = {
        "all": range(depth),
        "bottom": range(depth // 2),
        "top": range(depth - depth // 2, depth),
        "second": range(1, depth, 2) if any(attends_time[1::2]) else range(0, depth, 2),
    }[which]
    return [index in at for index in range(depth)]


@register_strategy
class Spatial(BlockwiseStrategy):
    """Adapters in frozen blocks. The final norm trains, too, unless `released_freezing`."""

    name = "spatial"
    summary = "spatial adaptation: an adapter after the frozen attention of each block"
    options: ClassVar[type[AdapterOptions]] = AdapterOptions

    def chosen(self, blocks: Sequence[Block], options: AdapterOptions) -> list[bool]:
        return chosen([block.attends_time for block in blocks], options.blocks)

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Any, drop_path: float) -> nn.Module:
        from adapters.block import AdaptedBlock

        return AdaptedBlock(block, spatial=_adapter(block, options, skip=True), drop_path=drop_path)

    def body(self, backbone: Backbone, config: Any, options: AdapterOptions) -> Any:
        if options.released_freezing and not backbone.released_freezing:
            raise ValueError(
                "released_freezing is true: AIM's released code freezes more in a Swin alone, expected false"
            )
        return super().body(backbone, config, options)

    def trainable(self, model: VideoClassifier) -> Iterator[nn.Parameter]:
        from adapters.block import TimeBias

        if not model.options.released_freezing:
            yield from model.body.parameters()
            yield from model.backbone.final_norm.parameters()
            return
        biases = {id(p) for module in model.body.modules() if isinstance(module, TimeBias) for p in module.parameters()}
        yield from (parameter for parameter in model.body.parameters() if id(parameter) not in biases)

    def fit_options(
        self, options: Mapping[str, Any], family: FamilyFacts, frames: Iterable[int]
    ) -> tuple[dict[str, Any], list[str]]:
        """Leave `released_freezing` out where the family has no such training."""
        if family.released_freezing:
            return dict(options), []
        told = [
            f"option released_freezing is True: AIM's released code freezes no more of a {family.name} than is frozen "
            "here, expected false, or backbones of swin alone"
        ]
        kept = {name: value for name, value in options.items() if name != "released_freezing"}
        return kept, told if options["released_freezing"] else []

    def footnotes(self, options: Mapping[str, Any], family: FamilyFacts) -> list[str]:
        """Tell that a cell trains what AIM's released training of its family freezes or does not have."""
        if not family.released_freezing or options.get("released_freezing"):
            return []
        return [f"{self._beyond_released}, unlike in AIM's released code"]

    _beyond_released: ClassVar[str] = "final norm trains"


@register_strategy
class Temporal(Spatial):
    """Also the frozen attention over the frames at each position, with an adapter behind, or two around it."""

    name = "temporal"
    summary = "spatial + temporal adaptation: also the frozen attention over time, with adapters"
    options: ClassVar[type[AdapterOptions]] = TemporalOptions
    order_aware = True
    any_frames = False
    _beyond_released = "final norm, temporal embedding and bias over time train"

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Any, drop_path: float) -> nn.Module:
        from adapters.block import AdaptedBlock, TimeBranch

        time = None
        if block.attends_time:
            before = _adapter(block, options, skip=True) if options.temporal_adapters == 2 else None
            time = TimeBranch(block, frames, before=before, after=_adapter(block, options, skip=False))
        spatial = _adapter(block, options, skip=True)
        joint = _adapter(block, options, skip=False) if isinstance(options, JointOptions) else None
        scale = options.scale if isinstance(options, JointOptions) else 1.0
        return AdaptedBlock(block, time=time, spatial=spatial, joint=joint, scale=scale, drop_path=drop_path)

    def tubelet(self, backbone: Backbone, frames: int, options: Any) -> int:
        tubelet = backbone.tubelet if options.tubelet is None else options.tubelet
        if tubelet not in (1, backbone.tubelet):
            raise ValueError(f"tubelet is {tubelet}: expected {' or '.join(map(str, sorted({1, backbone.tubelet})))}")
        if frames % tubelet:
            raise ValueError(f"frames is {frames}: expected a multiple of the tubelet, {tubelet}")
        return tubelet

    def embeds_time(self, options: Any) -> bool:
        return not options.released_freezing

    def fit_options(
        self, options: Mapping[str, Any], family: FamilyFacts, frames: Iterable[int]
    ) -> tuple[dict[str, Any], list[str]]:
        """Name the family's own tubelet where none is named; frames must be a multiple of it."""
        fitted, told = super().fit_options(options, family, frames)
        own = family.tubelet
        tubelet = own if fitted["tubelet"] is None else fitted["tubelet"]
        if tubelet not in (1, own):
            told.append(f"option tubelet is {tubelet}: a patch of {family.name} covers one frame, expected 1")
        told += [
            f"frames is {count}: {self.name} on {family.name} takes frames in tubelets of {tubelet}, "
            f"expected a multiple of {tubelet}, or the option tubelet=1"
            for count in frames
            if tubelet == own and count % tubelet
        ]
        return {**fitted, "tubelet": tubelet}, told


@register_strategy
class Joint(Temporal):
    """Also an adapter beside the frozen MLP."""

    name = "joint"
    summary = "AIM: spatial + temporal + joint adaptation, the last beside the frozen MLP"
    options: ClassVar[type[AdapterOptions]] = JointOptions


def _adapter(block: Block, options: AdapterOptions, *, skip: bool) -> nn.Module:
    from adapters.adapter import Adapter

    return Adapter(block.width, options.ratio, skip=skip)
