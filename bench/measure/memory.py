"""Peak memory that tensors take during a call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


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
