"""Choice of the frames of a video that make a clip.

The formulas are those of AIM's released configurations (Yang et al., ICLR 2023, arXiv 2302.03024), evaluated in double
precision as they are there: for clip lengths such as 14 a quotient may fall beside a half where exact arithmetic hits
it, and the released indices are the ones to agree with. For 8, 16 and 32 frames and up to 6 clips the two are equal.

N is the number of frames in the video, L the frames of a clip, K the clips of a test, all counted from the video's
first frame at index 0. Every function returns int64 and raises ValueError where a count is below 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import Sampling

Indices = NDArray[np.int64]


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}: expected at least 1")


def _segments(n: int, length: int) -> tuple[Indices, Indices]:
    """First and last index, both inclusive, of each of `length` segments: s_i = round(g i), e_i = round(g (i + 1))."""
    edges = np.rint((n - 1) / length * np.arange(length + 1)).astype(np.int64)  # rint: halves to even
    return edges[:-1], edges[1:]


def uniform_train(n: int, length: int, rng: np.random.Generator) -> Indices:
    """One uniform draw from each of L equal segments of the video: (L,). SSv2 and Diving-48, training."""
    _at_least_one(n=n, length=length)
    first, last = _segments(n, length)
    return rng.integers(first, last, endpoint=True)


def uniform_test(n: int, length: int) -> Indices:
    """The middle of each of L equal segments of the video: (L,). SSv2 and Diving-48, testing."""
    _at_least_one(n=n, length=length)
    first, last = _segments(n, length)
    return (first + last) // 2


def dense_train(n: int, length: int, stride: int, rng: np.random.Generator) -> Indices:
    """Every `stride`-th frame from a random start: (L,). Kinetics, training.

    A video shorter than the clip is looped.
    """
    _at_least_one(n=n, length=length, stride=stride)
    window = length * stride
    start = int(rng.integers(0, n - window, endpoint=True)) if n > window - 1 else 0
    return (start + np.arange(length, dtype=np.int64) * stride) % n


def dense_test(n: int, length: int, stride: int, clips: int) -> Indices:
    """Every `stride`-th frame from K starts spread evenly over the video: (K, L). Kinetics, testing.

    A video shorter than the clip is looped, from its first frame in every clip.
    """
    _at_least_one(n=n, length=length, stride=stride, clips=clips)
    window = length * stride
    starts = np.zeros(clips, dtype=np.int64)
    if n > window - 1:
        apart = (n - window + 1) / clips
        starts = (np.arange(clips) * apart + apart / 2).astype(np.int64)
    return (starts[:, None] + np.arange(length, dtype=np.int64) * stride) % n


def train_indices(sampling: Sampling, n: int, length: int, stride: int, rng: np.random.Generator) -> Indices:
    """The frames of one training clip: (L,). Uniform sampling has no use for `stride`."""
    if sampling == "uniform":
        return uniform_train(n, length, rng)
    if sampling == "dense":
        return dense_train(n, length, stride, rng)
    raise ValueError(f"unknown sampling {sampling!r}: expected 'uniform' or 'dense'")


def test_indices(sampling: Sampling, n: int, length: int, stride: int, clips: int) -> Indices:
    """The frames of a test's clips: (K, L).

    Uniform sampling covers the video in one clip whatever `clips` says, so K is 1 there.
    """
    if sampling == "uniform":
        return uniform_test(n, length)[None]
    if sampling == "dense":
        return dense_test(n, length, stride, clips)
    raise ValueError(f"unknown sampling {sampling!r}: expected 'uniform' or 'dense'")


# pytest would otherwise collect this function wherever a test module imports it by name
test_indices.__test__ = False  # type: ignore[attr-defined]
