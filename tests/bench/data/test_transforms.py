from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.data.transforms import TestTransform, TrainTransform, ValTransform, normalise
from tests.bench.command import quoting


def ramp(height: int, width: int, frames: int = 2) -> Tensor:
    """A clip whose red rises from left to right and green from top to bottom, 0 to 255: (T, 3, H, W)."""
    clip = torch.zeros(frames, 3, height, width)
    clip[:, 0] = torch.linspace(0, 255, width)
    clip[:, 1] = torch.linspace(0, 255, height)[:, None]
    return clip.round().to(torch.uint8)


def seen(view: Tensor) -> tuple[float, float, float, float]:
    """Return the part of a `ramp` that a view shows, as left, right, top, bottom in parts of the picture."""
    red, green = view[0, 0].float() / 255, view[0, 1].float() / 255
    return float(red[:, 0].mean()), float(red[:, -1].mean()), float(green[0].mean()), float(green[-1].mean())


def test_training_draws_once_for_all_frames() -> None:
    transform = TrainTransform(32)
    still = torch.randint(0, 256, (1, 3, 48, 60), dtype=torch.uint8).expand(6, -1, -1, -1)
    shown = []
    for _ in range(20):
        out = transform(still)
        assert out.shape == (6, 3, 32, 32) and out.dtype == torch.uint8
        assert (out == out[:1]).all()
        shown.append(out[0])
    assert any((shown[0] != other).any() for other in shown[1:])


def test_training_crops_keep_to_area_and_ratio() -> None:
    torch.manual_seed(0)
    transform, areas = TrainTransform(64, crop_area=(0.3, 0.6), flip=False), []
    for _ in range(200):
        left, right, top, bottom = seen(transform(ramp(120, 120)))
        width, height = right - left, bottom - top
        areas.append(width * height)
        assert 0.7 < width / height < 1.42
    assert 0.25 < min(areas) < 0.36 and 0.5 < max(areas) < 0.65


def test_training_without_a_flip_never_mirrors() -> None:
    torch.manual_seed(0)
    mirrored = dict.fromkeys((False, True), 0)
    for flip in mirrored:
        transform = TrainTransform(32, flip=flip)
        for _ in range(200):
            left, right, top, bottom = seen(transform(ramp(60, 60)))
            mirrored[flip] += left > right
            assert top < bottom
    assert mirrored[False] == 0
    assert 70 < mirrored[True] < 130


def test_training_draws_from_the_global_generator() -> None:
    transform = TrainTransform(32)
    clip = torch.randint(0, 256, (4, 3, 48, 60), dtype=torch.uint8)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(transform(clip))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (256, 256), (100, 150)])
def test_validation_shows_the_enlarged_centre(height: int, width: int) -> None:
    out = ValTransform(224)(ramp(height, width))
    assert out.shape == (1, 2, 3, 224, 224)
    left, right, top, bottom = seen(out[0])
    across, down = 224 / 256 * min(1, height / width), 224 / 256 * min(1, width / height)
    assert (left, right, top, bottom) == pytest.approx(
        ((1 - across) / 2, (1 + across) / 2, (1 - down) / 2, (1 + down) / 2), abs=0.02
    )


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240)])
def test_three_crops_cover_the_long_side(height: int, width: int) -> None:
    out = TestTransform(224, crops=3)(ramp(height, width))
    assert out.shape == (3, 2, 3, 224, 224)
    part = 240 / 320
    for view, start in zip(out, (0, (1 - part) / 2, 1 - part), strict=True):
        along, across = (seen(view)[:2], seen(view)[2:])[:: 1 if width > height else -1]
        assert along == pytest.approx((start, start + part), abs=0.02)
        assert across == pytest.approx((0, 1), abs=0.02)


def test_one_crop_is_the_middle_of_three() -> None:
    clip = ramp(240, 320)
    assert torch.equal(TestTransform(224, 1)(clip)[0], TestTransform(224, 3)(clip)[1])


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    clip = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(TestTransform(32)(clip)[0], clip)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_normalise(dtype: torch.dtype) -> None:
    mean, std = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)
    clips = torch.randint(0, 256, (2, 4, 3, 8, 8), dtype=torch.uint8)
    out = normalise(clips, mean, std, dtype)
    assert out.dtype == dtype and out.shape == clips.shape
    for c in range(3):
        expected = (clips[:, :, c].double() / 255 - mean[c]) / std[c]
        assert torch.allclose(out[:, :, c].double(), expected, atol=1e-6, rtol=torch.finfo(dtype).eps)


def test_what_is_no_clip_is_refused() -> None:
    for transform in (TrainTransform(32), ValTransform(32), TestTransform(32)):
        with pytest.raises(ValueError, match=quoting("uint8", "(T, 3, H, W)", "torch.float32")):
            transform(torch.zeros(2, 3, 40, 40))
        with pytest.raises(ValueError, match=quoting("torch.uint8", "(2, 40, 40, 3)")):
            transform(torch.zeros(2, 40, 40, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=quoting("uint8", "torch.float32")):
        normalise(torch.zeros(2, 3, 40, 40), (0, 0, 0), (1, 1, 1))
    with pytest.raises(ValueError, match=quoting(2, 1)):
        TestTransform(32, crops=2)
