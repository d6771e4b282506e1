"""A GPU as its driver tells: whether others use it, and whether power or heat hold its clocks down.

NVIDIA's driver is asked through nvidia-ml-py, the extra `gpu`. Without it torch tells how much memory is taken (and of
AMD's GPUs how busy they are), and a footnote tells that nothing is known of the rest.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from bench.measure.result import Gpu
from bench.measure.speed import synchronise

_SAMPLES = 5
_BETWEEN = 0.1  # seconds
_WINDOW = 1.0  # seconds over which a driver looks back at most
_LOAD = 0.5  # seconds of steps during which clocks are asked for
_REASONS = {
    "HwSlowdown": "a hardware slowdown (power brake or heat)",
    "HwThermalSlowdown": "its temperature (hardware limit)",
    "SwThermalSlowdown": "its temperature (software limit)",
}


class Driver:
    """Questions to NVIDIA's driver on one GPU; the answer is None where it does not tell.

    Args:
        device: of torch, which may number GPUs anew (CUDA_VISIBLE_DEVICES): the driver is asked by UUID.

    Raises:
        LookupError: nvidia-ml-py is not installed, or does not find the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise LookupError("nvidia-ml-py is not installed") from error
        self._nvml: Any = pynvml
        uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
        try:
            pynvml.nvmlInit()
            self._gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{str(uuid).removeprefix('GPU-')}")
        except pynvml.NVMLError as error:
            raise LookupError(str(error)) from error

    def _ask(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, function)(self._gpu, *arguments)
        except (self._nvml.NVMLError, AttributeError):  # the GPU, the driver or the library does not know it
            return None

    def utilisation(self) -> float | None:
        """Percent of the driver's last window in which kernels ran."""
        found = self._ask("nvmlDeviceGetUtilizationRates")
        return None if found is None else float(found.gpu)

    def others_memory(self) -> int | None:
        """Bytes that other processes hold; None where this one, which uses the GPU, is not among those listed.

        That is so in a container, which knows its processes by other numbers: ours could not be told from the others'.
        """
        held: dict[int, int] = {}
        for process in self._ask("nvmlDeviceGetComputeRunningProcesses") or ():
            if process.usedGpuMemory is None:  # as under Windows
                return None
            held[process.pid] = held.get(process.pid, 0) + process.usedGpuMemory
        return None if held.pop(os.getpid(), None) is None else sum(held.values())

    def clocks(self) -> tuple[int | None, int | None, int | None, int]:
        """Clock now and at most (MHz), temperature (degrees Celsius), and what slows the GPU as bits."""
        kind = self._nvml.NVML_CLOCK_SM
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:  # by the name that older drivers have
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return (
            self._ask("nvmlDeviceGetClockInfo", kind),
            self._ask("nvmlDeviceGetMaxClockInfo", kind),
            self._ask("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU),
            reasons or 0,
        )

    def slowed_by(self, bits: int) -> tuple[str, ...]:
        """Return what the bits of `clocks` say, in words."""
        found = [why for name, why in _REASONS.items() if bits & getattr(self._nvml, f"nvmlClocksThrottleReason{name}")]
        if len(found) > 1:  # what is more precise says it
            found = [why for why in found if why != _REASONS["HwSlowdown"]]
        return tuple(found)


def driver_of(device: torch.device) -> Driver | None:
    """The GPU's driver; None where it cannot be asked."""
    try:
        return Driver(device)
    except LookupError:
        return None


def before(device: torch.device) -> Gpu:
    """Measure others' use of a GPU; call it while this process leaves it idle. Takes half a second to two."""
    synchronise(device)
    driver = driver_of(device)
    ask = (lambda: _torch_utilisation(device)) if driver is None else driver.utilisation
    busy = utilisation(ask)
    if busy:  # perhaps by our own work of a moment ago
        time.sleep(_WINDOW)
        busy = utilisation(ask)
    held = None if driver is None else driver.others_memory()
    return Gpu(utilisation=busy, others_memory_bytes=_torch_others_memory(device) if held is None else held)


def during(found: Gpu, step: Callable[[], object], device: torch.device) -> Gpu:
    """Return `found`, with clocks and temperature while `step` runs again and again."""
    driver = driver_of(device)
    if driver is None:
        return found
    samples: list[tuple[int | None, int | None, int | None, int]] = []
    end = time.monotonic() + _LOAD
    while not samples or time.monotonic() < end:
        step()  # which the GPU still computes when its driver is asked
        samples.append(driver.clocks())
        synchronise(device)
    clock, most, temperature, _ = (
        [value for value in values if value is not None] for values in zip(*samples, strict=True)
    )
    slowed = 0
    for *_, bits in samples:
        slowed |= bits
    return found.model_copy(
        update={
            "clock_mhz": statistics.median_low(clock) if clock else None,
            "max_clock_mhz": max(most, default=None),
            "temperature": max(temperature, default=None),
            "slowed_by": driver.slowed_by(slowed),
        }
    )


def utilisation(ask: Callable[[], float | None]) -> float | None:
    """Median of samples of the percent of the time in which kernels ran; None where `ask` does not tell."""
    found = []
    for _ in range(_SAMPLES):
        time.sleep(_BETWEEN)
        if (percent := ask()) is None:
            return None
        found.append(percent)
    return statistics.median(found)


def _torch_utilisation(device: torch.device) -> float | None:
    try:
        return float(torch.cuda.utilization(device))  # of AMD's GPUs
    except Exception:  # no library for it, or what that raises of its own
        return None


def _torch_others_memory(device: torch.device) -> int:
    """Bytes that are taken beside this process's tensors; its context, some hundred MB, is among them."""
    free, total = torch.cuda.mem_get_info(device)
    return max(0, total - free - torch.cuda.memory_reserved(device))
