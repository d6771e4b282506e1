"""The speed of bf16 on a CPU beside that of fp32: emulated where there are no instructions for it, it may crawl."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache

from bench.measure.placement import Placement

# above this, bf16 is called slower: less is what two runs of one product differ by on a busy machine
_SLOWER = 1.25

_SIZES = (32, 64, 128, 256, 512)  # sides of the matrices, each product eight times as much as the one before
_ROUNDS = 4
# of this thread alone, as whatever else keeps the machine busy does not matter; Windows counts it in steps of 16 ms
_clock = time.perf_counter if sys.platform == "win32" else time.thread_time
_BUDGET = 0.1  # seconds for all products


def ratio(seconds: Callable[[str, int], float], budget: float = _BUDGET) -> float:
    """Time of matrix products in bf16 / their time in fp32, of the largest ones that the budget has room for.

    Args:
        seconds: takes "bf16" or "fp32" and the side of square matrices, and times their products once.
        budget: seconds. A size is tried where eight times what the last one took still fits, so that a CPU on which
            small products take long is never asked for large ones.
    """
    spent = found = 0.0
    for size in _SIZES:
        # the first round of a size prepares its kernels
        rounds = [(seconds("fp32", size), seconds("bf16", size)) for _ in range(_ROUNDS)]
        fp32, bf16 = (min(times) for times in zip(*rounds, strict=True))
        found = bf16 / max(fp32, 1e-9)
        took = _ROUNDS * (fp32 + bf16)
        spent += took
        if spent + 8 * took > budget:
            break
    return found


def _products(precision: str, size: int) -> float:
    """Seconds of a layer's product and of its gradient's, which are laid out differently and emulated differently."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.full((size, size), 0.5, dtype=dtype)
    begun = _clock()
    torch.mm(a, a.T)
    torch.mm(a, a)
    return _clock() - begun


@cache
def slowdown() -> float:
    """Time of matrix products in bf16 / that in fp32, on this CPU; measured once, in about 0.1 s."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return ratio(_products)
    finally:
        torch.set_num_threads(threads)


def notes(placement: Placement | None) -> tuple[str, ...]:
    """The sentence on a device that computes bf16 more slowly than fp32; nothing where it does not, or is not asked to.

    Only a CPU is measured: `bench.measure.placement.place` refuses a GPU that would emulate it.
    """
    if placement is None or placement.type != "cpu" or placement.precision != "bf16":
        return ()
    times = slowdown()
    if times < _SLOWER:
        return ()
    shown = f"{times:.0f}" if times >= 10 else f"{times:.1f}"
    return (f"bf16 is slower than fp32 on this CPU: matrix products take {shown} times as long",)
