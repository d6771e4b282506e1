"""AlexNet's lighting noise against its equation, and its draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.data.augment import Augment, Lighting
from tests.reference.lighting import covariance, lit

MEAN = (0.5, 0.5, 0.5)


@pytest.mark.parametrize("std", [0.1, 3.0])  # 3.0 runs into black and white
def test_a_clip_gets_what_the_equation_adds(std: float) -> None:
    clip = torch.randint(0, 256, (2, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for seed in range(5):
        torch.manual_seed(seed)
        alphas = std * torch.randn(3, dtype=torch.float64)
        torch.manual_seed(seed)
        found = Lighting(std)(clip)
        assert found.dtype == torch.uint8 and not torch.equal(found, clip)
        assert np.array_equal(found.numpy(), lit(clip.numpy(), alphas.tolist()))


def test_colours_move_by_2_6_of_255_in_the_published_recipe_and_together() -> None:
    """The mean of |N(0, s)| is s sqrt(2 / pi); the three colours' covariance is that of the equation."""
    grey = torch.full((1, 3, 1, 1), 128, dtype=torch.uint8)
    draws = 4000
    added = np.array(
        [(Augment(MEAN, pca_noise=0.1)(grey, seed).flatten().double() - 128).numpy() for seed in range(draws)]
    )
    expected = covariance(0.1)
    deviations = np.sqrt(np.diag(expected))
    assert float((deviations * np.sqrt(2 / np.pi)).mean()) == pytest.approx(2.6, abs=0.05)
    assert np.abs(added).mean() == pytest.approx(2.6, abs=0.15)
    # rounding to whole levels adds a twelfth to a variance
    error = 5 * np.outer(deviations, deviations) * np.sqrt(2 / draws)
    assert (np.abs(np.cov(added.T) - np.eye(3) / 12 - expected) < error).all()
    assert (np.abs(added.mean(0)) < 5 * deviations / np.sqrt(draws)).all()


def test_what_is_erased_has_no_noise_and_the_jittered_has() -> None:
    clip = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
    for seed in range(10):
        out = Augment((0.0, 1.0, 0.0), erase=1.0, pca_noise=1.0)(clip, seed)
        box = (out == torch.tensor([0, 255, 0], dtype=torch.uint8)[:, None, None]).all(1)
        assert box.any() and not box.all()
        jittered = Augment(MEAN, colour=0.5)(clip, seed).int()
        noisy = Augment(MEAN, colour=0.5, pca_noise=1.0)(clip, seed).int()
        assert len((noisy - jittered).unique(dim=-1).unique(dim=-2).flatten(2).unique(dim=-1)[0]) == 3
        assert not torch.equal(noisy, jittered)
