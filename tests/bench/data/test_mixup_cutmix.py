"""Mixup and cutmix against loops over every pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.data.augment import MixupCutmix
from tests.bench.command import quoting
from tests.reference import mixing as reference

CLASSES = 5
LABELS = torch.tensor([3, 1, 4, 1])


def noise() -> Tensor:
    return torch.randint(0, 256, (4, 2, 3, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def share(labels: Tensor) -> float:
    """The first clip's own share: its neighbour, the last, is of another class."""
    return float(labels[0, LABELS[0]])


def test_mixup_is_what_the_formula_says() -> None:
    mix, clips = MixupCutmix(0.8, 0.0, CLASSES, seed=0), noise()
    for step in range(5):
        out, labels = mix(clips, LABELS, 0, step)
        assert out.dtype == torch.uint8
        exact = reference.mixup(clips.numpy(), share(labels))
        assert np.abs(out.numpy() - exact).max() <= 0.5 + 1e-4  # rounded to the nearest byte
        expected = reference.labels(LABELS.tolist(), share(labels), CLASSES)
        assert labels.numpy() == pytest.approx(np.array(expected), abs=1e-6)
        assert labels.sum(1) == pytest.approx(1)


def test_cutmix_puts_one_box_into_every_frame_of_every_clip() -> None:
    mix = MixupCutmix(0.0, 1.0, CLASSES, seed=0)
    marked = torch.zeros(4, 2, 3, 8, 10, dtype=torch.uint8)
    marked[3] = 1  # the first clip's neighbour
    for step in range(20):
        where = mix(marked, LABELS, 0, step)[0][0, 0, 0]
        rows, columns = where.any(1).nonzero().flatten().tolist(), where.any(0).nonzero().flatten().tolist()
        box = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else (0, 0, 0, 0)
        out, labels = mix(noise(), LABELS, 0, step)
        assert np.array_equal(out.numpy(), reference.cutmix(noise().numpy(), box))
        left = 1 - (box[1] - box[0]) * (box[3] - box[2]) / 80
        assert labels.numpy() == pytest.approx(np.array(reference.labels(LABELS.tolist(), left, CLASSES)), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.8])
def test_the_share_is_betas(alpha: float) -> None:
    mix, clips = MixupCutmix(alpha, 0.0, CLASSES, seed=0), torch.zeros(4, 1, 3, 1, 1, dtype=torch.uint8)
    shares = np.array([share(mix(clips, LABELS, 0, step)[1]) for step in range(600)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert shares.mean() == pytest.approx(0.5, abs=4 * np.sqrt(variance / 600))
    assert shares.var() == pytest.approx(variance, rel=0.15)


def test_where_both_are_on_each_batch_gets_one_of_them() -> None:
    mix = MixupCutmix(1.0, 1.0, CLASSES, seed=0)
    clips = torch.zeros(4, 1, 3, 8, 8, dtype=torch.uint8)
    clips[3] = 200
    mixups = sum(
        bool(((out := mix(clips, LABELS, 0, step)[0][0]) > 0).all() and (out < 200).all()) for step in range(300)
    )
    assert abs(mixups - 150) < 4 * np.sqrt(300 / 4)


def test_the_draw_follows_from_seed_epoch_and_step() -> None:
    mix, clips = MixupCutmix(0.8, 1.0, CLASSES, seed=0), noise()
    first, labels = mix(clips, LABELS, 2, 7)
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    again, labels_again = MixupCutmix(0.8, 1.0, CLASSES, seed=0)(clips, LABELS, 2, 7)
    assert torch.equal(first, again) and torch.equal(labels, labels_again)
    assert torch.equal(torch.rand(2), expected)  # the global generator is left alone
    others = [
        mix(clips, LABELS, 3, 7),
        mix(clips, LABELS, 2, 8),
        MixupCutmix(0.8, 1.0, CLASSES, 1)(clips, LABELS, 2, 7),
    ]
    assert all(share(other) != share(labels) for _, other in others)
    assert torch.equal(clips, noise())


def test_a_clip_by_itself_stays_what_it_is() -> None:
    out, labels = MixupCutmix(0.8, 0.0, CLASSES, seed=0)(noise()[:1], LABELS[:1], 0, 0)
    assert torch.equal(out, noise()[:1])
    assert labels.tolist() == [pytest.approx([0, 0, 0, 1, 0])]


def test_mixing_with_neither_is_refused() -> None:
    with pytest.raises(ValueError, match=quoting("mixup", "cutmix", 0)):
        MixupCutmix(0.0, 0.0, CLASSES, 0)
