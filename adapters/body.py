"""Bodies: from clips to features. One that goes block by block, and the contract of any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from adapters.block import TimeBias
from adapters.frozen_pass import FrozenPass, States
from backbones.base import Backbone

Output = Literal["features", "frames", "sequence"]


class Body(nn.Module):
    """An image model and what a strategy adds to it: clips (B, T, 3, H, W), normalised -> features (B, width).

    A body owns what was added alone. The backbone is the classifier's: `self.backbone` reaches it and registers
    nothing, so that each parameter has one name.

    Args:
        backbone: the image model.

    Attributes:
        width: of the features.
        checkpoint_activations: whether a block keeps for its gradients only its input and what its attentions gave, and
            works the rest out again: the same numbers, less memory, more time. A body may leave it unheeded.
    """

    checkpoint_activations = False

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._backbone = (backbone,)  # in a tuple it is not registered as a part
        self.width = backbone.width

    @property
    def backbone(self) -> Backbone:
        return self._backbone[0]

    def embed(self, clips: Tensor) -> Tensor:
        """Tokens before the first block: (B, T, 3, H, W) -> (B*T, ..., D)."""
        return self.backbone.embed(clips.flatten(0, 1))

    def features(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W), normalised -> (B, width)."""
        raise NotImplementedError(f"{type(self).__name__} gives no features")

    def frame_features(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W), normalised -> (B, T, width); of a body that has one feature a clip (B, 1, width)."""
        return self.features(clips)[:, None]

    def sequence(self, clips: Tensor) -> Tensor:
        """All normed tokens of all frames: (B, T, 3, H, W), normalised -> (B, T, N, width)."""
        raise NotImplementedError(f"{type(self).__name__} gives no sequence of tokens")

    def reads(self, output: Output) -> tuple[str, ...] | None:
        """Names of the frozen image model's states that an output of this body follows from, see `frozen_pass`.

        Args:
            output: "features", "frames" (`frame_features`) or "sequence".

        Returns:
            None where the body does not go on from states alone: it changes the image model, or trains it.
        """
        return None

    def from_states(self, output: Output, states: States) -> Tensor:
        """An output of this body for clips whose states these are; each of `reads(output)` is taken once."""
        raise NotImplementedError(f"{type(self).__name__} does not go on from states")

    def start(self, clips: Tensor, share: float) -> None:
        """Set what starts from data, before the training.

        Args:
            clips: the first batch, (B, T, 3, H, W), normalised.
            share: the recipe's `time_init`.
        """

    def time_parameters(self) -> Iterable[nn.Parameter]:
        """Those that tell frames apart, which learn at the recipe's `time_lr`."""
        return ()

    def undecayed(self) -> Iterable[nn.Parameter]:
        """Those without weight decay, norms aside, which never have any."""
        return ()


class BlockwiseBody(Body):
    """Every frame goes through the adapted blocks; the feature of a clip is the mean of its frames' (AIM, section 3).

    Args:
        backbone: the image model.
        blocks: one for each of the backbone's, called as block(x, T).
        frames: T of a clip.
        tubelet: frames that one patch covers; below, T stands for T / tubelet.
        temporal_embedding: whether each frame's tokens get a learned embedding (1, T, D), zero at the start. A strategy
            without attention over time must have none, to stay blind to the frames' order.
    """

    def __init__(
        self,
        backbone: Backbone,
        blocks: Iterable[nn.Module],
        frames: int,
        *,
        tubelet: int = 1,
        temporal_embedding: bool = False,
    ) -> None:
        super().__init__(backbone)
        self.tubelet = tubelet
        self.blocks = nn.ModuleList(blocks)
        width = backbone.blocks[0].width
        self.temporal_embedding = nn.Parameter(torch.zeros(1, frames // tubelet, width)) if temporal_embedding else None

    def embed(self, clips: Tensor) -> Tensor:
        embedding = self.temporal_embedding
        offset = None if embedding is None else embedding.expand(len(clips), -1, -1).flatten(0, 1)
        return self.backbone.embed(clips.flatten(0, 1), offset, self.tubelet)

    def tokens(self, clips: Tensor) -> Tensor:
        """Tokens behind the last block: (B, T, 3, H, W) -> (B*T, ..., D)."""
        x = self.embed(clips)
        steps = clips.shape[1] // self.tubelet
        checkpointing = self.checkpoint_activations and torch.is_grad_enabled()
        for block in self.blocks:
            x = recomputed(block, x, steps) if checkpointing else block(x, steps)
        return x

    def features(self, clips: Tensor) -> Tensor:
        return self.frame_features(clips).mean(dim=1)

    def frame_features(self, clips: Tensor) -> Tensor:
        frames = self.backbone.finish(self.tokens(clips))
        return frames.view(len(clips), -1, frames.shape[-1])

    def sequence(self, clips: Tensor) -> Tensor:
        return self.backbone.sequence(self.tokens(clips)).unflatten(0, (len(clips), -1))

    @torch.no_grad()
    def start(self, clips: Tensor, share: float) -> None:
        """Start the temporal embedding as sinusoids over the frames (Vaswani et al., 2017, section 3.5), not at zero.

        In a training of a few hundred steps an embedding that starts at zero stays too small to tell frames apart; the
        published one starts there. Nothing happens where there is none.

        Args:
            clips: (B, T, 3, H, W), normalised; the backbone's tokens of them set the scale.
            share: root mean square of the sinusoids / that of the tokens they are added to.
        """
        if self.temporal_embedding is None or share == 0:
            return
        scale = self.backbone.tokens(clips.flatten(0, 1), self.tubelet).float().pow(2).mean().sqrt()
        waves = sinusoids(*self.temporal_embedding.shape[1:]).to(clips.device)
        self.temporal_embedding.copy_(share * scale * waves / waves.pow(2).mean().sqrt())

    def time_parameters(self) -> Iterator[nn.Parameter]:
        if self.temporal_embedding is not None:
            yield self.temporal_embedding

    def undecayed(self) -> Iterator[nn.Parameter]:
        for module in self.blocks.modules():
            if isinstance(module, TimeBias):
                yield from module.parameters()


class FrozenBody(BlockwiseBody):
    """The image model as it is, one frame by itself; its features follow from the states of a frozen pass.

    Args:
        backbone: stays frozen and is run without gradients.
        blocks: as of the base, with nothing added.
        frames: T of a clip.
    """

    def __init__(self, backbone: Backbone, blocks: Iterable[nn.Module], frames: int) -> None:
        super().__init__(backbone, blocks, frames)
        run: Any = self.blocks
        self._passes = {name: FrozenPass(backbone, [name], run) for name in ("frames", "sequence")}

    def frame_features(self, clips: Tensor) -> Tensor:
        return self.from_states("frames", self._passes["frames"].begin(clips))

    def sequence(self, clips: Tensor) -> Tensor:
        return self.from_states("sequence", self._passes["sequence"].begin(clips))

    def reads(self, output: Output) -> tuple[str, ...]:
        return ("sequence",) if output == "sequence" else ("frames",)

    def from_states(self, output: Output, states: States) -> Tensor:
        (name,) = self.reads(output)
        given = states.take(name).unflatten(0, (states.clips, -1))
        return given.mean(dim=1) if output == "features" else given


def sinusoids(frames: int, width: int) -> Tensor:
    """(1, T, D): sines in the even columns, cosines in the odd ones, wavelengths from 2 pi to 20,000 pi frames."""
    frequencies = 10_000 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(frames)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None, :, :width]


def recomputed(block: nn.Module, x: Tensor, frames: int) -> Tensor:
    """block(x, frames), whose gradients compute the block once more (Korthikanti et al., 2022, section 5).

    The numbers are the same, random ones included. Attention in one kernel is not run again: its result is small.
    """
    return checkpoint(block, x, frames, use_reentrant=False, context_fn=_contexts)


def _contexts() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if _is_attention(operation) else CheckpointPolicy.PREFER_RECOMPUTE


@cache
def _is_attention(operation: Any) -> bool:
    """Test for a kernel of a whole attention: torch's, whichever it chose, or ours among frames."""
    return "attention" in getattr(operation, "name", lambda: "")()
