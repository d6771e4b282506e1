"""timm's Eva behind the Backbone contract: EVA, EVA-02, PE, DINOv3 and other ViTs with rotary position embedding."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from backbones.base import Backbone, only_single
from backbones.vit import ViT, ViTBlock, check_parts


class Rotation:
    """The rotary embedding of the frames that are under way, which every block applies to its queries and keys.

    A copy of a model has one of its own, empty until its next frames.

    Args:
        mixed: whether there is one for every block (mixed RoPE, which learns them).
    """

    def __init__(self, mixed: bool = False) -> None:
        self.mixed = mixed
        self.now: Tensor | None = None

    def at(self, index: int) -> Tensor | None:
        """Of the block `index`."""
        return self.now[index] if self.mixed and self.now is not None else self.now

    def __reduce__(self) -> tuple[type[Rotation], tuple[bool]]:
        return Rotation, (self.mixed,)


class EvaBlock(ViTBlock):
    """timm's pre-norm block: x + gamma_1 attn(norm1(x)), then x + gamma_2 mlp(norm2(x)).

    Queries and keys are rotated by their place in the frame; over time, where a token meets itself at the same place
    in other frames, they are not.

    Args:
        module: timm's block.
        width: D.
        rotation: of the current frames.
        index: of the block.
    """

    parts = ("norm1", "attn")

    def __init__(self, module: Any, width: int, rotation: Rotation | None = None, index: int = 0) -> None:
        super().__init__(module, width)
        self.rotation = rotation or Rotation()
        self.index = index

    def attend(self, x: Tensor) -> Tensor:
        return self._behind(self.module.attn(x, rope=self.rotation.at(self.index)))

    def _behind(self, attended: Tensor) -> Tensor:
        return attended if self.module.gamma_1 is None else self.module.gamma_1 * attended

    def mlp(self, x: Tensor) -> Tensor:
        x = self.module.mlp(x)
        return x if self.module.gamma_2 is None else self.module.gamma_2 * x

    def copy_attention(self) -> ViTBlock:
        copied = super().copy_attention()
        gamma = self.module.gamma_1
        copied.module.register_parameter("gamma_1", None if gamma is None else type(gamma)(gamma.detach().clone()))
        return copied


class PostNormEvaBlock(EvaBlock):
    """timm's block with the norms behind: x + norm1(attn(x)), then x + norm2(mlp(x))."""

    def norm1(self, x: Tensor) -> Tensor:
        return x

    def _behind(self, attended: Tensor) -> Tensor:
        return self.module.norm1(attended)

    def norm2(self, x: Tensor) -> Tensor:
        return x

    def mlp(self, x: Tensor) -> Tensor:
        return self.module.norm2(self.module.mlp(x))

    def copy_attention(self) -> ViTBlock:
        return ViTBlock.copy_attention(self)


BLOCKS = {"EvaBlock": EvaBlock, "EvaBlockPostNorm": PostNormEvaBlock}


class Eva(ViT):
    """A timm Eva without its classifier. See `ViT`."""

    def __init__(self, model: Any, label: str, pretrained: str) -> None:
        Backbone.__init__(self)
        self.model: Any = model
        # see ViT.settle
        model.patch_drop = None
        kinds = [type(block).__name__ for block in model.blocks]
        check_parts(model, kinds, BLOCKS, label)
        self._rotation = Rotation(model.rope_mixed)
        self.blocks = tuple(
            BLOCKS[kind](block, model.embed_dim, self._rotation, index)
            for index, (kind, block) in enumerate(zip(kinds, model.blocks, strict=True))
        )
        self._describe(model, pretrained)

    def train(self, mode: bool = True) -> Eva:
        """The rotation is that of evaluation: shaking its coordinates is an augmentation of the image pretraining."""
        super().train(mode)
        if self.model.rope is not None:
            self.model.rope.eval()
        return self

    def tokens(self, frames: Tensor, tubelet: int = 1) -> Tensor:
        only_single(tubelet)
        self._check(frames)
        tokens, self._rotation.now = self.model._pos_embed(self.model.patch_embed(frames))
        return tokens
