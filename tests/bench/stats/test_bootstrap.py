"""Intervals of accuracies: closed forms, coverage where the true accuracy is known, and the test's size and power."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from bench.stats import bootstrap
from bench.stats.bootstrap import accuracies, accuracy, difference, estimate, estimates, quantile, two_sided


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("right", "videos"), [(0, 50), (50, 50), (31, 40), (390, 400), (15000, 19796)])
def test_of_one_seed_it_is_wilson_s_interval(right: int, videos: int) -> None:
    found = accuracy(np.arange(videos)[None] < right)
    low, high = proportion_confint(right, videos, method="wilson")
    assert found.value == pytest.approx(100 * right / videos)
    # Student's quantile is a little wider
    width = 100 * (high - low)
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), abs=0.05 * width)
    assert 0 <= found.low <= found.value <= found.high <= 100


def test_the_standard_error_is_that_of_many_draws_of_seeds_and_videos() -> None:
    generator = np.random.default_rng(0)
    seeds, videos, draws = 5, 60, 40_000
    values = 0.5 + 0.1 * generator.normal(size=(seeds, 1)) + 0.3 * generator.normal(size=(1, videos))
    values = values + 0.01 * generator.normal(size=(seeds, videos))
    found = estimate(values)
    # as the module describes a draw: videos with replacement, and deviations of seeds, widened
    of_videos = values.mean(axis=0)[generator.integers(videos, size=(draws, videos))].mean(axis=1)
    deviations = values.mean(axis=1) - values.mean()
    of_seeds = deviations[generator.integers(seeds, size=(draws, seeds))].mean(axis=1) * math.sqrt(seeds / (seeds - 1))
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx((of_videos + of_seeds).std(), rel=0.02)


@pytest.mark.parametrize("by_class", [True, False])
def test_rows_together_have_what_each_has_by_itself(by_class: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    right = generator.random((7, 3, 40)) < 0.6
    labels = generator.integers(4, size=40) if by_class else None
    each = [astuple(accuracy(row, labels)) for row in right]
    for together in (2 * 3 * 40, 10**6):  # two rows at a time, and all
        monkeypatch.setattr(bootstrap, "_TOGETHER", together)
        assert np.allclose([*map(astuple, accuracies(right, labels))], each, rtol=1e-12, atol=0)
    assert [found.value for found in estimates(right, labels)] == pytest.approx([value / 100 for value, *_ in each])


def test_means_over_classes_leave_out_those_that_were_not_drawn() -> None:
    generator = np.random.default_rng(3)
    classes = np.array([2, 0, 1, 2, 0, 1, 2, 2])
    weights = generator.integers(0, 2, size=(40, 8)).astype(float)  # with draws that lack a class
    weights[0] = [0, 2, 0, 0, 1, 0, 0, 0]
    values = generator.random((3, 8))
    found = bootstrap._class_means(weights, values, classes)
    for row, draw in np.ndindex(3, 40):
        means = []
        for label in range(3):
            videos = [video for video in range(8) if classes[video] == label for _ in range(int(weights[draw, video]))]
            means += [sum(values[row, video] for video in videos) / len(videos)] if videos else []
        assert found[row, draw] == pytest.approx(sum(means) / len(means))


def test_classes_that_count_alike() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    right = np.concatenate([np.arange(90) < 81, np.arange(10) < 3])[None]
    found = estimate(right, labels, draws=20000)
    assert found.value == pytest.approx((0.9 + 0.3) / 2)
    # each class by itself: the mean's variance is a quarter of the sum of theirs; how many of a class are drawn varies
    expected = (0.9 * 0.1 / 90 + 0.3 * 0.7 / 10) / 4
    assert found.error**2 == pytest.approx(expected, rel=0.2)
    assert estimate(right, draws=10).value == pytest.approx(0.84)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing_has_no_mean(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=str(max(shape))):
        estimate(np.zeros(shape))


def test_the_same_data_have_the_same_interval() -> None:
    right = np.random.default_rng(3).random((3, 200)) < 0.7
    assert accuracy(right) == accuracy(right.copy())


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("freedom", [1, 2.5, 29.9, 30, 31.5, 100, 1e6])
def test_quantiles_are_student_s(freedom: float, level: float) -> None:
    assert quantile(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


@pytest.mark.parametrize(
    ("seeds", "videos", "logit", "of_seeds", "of_videos"),
    [(1, 100, 1.0, 0.0, 1.0), (3, 150, 1.0, 0.25, 2.0), (5, 150, 0.0, 0.2, 1.0)],
)
def test_intervals_hold_the_true_accuracy_as_often_as_they_say(
    seeds: int, videos: int, logit: float, of_seeds: float, of_videos: float
) -> None:
    generator = np.random.default_rng(7)
    normal = generator.normal(size=(2, 400_000))
    true = 100 * float(_sigmoid(logit + of_seeds * normal[0] + of_videos * normal[1]).mean())
    times, held = 1500, 0
    for _ in range(times):
        by_seed, by_video = generator.normal(size=(seeds, 1)), generator.normal(size=(1, videos))
        p = _sigmoid(logit + of_seeds * by_seed + of_videos * by_video)
        found = accuracy(generator.random((seeds, videos)) < p)
        held += found.low <= true <= found.high
    assert 0.93 <= held / times <= 0.975  # its own standard error is 0.006


def _pair(generator: np.random.Generator, seeds: int, videos: int, gap: float, of_seeds: float = 0.25) -> np.ndarray:
    """Differences of two methods of equal spread, one better by `gap` on the scale of logits."""
    by_video = 2 * generator.normal(size=(1, videos))

    def right(better: float) -> np.ndarray:
        own = of_seeds * generator.normal(size=(seeds, 1)) + generator.normal(size=(1, videos))
        return generator.random((seeds, videos)) < _sigmoid(1 + better + by_video + own)

    return right(gap).astype(int) - right(0)


@pytest.mark.parametrize(("gap", "low", "high"), [(0.0, 0.01, 0.075), (1.5, 0.9, 1.0)])
def test_the_test_over_seeds_is_seldom_wrong_and_finds_what_there_is(gap: float, low: float, high: float) -> None:
    generator = np.random.default_rng(5)
    times = 500
    found = sum(two_sided(estimate(_pair(generator, 3, 200, gap))) < 0.05 for _ in range(times))
    assert low <= found / times <= high


def test_no_difference_has_probability_one_and_a_sure_one_none() -> None:
    assert two_sided(estimate(np.zeros((3, 10)))) == 1.0
    assert two_sided(estimate(np.ones((3, 10)))) == 0.0


def test_a_difference_s_interval_is_student_s_of_its_error() -> None:
    values = np.array([[1] * 20 + [-1] * 8 + [0] * 72])
    found = difference(values)
    error = 100 * values.std() / math.sqrt(100)
    assert found.value == pytest.approx(12.0)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 99) * error, rel=0.06)
    assert found.value - found.low == pytest.approx(found.high - found.value)
