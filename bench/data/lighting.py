"""AlexNet's lighting noise, which moves all pixels along the principal axes of natural colours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
