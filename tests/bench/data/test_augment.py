"""Colour, noise, RandAugment and erasing of whole clips."""

from __future__ import annotations

import colorsys
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.data.augment import Augment, Lighting
from bench.data.transforms import TrainTransform, normalise
from tests.bench.command import quoting
from tests.reference.lighting import covariance, lit

MEAN, STD = (0.48, 0.457, 0.408), (0.268, 0.261, 0.276)
EACH = {
    "colour": {"colour": 0.5},
    "pca_noise": {"pca_noise": 0.1},
    "rand_augment": {"rand_augment": (4, 7)},
    "erase": {"erase": 0.7},
    "all": {"colour": 0.5, "rand_augment": (4, 30), "erase": 0.7, "pca_noise": 0.1},
}


def noise(frames: int = 3, size: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (frames, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("options", EACH.values(), ids=EACH)
def test_every_frame_gets_the_draw_that_it_would_get_alone(options) -> None:
    augment, clip = Augment(MEAN, **options), noise()
    changed = 0
    for seed in range(40):
        out = augment(clip, seed)
        assert out.shape == clip.shape and out.dtype == torch.uint8
        for frame in range(len(clip)):
            assert torch.equal(out[frame], augment(clip[frame : frame + 1], seed)[0])
        changed += not torch.equal(out, clip)
    assert changed > 20


@pytest.mark.parametrize("options", EACH.values(), ids=EACH)
def test_equal_frames_stay_equal(options) -> None:
    augment, still = Augment(MEAN, **options), noise(1).expand(4, -1, -1, -1)
    for seed in range(20):
        out = augment(still, seed)
        assert (out == out[:1]).all()


def test_the_crop_and_the_flip_too_are_those_that_a_frame_would_get_alone() -> None:
    transform, clip = TrainTransform(16), noise()
    for seed in range(20):
        torch.manual_seed(seed)
        out = transform(clip)
        for frame in range(len(clip)):
            torch.manual_seed(seed)
            alone = transform(clip[frame : frame + 1])[0]
            assert (out[frame].int() - alone.int()).abs().max() <= 1  # the order of sums


def test_the_seed_alone_decides() -> None:
    augment, clip = Augment(MEAN, (4, 7), 0.5, 0.5, 0.1), noise()
    before = clip.clone()
    found = [augment(clip, seed) for seed in range(10)]
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    copy = pickle.loads(pickle.dumps(augment))  # as in a worker process
    assert all(torch.equal(copy(clip, seed), found[seed]) for seed in reversed(range(10)))
    assert torch.equal(torch.rand(2), expected)  # the global generator is left alone
    assert torch.equal(clip, before)  # and so is the clip
    assert len({out.numpy().tobytes() for out in found}) == 10


def test_a_batch_is_its_clips_one_by_one() -> None:
    """The device computes of a batch what the CPU computes beside decoding, whatever the order in memory."""
    augment = Augment(MEAN, (4, 7), 0.5, 0.5, 0.1)
    seeds = tuple(range(16))
    clips = torch.randint(0, 256, (16, 2, 24, 24, 3), dtype=torch.uint8).permute(0, 1, 4, 2, 3)
    out = augment.batch(clips.contiguous(), seeds)
    for clip, seed, batched in zip(clips, seeds, out, strict=True):
        assert torch.equal(augment(clip, seed), batched)


def test_where_nothing_is_on_the_clip_is_passed_on() -> None:
    clip = noise()
    assert Augment(MEAN)(clip, 1) is clip
    assert Augment(MEAN).batch(clip[None], [1]).data_ptr() == clip.data_ptr()


def test_what_is_no_clip_is_refused() -> None:
    with pytest.raises(ValueError, match=quoting("uint8", "(T, 3, H, W)", "torch.float32")):
        Augment(MEAN, erase=1.0)(torch.zeros(2, 3, 8, 8), 0)


def test_rand_augment_never_mirrors() -> None:
    """Labels may name directions. What rises from left to right still does, and from top to bottom."""
    clip = torch.zeros(1, 3, 32, 32)
    clip[:, 0], clip[:, 1] = torch.linspace(20, 180, 32), torch.linspace(20, 180, 32)[:, None]
    clip = clip.to(torch.uint8)
    line = torch.arange(32) - 15.5
    for seed in range(150):
        red, green, _ = Augment(MEAN, (1, 7))(clip, seed)[0].float()
        assert (red.mean(0) * line).sum() > 0 and (green.mean(1) * line).sum() > 0


def test_what_a_shift_uncovers_is_grey() -> None:
    clip = torch.full((1, 3, 32, 32), 40, dtype=torch.uint8)
    levels = torch.cat([Augment(MEAN, (1, 30))(clip, seed).unique() for seed in range(60)]).tolist()
    assert levels.count(128) > 5 and 0 not in levels


def test_brightness_and_hue_keep_to_their_ranges() -> None:
    """The others leave a plain colour's hue alone, and a plain grey altogether."""
    grey, red = (
        torch.tensor(rgb, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4) for rgb in ([100] * 3, [120, 60, 60])
    )
    levels, hues = [], []
    for seed in range(300):
        out = Augment(MEAN, colour=0.5)(grey, seed)
        assert (out == out[0, 0, 0, 0]).all()
        levels.append(int(out[0, 0, 0, 0]))
        hue = colorsys.rgb_to_hsv(*(Augment(MEAN, colour=0.5)(red, seed)[0, :, 0, 0] / 255).tolist())[0]
        hues.append(hue - round(hue))
    for values, middle, half in ((levels, 100, 50), (hues, 0, 0.1)):
        assert np.mean(values) == pytest.approx(middle, abs=4 * half / np.sqrt(3 * 300))
        assert np.std(values) == pytest.approx(half / np.sqrt(3), rel=0.1)
        assert np.abs(np.array(values) - middle).max() <= 1.1 * half  # of whole levels


def erased(clip: Tensor, seed: int, share: float) -> Tensor:
    """Return where (H, W) a black clip has turned; it must be the same for every frame and colour."""
    out = Augment(MEAN, erase=share)(clip, seed)
    where = out != 0
    assert (where == where[:1, :1]).all()
    mask = where[0, 0]
    assert (normalise(out, MEAN, STD)[:, :, mask].abs() <= 0.5001 / 255 / min(STD)).all()  # zero but for rounding
    return mask


def test_erasing_takes_one_box_of_the_recipes_size() -> None:
    size, draws = 48, 500
    clip = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    areas, ratios = [], []
    for seed in range(draws):
        mask = erased(clip, seed, 1.0)
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns > 0  # one box
        areas.append(float(mask.float().mean()))
        ratios.append(float(rows / columns))
    assert 0.015 < min(areas) < 0.04 and 0.3 < max(areas) < 0.36
    assert 0.25 < min(ratios) < 0.36 and 2.8 < max(ratios) < 4
    # area and the ratio's logarithm are uniform; what does not fit into the picture is drawn again
    area, ratio = np.meshgrid(np.linspace(0.02, 1 / 3, 800), np.exp(np.linspace(np.log(0.3), -np.log(0.3), 800)))
    fits = (area * ratio < 1) & (area / ratio < 1)
    expected, spread = area[fits].mean(), area[fits].std()
    assert np.mean(areas) == pytest.approx(expected, abs=4 * spread / np.sqrt(draws))
    assert np.std(areas) == pytest.approx(spread, rel=0.1)


def test_erasing_takes_its_share_of_the_clips() -> None:
    clip = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    hit = sum(bool(erased(clip, seed, 0.25).any()) for seed in range(600))
    assert abs(hit - 150) < 4 * np.sqrt(600 * 0.25 * 0.75)


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
