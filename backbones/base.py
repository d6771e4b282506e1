"""The contract of an opened image model: frames -> tokens -> blocks -> one feature vector a frame.

Shapes: B clips, T frames, N tokens a frame, D width. A family lays its tokens out as it likes, (B*T, N, D) or
(B*T, H, W, D); everything outside the family touches the first axis and the last one alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from backbones.projections import Projection, Role

# of tokens (B*T, ..., D): B, T, and what lies between
Axis = Literal["clip", "frame", "position"]


class FrameSizeError(ValueError):
    """Frames of a height and width that an image model does not take."""


class Block(Protocol):
    """One transformer block with its parts reachable.

    A block is a view of the original module: it copies no weights and is not an `nn.Module` itself, so that a parameter
    has one owner, the image model.

    Attributes:
        module: the original module, owner of the parameters.
        width: D of this block's tokens.
        heads: attention heads.
        attends_time: whether the published temporal adaptation goes into this block (all of a ViT's, the unshifted
            ones of a Swin).
        time_bias: whether attention here adds a bias by relative position, so that attention over time needs one too.
    """

    module: Any
    width: int
    heads: int
    attends_time: bool
    time_bias: bool

    def enter(self, x: Tensor) -> Tensor:
        """Compute the image model's operations between the previous block and this one (Swin's patch merging)."""
        ...

    def norm1(self, x: Tensor) -> Tensor:
        """Norm before attention: (B*T, ..., D) -> the same shape."""
        ...

    def attend(self, x: Tensor) -> Tensor:
        """Attention over the tokens of each frame, on normed tokens, as pretrained: windows, masks, layer scale."""
        ...

    def attend_time(self, x: Tensor, frames: int, bias: Tensor | None = None) -> Tensor:
        """The same weights over the frames at each token position, on normed tokens.

        Args:
            x: (B*T, ..., D).
            frames: T.
            bias: (heads, T, T), added to the attention's logits.
        """
        ...

    def norm2(self, x: Tensor) -> Tensor:
        """Norm before the MLP."""
        ...

    def mlp(self, x: Tensor) -> Tensor:
        """The MLP, layer scale included."""
        ...

    def linear(self, role: Role) -> Projection | None:
        """The place of one of the block's matrices; None where its module computes it in a way that takes no update."""
        ...

    def copy_attention(self) -> Block:
        """A block whose `module` owns copies of norm1 and the attention, for a strategy that trains its own over time.

        Only `norm1`, `attend` and `attend_time` of the result may be called.
        """
        ...


class TextModel(Protocol):
    """A loaded text tower."""

    @property
    def scale(self) -> float:
        """Factor by which cosines of pictures and texts become logits."""
        ...

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors of texts: n prompts -> (n, E), float32 on the CPU."""
        ...


class TextTower(Protocol):
    """The text's side of an image model that was trained with texts."""

    @property
    def projection(self) -> Tensor:
        """Matrix (D, E) that takes the image's features into the space shared with texts."""
        ...

    def load(self) -> TextModel:
        """Load the tower with the weights that belong to the image tower's. Raises WeightsError."""
        ...


class Backbone(nn.Module):
    """An image model, opened: `forward` gives exactly what the image model's own features are.

    Attributes:
        blocks: in the order of computation.
        width: D of the features.
        input_size: side of the square input, in pixels; where the pretraining's frames were not square and the model
            takes others too, the shorter side.
        mean, std: of the pretraining's pixels, RGB in 0..1.
        pretrained: the tag of the weights; "none" for random ones.
        tubelet: frames that one patch covers in the published video model of this family (AIM's Swin: 2).
        drop_axes, time_drop_axes: along which AIM's released code draws for itself what drop path drops, of the branch
            over time and of the others; here as its ViT, frame by frame.
        released_freezing: whether AIM's released training of this family freezes the final norm and the bias over
            time, and has no temporal embedding (Swin).
        prefix_tokens: tokens of a frame that stand before its patches: CLS, registers.
        takes_tokens: whether more tokens may stand between those and the patches inside the blocks: not in windows, nor
            where each token's place enters the attention.
        windowed: whether attention goes by windows, so that not every token of a frame sees every other.
        size_unit: pixels of which every other input size is a multiple: a patch's side, of a Swin the side of what its
            largest window sees; None where the model takes no other size than its own.
        notes: what was assumed of the weights, for whoever reads the numbers.
        text: the text's side of the model, where it was trained with texts and that side can be had.
        no_text: why it is None.
    """

    blocks: Sequence[Block]
    width: int
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pretrained: str
    tubelet: int = 1
    drop_axes: tuple[Axis, ...] = ("clip", "frame")
    time_drop_axes: tuple[Axis, ...] = ("clip", "frame")
    released_freezing: bool = False
    prefix_tokens: int = 0
    takes_tokens: bool = False
    windowed: bool = False
    size_unit: int | None = None
    notes: tuple[str, ...] = ()
    text: TextTower | None = None
    no_text: str = "it has no text tower"

    def resize(self, size: int) -> None:
        """Take frames of `size` x `size` pixels from now on: positions are interpolated as the model's library does it.

        Args:
            size: a multiple of `size_unit`.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no other input size than its own")

    @abstractmethod
    def tokens(self, frames: Tensor, tubelet: int = 1) -> Tensor:
        """Patches, CLS and position embedding: (B*T, 3, H, W), normalised -> (B*T / tubelet, ..., D).

        A patch over several frames is the image model's, repeated over them and divided by their number: frames that
        are alike give the image model's own tokens.

        Raises:
            FrameSizeError: the model takes no frames of H x W.
            ValueError: a tubelet that is neither 1 nor the family's own.
        """

    def settle(self, tokens: Tensor) -> Tensor:
        """Apply the image model's operations on its tokens before the first block (CLIP: its first norm)."""
        return tokens

    def embed(self, frames: Tensor, offset: Tensor | None = None, tubelet: int = 1) -> Tensor:
        """Tokens before the first block.

        Args:
            frames: (B*T, 3, H, W), normalised.
            offset: (B*T / tubelet, D), added to every token of a frame where the position embedding is added. AIM puts
                its temporal embedding there.
            tubelet: frames that become one, see `tokens`.
        """
        x = self.tokens(frames, tubelet)
        if offset is not None:
            x = x + offset.view(len(x), *(1 for _ in x.shape[1:-1]), -1)
        # under autocast the sums between the blocks are whole, whatever was added on the way
        return self.settle(x.to(torch.promote_types(x.dtype, torch.float32)))

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches of a frame of the model's own size, before the first block."""

    @property
    def patch_side(self) -> int:
        """Side of a patch in pixels, before the first block."""
        return self.input_size // min(self.grid)

    @abstractmethod
    def sequence(self, tokens: Tensor) -> Tensor:
        """Final norm over all tokens of a frame: tokens -> (B*T, N, D).

        A model that norms after pooling has none before it: there the tokens are those of the last block.
        """

    @abstractmethod
    def pool(self, sequence: Tensor) -> Tensor:
        """The model's own pooling of a `sequence`: (B*T, N, D) -> (B*T, D)."""

    def finish(self, tokens: Tensor) -> Tensor:
        """Final norm and pooling: tokens -> (B*T, D)."""
        return self.pool(self.sequence(tokens))

    @property
    @abstractmethod
    def final_norm(self) -> nn.Module:
        """The norm after the last block."""

    @abstractmethod
    def embeddings(self) -> Iterator[nn.Parameter]:
        """CLS tokens, position embeddings, position-bias tables: no weight decay when they train."""

    def forward(self, frames: Tensor) -> Tensor:
        """(B*T, 3, H, W) -> (B*T, D)."""
        x = self.embed(frames)
        for block in self.blocks:
            x = compute(block, x)
        return self.finish(x)


def compute(block: Block, x: Tensor) -> Tensor:
    """The block as the image model has it: (B*T, ..., D) -> (B*T, ..., D')."""
    x = block.enter(x)
    x = x + block.attend(block.norm1(x))
    return x + block.mlp(block.norm2(x))


def over_time(attend: Callable[[Tensor], Tensor], x: Tensor, frames: int) -> Tensor:
    """Run `attend` (groups, T, D) -> (groups, T, D) over the frames at each token position of x (B*T, ..., D)."""
    between = x.shape[1:-1].numel()
    width = x.shape[-1]
    grouped = x.reshape(-1, frames, between, width).transpose(1, 2).reshape(-1, frames, width)
    # of one clip that is not a copy yet, and a Linear on it would be a product for every position by itself
    grouped = grouped.contiguous()
    attended = attend(grouped)
    return attended.reshape(-1, between, frames, width).transpose(1, 2).reshape(x.shape)


def only_single(tubelet: int) -> None:
    """Raises ValueError: the family has no published video model whose patches cover several frames."""
    if tubelet != 1:
        raise ValueError(f"tubelet is {tubelet}: these patches cover one frame each, expected 1")


def check_size(frames: Tensor, size: tuple[int, int] | None, patch: tuple[int, int] = (1, 1)) -> None:
    """Raise FrameSizeError where frames (..., H, W) are not of the one size, or no multiple of the patch's.

    Args:
        frames: to be looked at.
        size: the only (H, W) that the model takes; None where it takes others too.
        patch: (H, W) of which a frame then holds a whole number.
    """
    height, width = frames.shape[-2:]
    if size is not None and (height, width) != tuple(size):
        raise FrameSizeError(f"the frames are {height}x{width} pixels: expected {size[0]}x{size[1]}")
    if size is None and (height % patch[0] or width % patch[1]):
        raise FrameSizeError(
            f"the frames are {height}x{width} pixels: expected a height that is a multiple of {patch[0]} "
            f"and a width that is one of {patch[1]}"
        )
