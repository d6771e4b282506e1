"""Frames made to a short side: their size as mmcv rounds it, their pixels as ours or as the released code's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

# "own": bilinear and antialiased. "released": bilinear alone, as the released code has it from cv2 through mmcv
Pixels = Literal["own", "released"]
PIXELS: tuple[Pixels, ...] = ("own", "released")

# what an evaluation says of its pixels
FOOTNOTES: dict[Pixels, str] = {
    "own": "test pixels: own, resized with antialiasing; the released code resizes without it (--pixels released)",
    "released": "test pixels: released, resized from the full frames without antialiasing, as cv2 does",
}

_PIECE = 8  # frames that are held in int32 at once


def size_for(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width of a picture made to a short side, rounded as mmcv.rescale_size does: int(x * scale + 0.5)."""
    scale = short_side / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resized(frames: Tensor, size: tuple[int, int], pixels: Pixels = "own") -> Tensor:
    """uint8 (T, 3, H, W) -> uint8 (T, 3, *size), bilinear.

    Raises ValueError for pixels of another name.
    """
    import torch
    from torchvision.transforms.v2 import InterpolationMode, functional

    if pixels not in PIXELS:
        raise ValueError(f"pixels is {pixels!r}: expected {' or '.join(PIXELS)}")
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    if pixels == "own":
        made: Tensor = functional.resize_image(
            frames, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True
        )
        return made
    return torch.cat([_by_cv2(piece.int(), size) for piece in frames.split(_PIECE)])


def _by_cv2(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """int32 (T, 3, H, W) -> uint8 (T, 3, *size), to the bit as cv2.resize with INTER_LINEAR makes it of bytes.

    In fixed point: shares of 11 bits; 7 bits of fraction after the sum across, 2 in the sum down, then rounded (OpenCV,
    imgproc/src/resize.cpp).
    """
    (top, bottom), (above, below) = _taps(frames.shape[-2], size[0])
    (left, right), (before, behind) = _taps(frames.shape[-1], size[1])
    across = (frames[..., left] * before + frames[..., right] * behind) >> 4
    down = (across[..., top, :] * above[:, None] >> 16) + (across[..., bottom, :] * below[:, None] >> 16)
    return ((down + 2) >> 2).byte()


def _taps(old: int, new: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two pixels of `old` from which each of `new` is made, and their shares in 2048ths."""
    import torch

    # the place in double precision, rounded to single before it is parted
    place = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = place.floor()
    share = place - first
    first = first.long()
    shares = [(part * 2048).round().int() for part in (1 - share, share)]
    return (first.clamp(0, old - 1), (first + 1).clamp(0, old - 1)), (shares[0], shares[1])
