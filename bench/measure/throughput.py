"""Clips a second of training and of inference, on the code that trains and evaluates."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeats of one call after its warm-up.

    Attributes:
        median: seconds a call.
        spread: interquartile range / median.
        repeats: timed calls.
        warmup_seconds: spent before, by the calls that were not counted.
    """

    median: float
    spread: float
    repeats: int
    warmup_seconds: float


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
    least: int = 7,
    most: int = 50,
    seconds: float = 0.6,
) -> Timing:
    """Time `call` until it was run `least` times and for `seconds`, or `most` times.

    Args:
        call: does the same work each time.
        device: synchronised before each look at the clock.
        warmup: calls before the first that counts.
        least, most: bounds of the timed calls.
        seconds: time to be spent on timed calls.
    """
    begun = time.perf_counter()
    for _ in range(warmup):
        call()
    synchronise(device)
    warmup_seconds = time.perf_counter() - begun
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < most):
        start = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - start)
    quarters = statistics.quantiles(times, n=4)
    median = statistics.median(times)
    return Timing(median, (quarters[2] - quarters[0]) / median, len(times), warmup_seconds)
