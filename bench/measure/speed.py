"""Time and peak memory of repeated calls, as those of a training step and of a prediction."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

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


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind the tensors, each storage once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def peak(call: Callable[[], object], device: torch.device, resident: Iterable[Tensor]) -> int:
    """Bytes at the highest point of `call`, what was there before included.

    On CUDA the allocator's own high-water mark. On a CPU the running sum of torch's allocations, as its profiler
    records them, on top of `resident`: the same quantity, tensors' bytes, so that the two can be read side by side. (A
    process's resident set would count libraries and what the system's allocator keeps.) On MPS what the driver holds
    after the call.

    Args:
        call: what is measured; run once.
        device: where it runs.
        resident: tensors that live before and after the call: parameters, buffers, the optimiser's state, the input.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        call()
        torch.mps.synchronize()
        return torch.mps.driver_allocated_memory()
    base = held(resident)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler talks to the terminal
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    return base + _highest(record)


def _highest(record: profile) -> int:
    """Largest running sum of the recorded allocations, in the order of time."""
    results = record.profiler.kineto_results if record.profiler is not None else None
    if results is None:
        raise RuntimeError("torch's profiler recorded nothing")
    events: list[Any] = [event for event in results.events() if event.name() == "[memory]"]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events)
    total = highest = 0
    for _, change in changes:
        total += change
        highest = max(highest, total)
    return highest
