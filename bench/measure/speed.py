"""Timing of repeated calls, as those of a training step and of a prediction."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_FEWEST = 3  # timed calls, whatever they take


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeats of one call after its warm-up.

    Attributes:
        median: seconds a call.
        spread: interquartile range / median.
        repeats: timed calls.
        warmup_seconds: spent before, by the calls that were not counted.
        first: seconds of the very first call, in which kernels are chosen and a compiled model is compiled.
    """

    median: float
    spread: float
    repeats: int
    warmup_seconds: float
    first: float

    @property
    def first_beyond(self) -> float:
        """Seconds that the first call took beyond a median one."""
        return max(0.0, self.first - self.median)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given, so that a clock tells its time and not the queue's."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(
    call: Callable[[], object],
    device: torch.device,
    *,
    warmup: int = 3,
    least_warmup: int = 1,
    least: int = 7,
    most: int = 50,
    seconds: float = 0.6,
    patience: float = 20.0,
) -> Timing:
    """Time `call` until it was run `least` times and for `seconds`, or `most` times.

    Calls of many seconds, as of a large model on a CPU, would take an hour so: after `patience` seconds one warm-up
    call and three timed ones are enough. `Timing.repeats` tells.

    Args:
        call: does the same work each time.
        device: synchronised before each look at the clock.
        warmup: calls before the first that counts.
        least_warmup: of them, whatever they take; a compiled model compiles in the first and settles in the next.
        least, most: bounds of the timed calls.
        seconds: time to be spent on timed calls.
        patience: seconds of warm-up, and of timed calls, after which fewer do.
    """

    def once() -> float:
        start = time.perf_counter()
        call()
        synchronise(device)
        return time.perf_counter() - start

    synchronise(device)  # what it was given before is not a part of the first call
    warm: list[float] = []
    while len(warm) < least_warmup or (len(warm) < warmup and sum(warm) < patience):
        warm.append(once())
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < most):
        times.append(once())
        if len(times) >= _FEWEST and sum(times) >= patience:
            break
    quarters = statistics.quantiles(times, n=4)
    median = statistics.median(times)
    return Timing(median, (quarters[2] - quarters[0]) / median, len(times), sum(warm), [*warm, *times][0])
