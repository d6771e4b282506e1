"""Device of a cell and number format that it runs in."""

from __future__ import annotations

import sys
from dataclasses import dataclass
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
        """As torch names it: cpu, cuda, cuda:1, mps."""
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
