"""Device of a cell and number format that it runs in; on a CPU, the speed of bf16 beside that of fp32."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.errors import UserError
from bench.spec import Precision


@dataclass(frozen=True, slots=True)
class Placement:
    """A device's type, its index where one was asked for (None: any), and the precision."""

    type: str
    index: int | None
    precision: Precision

    @property
    def torch_name(self) -> str:
        """The device as torch names it: cpu, cuda, cuda:1, mps."""
        return self.type if self.index is None else f"{self.type}:{self.index}"


# without one of these no driver is loaded, and torch, whose import takes seconds, need not be asked
_LINUX_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvhost-ctrl-gpu")


def _no_accelerator() -> bool:
    return sys.platform == "linux" and not any(Path(file).exists() for file in _LINUX_DRIVERS)


def place(device: str, precision: str) -> Placement:
    """Resolve `auto` for this machine.

    auto is the GPU where there is one; in bf16 where the GPU computes it, else in fp16. On a CPU and on MPS it is fp32.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16.

    Raises:
        UserError: a device that this machine does not have, or a precision that it cannot train in.
    """
    if (device == "cpu" or (device == "auto" and _no_accelerator())) and precision in ("auto", "fp32", "bf16"):
        return Placement("cpu", None, "bf16" if precision == "bf16" else "fp32")
    import torch

    cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    type_, _, index = device.partition(":")
    problems = []
    if type_ == "auto":
        type_ = "cuda" if cuda else "mps" if mps else "cpu"
    elif type_ == "cuda" and not cuda:
        problems.append(f"device is {device!r}: torch {torch.__version__} sees no CUDA GPU here, expected cpu or auto")
    elif type_ == "mps" and not mps:
        problems.append(
            f"device is {device!r}: torch {torch.__version__} sees no MPS device here, expected cpu or auto"
        )
    elif index and int(index) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        problems.append(f"device is {device!r}: expected an index below {count}, the number of GPUs that torch sees")
    if precision == "auto":
        if type_ == "cuda" and cuda:
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        else:
            precision = "fp32"
    elif precision == "fp16" and type_ == "cpu":
        problems.append("precision is 'fp16': a CPU trains in fp32 or bf16")
    elif (
        precision == "bf16" and type_ == "cuda" and cuda and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        problems.append(
            f"precision is 'bf16': {torch.cuda.get_device_name()} does not compute it, expected fp16 or fp32"
        )
    if problems:
        raise UserError(problems)
    chosen: Precision = "bf16" if precision == "bf16" else "fp16" if precision == "fp16" else "fp32"
    return Placement(type_, int(index) if index else None, chosen)


# above this, bf16 is called slower: less is what two runs of one product differ by on a busy machine
_SLOWER = 1.25

_SIZES = (32, 64, 128, 256, 512)  # sides of the matrices, each product eight times as much as the one before
_ROUNDS = 4
# of this thread alone, as whatever else keeps the machine busy does not matter; Windows counts it in steps of 16 ms
_clock = time.perf_counter if sys.platform == "win32" else time.thread_time
_BUDGET = 0.1  # seconds for all products


def bf16_ratio(seconds: Callable[[str, int], float], budget: float = _BUDGET) -> float:
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
def bf16_slowdown() -> float:
    """Time of matrix products in bf16 / that in fp32, on this CPU; measured once, in about 0.1 s."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return bf16_ratio(_products)
    finally:
        torch.set_num_threads(threads)


def bf16_notes(placement: Placement | None) -> tuple[str, ...]:
    """The sentence on a device that computes bf16 more slowly than fp32; nothing where it does not, or is not asked to.

    Only a CPU is measured: `place` refuses a GPU that would emulate it.
    """
    if placement is None or placement.type != "cpu" or placement.precision != "bf16":
        return ()
    times = bf16_slowdown()
    if times < _SLOWER:
        return ()
    shown = f"{times:.0f}" if times >= 10 else f"{times:.1f}"
    return (f"bf16 is slower than fp32 on this CPU: matrix products take {shown} times as long",)
