from __future__ import annotations

import numpy as np
import pytest

from bench.data import sampling
from tests.bench.command import quoting
from tests.reference import sampling as reference

SIZES = [*range(1, 70), 99, 100, 127, 128, 129, 250, 299, 300, 301, 1001]
LENGTHS = [1, 2, 3, 4, 7, 8, 14, 16, 32]


@pytest.mark.parametrize("length", LENGTHS)
def test_uniform_test_is_the_middle_of_each_segment(length: int) -> None:
    for n in SIZES:
        assert sampling.uniform_test(n, length).tolist() == reference.uniform_test(n, length), n


@pytest.mark.parametrize("length", LENGTHS)
def test_uniform_train_stays_in_its_segments(length: int) -> None:
    rng = np.random.default_rng(0)
    for n in SIZES:
        drawn = sampling.uniform_train(n, length, rng).tolist()
        for i, index in enumerate(drawn):
            first, last = reference.segment(n, length, i)
            assert first <= index <= last, (n, i)


def test_uniform_train_reaches_both_ends_evenly() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([sampling.uniform_train(17, 8, rng) for _ in range(3000)])
    for i in range(8):
        values, counts = np.unique(drawn[:, i], return_counts=True)
        assert values.tolist() == [2 * i, 2 * i + 1, 2 * i + 2]
        assert (abs(counts - 1000) < 4 * np.sqrt(3000 * 2 / 9)).all()


@pytest.mark.parametrize("length", [8, 16, 32])
def test_released_arithmetic_is_exact_for_the_released_lengths(length: int) -> None:
    for n in range(1, 800):
        for i in range(length):
            assert reference.segment(n, length, i) == reference.exact_segment(n, length, i)
        for clips in (1, 3, 4):
            tests = sampling.dense_test(n, length, 128 // length, clips).tolist()
            assert tests == reference.dense_test(n, length, 128 // length, clips, exact=True), (n, clips)


@pytest.mark.parametrize(("length", "stride"), [(8, 16), (16, 8), (32, 4), (32, 2), (5, 3), (1, 1)])
@pytest.mark.parametrize("clips", [1, 2, 3, 4, 7, 10])
def test_dense_test_starts_evenly_and_loops(length: int, stride: int, clips: int) -> None:
    for n in SIZES:
        tests = sampling.dense_test(n, length, stride, clips)
        assert tests.shape == (clips, length)
        assert tests.tolist() == reference.dense_test(n, length, stride, clips), n


@pytest.mark.parametrize(("length", "stride"), [(8, 16), (32, 4), (5, 3), (1, 1)])
def test_dense_train_is_one_of_the_allowed_clips(length: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    for n in SIZES:
        allowed = [reference.dense_clip(n, length, stride, s) for s in reference.dense_starts(n, length, stride)]
        assert sampling.dense_train(n, length, stride, rng).tolist() in allowed, n


def test_dense_train_draws_every_start() -> None:
    rng = np.random.default_rng(0)
    starts = {int(sampling.dense_train(20, 4, 4, rng)[0]) for _ in range(300)}
    assert starts == set(reference.dense_starts(20, 4, 4)) == set(range(5))


@pytest.mark.parametrize("n", [16, 17])
def test_dense_train_at_the_window(n: int) -> None:
    """N = w has the one start 0, N = w + 1 the two starts 0 and 1."""
    rng = np.random.default_rng(0)
    starts = {int(sampling.dense_train(n, 4, 4, rng)[0]) for _ in range(50)}
    assert starts == set(range(n - 16 + 1))


def test_wrappers() -> None:
    def rng() -> np.random.Generator:
        return np.random.default_rng(5)

    assert sampling.train_indices("uniform", 50, 8, 4, rng()).tolist() == sampling.uniform_train(50, 8, rng()).tolist()
    assert sampling.train_indices("dense", 50, 8, 4, rng()).tolist() == sampling.dense_train(50, 8, 4, rng()).tolist()
    assert sampling.test_indices("uniform", 50, 8, 4, 3).tolist() == [reference.uniform_test(50, 8)]
    assert sampling.test_indices("dense", 50, 8, 4, 3).tolist() == reference.dense_test(50, 8, 4, 3)


def test_same_generator_state_same_draw() -> None:
    first, again = (sampling.uniform_train(100, 8, np.random.default_rng(7)).tolist() for _ in range(2))
    assert first == again


@pytest.mark.parametrize(("n", "length", "stride", "clips"), [(0, 8, 4, 1), (9, 0, 4, 1), (9, 8, 0, 1), (9, 8, 4, 0)])
def test_counts_below_one_are_refused(n: int, length: int, stride: int, clips: int) -> None:
    with pytest.raises(ValueError, match=quoting("is 0", 1)):
        sampling.dense_test(n, length, stride, clips)


def test_an_empty_video_is_refused_in_every_way() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="n is 0"):
        sampling.uniform_train(0, 8, rng)
    with pytest.raises(ValueError, match="n is -1"):
        sampling.uniform_test(-1, 8)
    with pytest.raises(ValueError, match="n is 0"):
        sampling.dense_train(0, 8, 4, rng)


def test_unknown_sampling_is_named() -> None:
    with pytest.raises(ValueError, match=quoting("'sparse'", "'uniform'", "'dense'")):
        sampling.train_indices("sparse", 9, 8, 4, np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'sparse'"):
        sampling.test_indices("sparse", 9, 8, 4, 1)  # type: ignore[arg-type]
