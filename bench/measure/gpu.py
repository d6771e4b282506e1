"""A CUDA GPU as its driver tells: whether others use it, and whether power or heat hold its clocks down.

Asked of `nvidia-smi`, which comes with the driver; utilisation of nvidia-ml-py first, where it is installed.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.measure.result import Gpu
from bench.measure.speed import synchronise

_SAMPLES = 5
_BETWEEN = 0.1  # seconds
_WINDOW = 1.0  # seconds over which a driver looks back at most
_PATIENCE = 20.0  # seconds for one answer
_CLOCKS = ("clocks.sm", "clocks.max.sm", "temperature.gpu")
# newer drivers call the same fields clocks_event_reasons
_REASONS = {
    "hw_slowdown": "a hardware slowdown (power brake or heat)",
    "hw_thermal_slowdown": "its temperature (hardware limit)",
    "sw_thermal_slowdown": "its temperature (software limit)",
}
_GROUPS = ("clocks_event_reasons", "clocks_throttle_reasons")


def uuid_of(device: torch.device) -> str | None:
    """The GPU as `nvidia-smi -i` takes it, as CUDA_VISIBLE_DEVICES may number GPUs anew; None where torch is silent."""
    found = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return None if found is None else f"GPU-{str(found).removeprefix('GPU-')}"


def before(device: torch.device) -> Gpu:
    """Measure others' use of a GPU; call it while this process leaves it idle. Takes half a second to two."""
    synchronise(device)
    uuid = uuid_of(device)
    busy = utilisation(lambda: _by_torch(device), uuid)
    if busy:  # perhaps by our own work of a moment ago
        time.sleep(_WINDOW)
        busy = utilisation(lambda: _by_torch(device), uuid)
    return Gpu(
        utilisation=busy,
        others_memory_bytes=None if uuid is None else others_memory(uuid),
    )


def during(found: Gpu, step: Callable[[], object], device: torch.device) -> Gpu:
    """Return `found`, with clocks and temperature while `step` runs again and again."""
    uuid = uuid_of(device)
    return found if uuid is None else found.model_copy(update=clocks(uuid, step, lambda: synchronise(device)))


def utilisation(first: Callable[[], float | None], uuid: str | None) -> float | None:
    """Percent of the time in which kernels ran, the median of samples; None where nothing tells.

    Args:
        first: another way to ask, None where it does not know.
        uuid: the GPU for nvidia-smi.
    """
    found = []
    for _ in range(_SAMPLES):
        time.sleep(_BETWEEN)
        if (percent := first()) is None and uuid is not None:
            percent = _number(_asked(uuid, ["utilization.gpu"]), 0)
        if percent is None:
            return None
        found.append(float(percent))
    return statistics.median(found)


def others_memory(uuid: str) -> int | None:
    """Bytes that other processes hold; None where this one, which uses the GPU, is not among those listed.

    That is so in a container, which knows its processes by other numbers: ours could not be told from the others'.
    """
    text = _run(_smi(uuid, "--query-compute-apps=pid,used_memory"))
    if text is None:
        return None
    held: dict[int, int] = {}
    for line in text.splitlines():
        pid, _, mebibytes = line.partition(",")
        try:
            held[int(pid)] = held.get(int(pid), 0) + int(mebibytes) * 2**20
        except ValueError:  # [N/A], as under Windows
            return None
    if held.pop(os.getpid(), None) is None:
        return None
    return sum(held.values())


def clocks(uuid: str, step: Callable[[], object], wait: Callable[[], None]) -> dict[str, Any]:
    """Fields of `Gpu` on clocks and temperature, asked while `step` keeps the GPU at work; none where nothing tells.

    Args:
        step: gives the GPU something to do.
        wait: until it is done.
    """
    for group in (*_GROUPS, None):  # a driver refuses all fields where it does not know one
        fields = [*_CLOCKS, *(f"{group}.{name}" for name in _REASONS if group)]
        values = _asked(uuid, fields, step, wait)
        if values is not None and len(values) == len(fields):
            clock, top, temperature = (_number(values, index) for index in range(len(_CLOCKS)))
            active = [text == "Active" for text in values[len(_CLOCKS) :]]
            slowed = [why for why, is_active in zip(_REASONS.values(), active, strict=bool(group)) if is_active]
            if len(slowed) > 1:  # what is more precise says it
                slowed = [why for why in slowed if why != _REASONS["hw_slowdown"]]
            return {"clock_mhz": clock, "max_clock_mhz": top, "temperature": temperature, "slowed_by": tuple(slowed)}
    return {}


def _by_torch(device: torch.device) -> float | None:
    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # no nvidia-ml-py, or what it raises of its own
        return None


def _smi(uuid: str, query: str) -> list[str]:
    return ["nvidia-smi", query, "--format=csv,noheader,nounits", "-i", uuid]


def _asked(
    uuid: str, fields: Sequence[str], step: Callable[[], object] | None = None, wait: Callable[[], None] | None = None
) -> list[str] | None:
    """The GPU's values of the fields; None where they are not told."""
    text = _run(_smi(uuid, f"--query-gpu={','.join(fields)}"), step, wait)
    lines = [] if text is None else text.splitlines()
    return [value.strip() for value in lines[0].split(",")] if len(lines) == 1 else None


def _run(
    command: list[str], step: Callable[[], object] | None = None, wait: Callable[[], None] | None = None
) -> str | None:
    """A command's output, None where it fails; `step` runs again and again meanwhile."""
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:  # not installed
        return None
    end = time.monotonic() + _PATIENCE
    with process:
        try:
            while step is not None and process.poll() is None and time.monotonic() < end:
                step()
                if wait is not None:
                    wait()
            text, _ = process.communicate(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            text = ""
        finally:
            with contextlib.suppress(OSError):
                process.kill()
    return text if process.returncode == 0 else None


def _number(values: Sequence[str] | None, index: int) -> int | None:
    try:
        return None if values is None else int(values[index])
    except (ValueError, IndexError):  # [N/A]
        return None
