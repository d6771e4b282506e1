"""Tests of rows of a table against a baseline on the same videos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.stats.bootstrap import LEVEL, Interval, difference, estimate, estimates, two_sided
from bench.stats.outcomes import Outcomes

Test = Literal["McNemar, exact", "paired bootstrap"]
ONE_SEED = "one seed: tells these two models apart, not the methods, whose trainings vary as well"


@dataclass(frozen=True)
class Comparison:
    """A row against its baseline.

    Attributes:
        seeds: that both have.
        videos: that all of these predicted.
        accuracy: of the row on these, in percent.
        baseline: accuracy of the baseline on these, in percent.
        difference: in percentage points, with its interval.
        effect: Cohen's h of the two accuracies, 2 arcsin(sqrt(p)) - 2 arcsin(sqrt(q)): 0.2 small, 0.5 medium, 0.8 large
            (Statistical Power Analysis for the Behavioral Sciences, 1988, section 6.2).
        gained: videos that the row alone has right, summed over seeds.
        lost: videos that the baseline alone has right.
        test: McNemar's exact test of one seed; of several, Student's t of the paired bootstrap's standard error.
        p: probability of a difference at least as large where there is none.
        adjusted: the same with Holm's correction over the rows; None before it was made.
        notes: what the comparison leaves out.
    """

    seeds: tuple[int, ...]
    videos: int
    accuracy: float
    baseline: float
    difference: Interval
    effect: float
    gained: int
    lost: int
    test: Test
    p: float
    adjusted: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def significant(self) -> bool:
        """Test that the rows are told apart at 5 %."""
        return (self.p if self.adjusted is None else self.adjusted) < 1 - LEVEL + 1e-12


def compare(row: Outcomes, baseline: Outcomes) -> Comparison:
    """Return the comparison of a row with a baseline, on the seeds and videos that both have.

    Raises:
        ValueError: they have no seed or no video in common, or a video has different classes.
    """
    seeds = tuple(seed for seed in row.seeds if seed in baseline.seeds)
    if not seeds:
        raise ValueError(f"no seed in common: {_numbers(row.seeds)} against {_numbers(baseline.seeds)}")
    known = set(baseline.names)
    names = tuple(name for name in row.names if name in known)
    if not names:
        raise ValueError("no test video in common")
    one, other = row.of(seeds, names), baseline.of(seeds, names)
    if (one.labels != other.labels).any():
        raise ValueError("a test video has another class in the one than in the other")
    values = one.right.astype(np.int8) - other.right.astype(np.int8)
    gained, lost = int((values > 0).sum()), int((values < 0).sum())
    labels = one.labels if one.by_class else None
    test = test_of(seeds, one.by_class)
    found = difference(values, labels)
    # of a mean of shares, which may be beyond 1 by a rounding
    p, q = (min(1.0, estimate(each.right, labels, draws=1).value) for each in (one, other))
    return Comparison(
        seeds,
        len(names),
        100 * p,
        100 * q,
        found,
        2 * math.asin(math.sqrt(p)) - 2 * math.asin(math.sqrt(q)),
        gained,
        lost,
        test,
        mcnemar(gained, lost) if test == "McNemar, exact" else two_sided(estimate(values, labels)),
        notes=tuple(_notes(row, baseline, seeds, names)),
    )


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with p-values that keep the chance of any false one at 5 %, see `adjusted`."""
    found = adjusted([each.p for each in comparisons])
    return [replace(each, adjusted=p) for each, p in zip(comparisons, found, strict=True)]


def adjusted(p: Sequence[float]) -> list[float]:
    """Return p-values with Holm's correction (Scandinavian Journal of Statistics 6, 1979), in their order.

    The smallest of m counts m times, the next one m - 1 times, and none less than a smaller one.
    """
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    found = np.empty_like(raw)
    found[order] = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)))
    return [float(each) for each in found]


def told_apart(p: Sequence[float]) -> list[bool]:
    """Return whether each of several differences is there at 5 %, with Holm's correction over them."""
    return [each < 1 - LEVEL + 1e-12 for each in adjusted(p)]


def probabilities(rows: Sequence[Outcomes], baseline: Outcomes) -> list[float]:
    """Return the p-values of `compare` of rows that have the seeds and the videos of the baseline.

    Args:
        rows: with its names, labels and seeds, in its order.
        baseline: of one seed or several.
    """
    right = np.stack([row.right for row in rows]).astype(np.int8) - baseline.right.astype(np.int8)
    if test_of(baseline.seeds, baseline.by_class) == "McNemar, exact":
        gained, lost = (right > 0).sum(axis=(1, 2)), (right < 0).sum(axis=(1, 2))
        return [mcnemar(int(more), int(less)) for more, less in zip(gained, lost, strict=True)]
    return [two_sided(found) for found in estimates(right, baseline.labels if baseline.by_class else None)]


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (Psychometrika 12, 1947): the binomial one of 1/2.

    Args:
        gained: videos that one row alone has right.
        lost: videos that the other one alone has right.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def test_of(seeds: Sequence[int], by_class: bool) -> Test:
    """Return the test that is made of outcomes of so many seeds."""
    return "McNemar, exact" if len(seeds) == 1 and not by_class else "paired bootstrap"


def _notes(row: Outcomes, baseline: Outcomes, seeds: Sequence[int], names: Sequence[str]) -> list[str]:
    found = []
    if len(seeds) == 1:
        found.append(ONE_SEED)
    if left := sorted({*row.seeds, *baseline.seeds} - {*seeds}):
        found.append(f"without the seeds that only one of them has: {_numbers(left)}")
    there = {*row.names, *row.partial, *baseline.names, *baseline.partial}
    if left_out := len(there) - len(names):
        found.append(f"without {left_out:,} of the test videos, which not all of the models predicted")
    return found


def _numbers(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
