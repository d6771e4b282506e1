"""A plugin whose cells cost next to nothing, so that what remains is the harness's own: a backbone and a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from backbones.families import Family, register_backbone
from backbones.names import BackboneName
from bench.data.dataset import register_dataset
from bench.data.motion.dataset import Motion
from bench.spec.source import DataSource

if TYPE_CHECKING:
    from backbones.base import Backbone  # imports torch, which the process that is started has no need of


@register_backbone
class TrivialFamily(Family):
    name = "trivial"
    summary = "one block, 8 wide, on frames of 8x8 pixels"
    base = "tiny@none"

    def models(self) -> tuple[str, ...]:
        return ()

    def tags(self, model: str) -> tuple[str, ...]:
        return ()

    def build(self, name: BackboneName) -> Backbone:
        from timm.models.vision_transformer import VisionTransformer

        from backbones.vit import ViT

        model = VisionTransformer(img_size=8, patch_size=8, embed_dim=8, depth=1, num_heads=1, num_classes=0)
        model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # type: ignore[assignment]
        return ViT(model, str(name), name.weights)


@register_dataset("trivial")
class Trivial(Motion):
    """One video of each class of `motion` in each split, one frame a clip, one step of training."""

    name = "trivial"
    summary = "motion with 10 videos a split"
    size: Literal["tiny", "base"] = "tiny"
    frames = 1
    recipes: ClassVar = {"trivial": {"recipe": {"epochs": 1, "batch_size": 16, "warmup_epochs": 0.0}}}

    def __init__(self, source: DataSource | None = None) -> None:
        super().__init__(source, train=1, val=1, test=1)
