"""Crops of whole clips, as AIM's recipe has them: one draw for all the frames of a clip.

Clips are uint8 tensors (T, 3, H, W) until `normalise`, which is called on the device: bytes are a quarter of the way
there. The recipe names its sizes for 224 pixels (a short side of 256 before the crop); other sizes keep the ratio.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from bench.spec.fields import PIXELS, Pixels


def before_crop(size: int) -> int:
    """The short side from which a crop of `size` is taken: 256 for 224."""
    return round(size * 256 / 224)


def check_clip(clip: Tensor) -> None:
    """Raises ValueError where it is not a clip."""
    if clip.dtype != torch.uint8 or clip.ndim != 4 or clip.shape[1] != 3:
        raise ValueError(f"expected a clip of uint8 (T, 3, H, W), not {clip.dtype} {tuple(clip.shape)}")


class TrainTransform:
    """Random resized crop and, where the data set allows it, a flip: (T, 3, H, W) -> (T, 3, size, size), uint8.

    The recipe resizes to a short side of 256 first and crops then. Larger frames are made that small where they are
    decoded; smaller ones are not enlarged: the crop's area and ratio are relative, it sees the same part of them.

    Draws come from torch's global generator.

    Args:
        crop_area: range of the crop's area, in parts of the picture; its ratio lies in 3/4 to 4/3.
        flip: mirror half of the clips.
    """

    def __init__(self, size: int, crop_area: tuple[float, float] = (0.08, 1.0), flip: bool = True) -> None:
        steps: list[torch.nn.Module] = [
            v2.RandomResizedCrop(
                size,
                scale=crop_area,
                ratio=(3 / 4, 4 / 3),
                interpolation=v2.InterpolationMode.BILINEAR,
                antialias=True,
            )
        ]
        if flip:
            steps.append(v2.RandomHorizontalFlip(0.5))
        self._steps = steps

    def __call__(self, clip: Tensor) -> Tensor:
        check_clip(clip)
        for step in self._steps:
            clip = step(clip)
        return clip


class TestTransform:
    """Crops of a picture made to a short side: (T, 3, H, W) -> (crops, T, 3, size, size), uint8.

    `resize`, then `crop`, for who reads a video in parts.

    Args:
        size: pixels of a crop's side.
        crops: 1 for the centre; 3 for the left, the centre and the right of the long side (top, centre and bottom of
            an upright picture), in this order. They start where mmaction's do: at 0, step and 2 * step, where step is
            half of what is too long, rounded down.
        short_side: pixels of the picture's short side before the crop; None for `size`, so that crops cover it.
        pixels: how pictures are resized.
    """

    __test__ = False  # not a test case, whatever pytest makes of its name

    def __init__(self, size: int, crops: int = 1, short_side: int | None = None, pixels: Pixels = "own") -> None:
        if crops not in (1, 3):
            raise ValueError(f"{crops} crops: expected 1 (centre) or 3 (left, centre, right)")
        self.size = size
        self.crops = crops
        self.short_side = short_side or size
        self.pixels: Pixels = pixels
        if self.short_side < size:
            raise ValueError(f"a short side of {short_side} pixels: expected at least the crop's {size}")

    def resize(self, clip: Tensor, full_size: tuple[int, int] | None = None) -> Tensor:
        """The picture before its crops.

        Args:
            full_size: height and width of the video, of which the clip may be a smaller copy: what is rounded twice
                would differ from what is rounded once.
        """
        check_clip(clip)
        height, width = full_size or clip.shape[-2:]
        return resized(clip, size_for(height, width, self.short_side), self.pixels)

    def crop(self, clip: Tensor) -> Tensor:
        top, left = ((side - self.size) // 2 for side in clip.shape[-2:])
        if self.crops == 1:
            corners = [(top, left)]
        elif top > left:
            corners = [(0, left), (top, left), (2 * top, left)]
        else:
            corners = [(top, 0), (top, left), (top, 2 * left)]
        return torch.stack([clip[..., y : y + self.size, x : x + self.size] for y, x in corners])

    def __call__(self, clip: Tensor) -> Tensor:
        return self.crop(self.resize(clip))


class ValTransform(TestTransform):
    """The centre of the picture, a little enlarged: (T, 3, H, W) -> (1, T, 3, size, size), uint8."""

    def __init__(self, size: int, pixels: Pixels = "own") -> None:
        super().__init__(size, 1, before_crop(size), pixels)


def normalise(clips: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (..., 3, H, W) -> (x / 255 - mean) / std of the same shape, worked out in float32 and given as `dtype`."""
    if clips.dtype != torch.uint8 or clips.ndim < 3 or clips.shape[-3] != 3:
        raise ValueError(f"expected uint8 (..., 3, H, W), not {clips.dtype} {tuple(clips.shape)}")
    middle = torch.tensor(mean, dtype=torch.float32, device=clips.device).view(3, 1, 1)
    spread = torch.tensor(std, dtype=torch.float32, device=clips.device).view(3, 1, 1)
    return clips.float().mul_(1 / (255 * spread)).sub_(middle / spread).to(dtype)


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
    if pixels not in PIXELS:
        raise ValueError(f"pixels is {pixels!r}: expected {' or '.join(PIXELS)}")
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    if pixels == "own":
        made: Tensor = v2.functional.resize_image(
            frames, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True
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
    # the place in double precision, rounded to single before it is parted
    place = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = place.floor()
    share = place - first
    first = first.long()
    shares = [(part * 2048).round().int() for part in (1 - share, share)]
    return (first.clamp(0, old - 1), (first + 1).clamp(0, old - 1)), (shares[0], shares[1])
