"""Changes to a training clip after its crop and flip: colour, noise, RandAugment, erasing. One draw for all frames.

The released recipe takes these from three libraries (mmaction2's ColorJitter, of which AIM has the lighting noise
alone, imgaug's RandAugment, timm's RandomErasing); here they are torchvision's, and the noise our own. The differences:

- imgaug's RandAugment flips every second clip and crops it a little before its operations, on SSv2 too. Here it does
  not: labels that name directions must not be flipped, and the crop was made before.
- Of imgaug's 18 operations torchvision's lacks inversion, a small cutout and two blurs; it may draw one twice, and its
  translations reach 0.45 of the picture, not 0.33. Both count magnitudes from 0 to 30 and fill what a shear, a shift or
  a rotation uncovers with 128.
- timm's erasing puts zeros into the normalised clip. A clip stays bytes until the device, so the box is filled with the
  mean colour in bytes, which normalises to zero within half a grey level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from bench.data.transforms import check_clip

_MAGNITUDES = 31  # 0 to 30, of RandAugment
_GREY = 128
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 1 / 0.3)


class Augment:
    """Colour, lighting noise, RandAugment and erasing, in this order: uint8 (T, 3, H, W) -> the same.

    Computed on the clip's device. The draws follow from the seed alone, not from the device, the batch or the process.
    What an operation measures (contrast's mean, equalisation's histogram) it measures in each frame, as in the released
    code.

    Args:
        mean: RGB in 0..1, the backbone's; the colour of what is erased.
        rand_augment: operations a clip and their magnitude, 0 to 30; None for none.
        colour: brightness, contrast and saturation are scaled by 1 - colour to 1 + colour, and the hue turns by up to
            colour / 5 of the circle, in a random order.
        erase: share of the clips of which a box is erased: 2 % to a third of the picture, sides in a ratio of 0.3 to
            1 / 0.3.
        pca_noise: standard deviation of the alphas, see `bench.data.augment`.
    """

    def __init__(
        self,
        mean: Sequence[float],
        rand_augment: tuple[int, int] | None = None,
        colour: float = 0.0,
        erase: float = 0.0,
        pca_noise: float = 0.0,
    ) -> None:
        self._steps: list[torch.nn.Module] = []
        if colour:
            self._steps.append(v2.ColorJitter(colour, colour, colour, hue=colour / 5))
        if pca_noise:
            self._steps.append(Lighting(pca_noise))
        if rand_augment is not None:
            operations, magnitude = rand_augment
            self._steps.append(v2.RandAugment(operations, magnitude, _MAGNITUDES, fill=_GREY))
        if erase:
            colours = [round(255 * value) for value in mean]
            self._steps.append(v2.RandomErasing(erase, _ERASED_AREA, _ERASED_RATIO, value=colours, inplace=True))

    def __call__(self, clip: Tensor, seed: int) -> Tensor:
        check_clip(clip)
        if not self._steps:
            return clip
        # decoded frames lie colour by colour within a pixel; most operations are faster on whole planes. Erasing writes
        # into the clip, which must not be the caller's
        clip = clip.clone(memory_format=torch.contiguous_format)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for step in self._steps:
                clip = step(clip)
        return clip

    def batch(self, clips: Tensor, seeds: Sequence[int]) -> Tensor:
        """Clips (B, T, 3, H, W), each with its own seed."""
        if not self._steps:
            return clips
        return torch.stack([self(clip, seed) for clip, seed in zip(clips, seeds, strict=True)])


# of ImageNet's pixels in 0..255 (RGB): the roots of the variances along the principal axes, and those as columns
_VALUES = (55.46, 4.794, 1.148)
_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class Lighting(nn.Module):
    """Add sum of alpha_i value_i vector_i to every pixel, alpha_i ~ N(0, s) (Krizhevsky et al., 2012, section 4.1).

    One draw for all frames of a clip. What is added is rounded to whole grey levels, and sums beyond 0..255 are cut
    off: a clip stays bytes until it is normalised.

    Args:
        std: s.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        self._axes = std * torch.tensor(_VECTORS, dtype=torch.float64) * torch.tensor(_VALUES, dtype=torch.float64)

    def forward(self, clip: Tensor) -> Tensor:
        """uint8 (T, 3, H, W) -> the same, on the clip's device; the draw is the CPU's generator's."""
        added = (self._axes @ torch.randn(3, dtype=torch.float64)).round().to(clip.device, torch.int16)
        return (clip + added[:, None, None]).clamp_(0, 255).to(torch.uint8)


class MixupCutmix:
    """A batch, mixed. Which way and how much follows from (seed, epoch, step) alone.

    It takes the whole batch: a part of it would find other neighbours.

    Args:
        mixup, cutmix: alpha of the Beta(alpha, alpha) distribution from which l comes; 0 for off. At least one is on.
        classes: C, of the data set.
        seed: 0 or more.
    """

    def __init__(self, mixup: float, cutmix: float, classes: int, seed: int) -> None:
        if not mixup and not cutmix:
            raise ValueError("mixup and cutmix are both 0: expected one above 0")
        kinds: list[torch.nn.Module] = []
        if mixup:
            kinds.append(v2.MixUp(alpha=mixup, num_classes=classes))
        if cutmix:
            kinds.append(v2.CutMix(alpha=cutmix, num_classes=classes))
        self._mix = v2.RandomChoice(kinds)
        self._seed = seed

    def __call__(self, clips: Tensor, labels: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Clips (B, T, 3, H, W) uint8 and labels (B,) -> clips of the same shape, in bytes, and labels (B, C).

        A label's entries are shares of 0 to 1 whose sum is 1.
        """
        draw = int(np.random.default_rng((2, self._seed, epoch, step)).integers(2**63))
        mixed = torch.empty_like(clips)
        with torch.random.fork_rng(devices=[]):
            # frame by frame, each with the same draw: a whole batch as floats would take four times its memory
            for frame in range(clips.shape[1]):
                torch.default_generator.manual_seed(draw)
                pictures, shares = self._mix(clips[:, frame].float(), labels)
                mixed[:, frame] = pictures.round_()
        return mixed, shares
