"""Subsets of training lists: their counts by hand, one within the other, and what a seed changes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from bench.data.dataset import Video
from bench.data.subset import subset

SIZES = {0: 200, 1: 30, 2: 10, 3: 1}
FRACTIONS = (0.01, 0.05, 0.1, 0.35, 1)


def _listed() -> list[Video]:
    """The classes taking turns, as far as they have videos."""
    turns = sorted((place, label) for label, size in SIZES.items() for place in range(size))
    return [Video(Path(f"/videos/{label}/{place}.mp4"), label, f"{label}/{place}.mp4") for place, label in turns]


@pytest.mark.parametrize(
    ("fraction", "counts", "scarce"),
    [
        (0.01, (2, 1, 1, 1), 3),
        (0.02, (4, 1, 1, 1), 3),
        (0.05, (10, 2, 1, 1), 2),  # 1.5 and 0.5 are rounded up
        (0.1, (20, 3, 1, 1), 1),
        (0.35, (70, 11, 4, 1), 1),  # 10.5 and 3.5
        (0.999, (200, 30, 10, 1), 1),
        (1, (200, 30, 10, 1), 0),
        (1e-9, (1, 1, 1, 1), 4),
    ],
)
def test_each_class_gives_its_share_and_at_least_one_video(
    fraction: float, counts: tuple[int, ...], scarce: int
) -> None:
    found = subset(_listed(), fraction, seed=0)
    assert Counter(video.label for video in found.videos) == dict(enumerate(counts))
    assert (found.of, found.scarce) == (241, scarce)


def test_the_list_keeps_its_order_and_is_whole_at_1() -> None:
    listed = _listed()
    assert subset(listed, 1, seed=3).videos == tuple(listed)
    part = subset(listed, 0.35, seed=3).videos
    assert list(part) == [video for video in listed if video in part]


@pytest.mark.parametrize("seed", [0, 7])
def test_the_smaller_lies_within_the_larger(seed: int) -> None:
    nested = [set(subset(_listed(), fraction, seed).videos) for fraction in FRACTIONS]
    assert all(small < large for small, large in pairwise(nested))


def test_a_seed_draws_the_same_again_and_another_one_others() -> None:
    drawn = [subset(_listed(), 0.1, seed).videos for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] and len(set(drawn[0]) & set(drawn[2])) < 12 < len(drawn[0])


def test_neither_the_order_of_a_list_nor_a_missing_video_changes_the_draw_of_the_others() -> None:
    listed = _listed()
    drawn = set(subset(listed, 0.1, seed=0).videos)
    assert set(subset(listed[::-1], 0.1, seed=0).videos) == drawn
    lost = next(video for video in listed if video in drawn and video.label == 0)
    again = set(subset([video for video in listed if video != lost], 0.1, seed=0).videos)
    assert drawn - again == {lost} and len(again - drawn) == 1  # 19.9 of 199 are 20 again: the next in the draw


def test_every_video_is_as_likely_as_another() -> None:
    times = Counter(video.name for seed in range(400) for video in subset(_listed(), 0.1, seed).videos)
    found = [times[f"1/{place}.mp4"] for place in range(30)]
    assert sum(found) == 1200 and min(found) > 15 and max(found) < 70  # 40 each, standard deviation 6
