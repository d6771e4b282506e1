"""The machine that measures: its name and cores, others' load on it, and its lock for one measurement at a time."""

from __future__ import annotations

import contextlib
import getpass
import math
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

_PATIENCE = 1.0  # seconds between looks while another command measures
_PACKAGES = (
    "aim-bench",
    "torch",
    "torchvision",
    "timm",
    "open_clip_torch",
    "fvcore",
    "decord",
    "av",
    "numpy",
    "pandas",
)


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a number depends on; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def processor() -> str:
    """The CPU's model name as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _quota() -> float:
    """Cores' worth of time that a container's control group is given; infinite where there is no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float(quota) / float(period)
    except (OSError, ValueError):  # another system, or "max"
        return math.inf


@cache
def cores() -> int:
    """Physical cores that this process may use (a scheduler, a container or `taskset` may allow fewer)."""
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    affinity = getattr(psutil.Process(), "cpu_affinity", None)  # not on macOS
    allowed = len(affinity()) if affinity else physical
    granted = int(os.environ.get("SLURM_CPUS_ON_NODE", physical))  # a job's; not every cluster binds it to them
    return max(1, int(min(physical, allowed, granted, _quota())))


def device_name(device: str) -> str:
    """The device (cpu, cuda, cuda:1, mps) as tables name it: a GPU's name, or `CPU: model, n cores`."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    if device == "mps":
        return f"MPS: {processor()}"
    return f"CPU: {processor()}, {cores()} cores"


def slug(device: str) -> str:
    """A device's name in tables -> a file's: nvidia-h100-80gb-hbm3."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def describe() -> dict[str, Any]:
    """The machine as run.json keeps it."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "versions": versions(),
    }


def others_load(seconds: float = 0.3) -> float:
    """Cores kept busy, over `seconds`, by anything; call it while this process waits."""
    return psutil.cpu_percent(interval=seconds) / 100 * (psutil.cpu_count() or 1)


@contextlib.contextmanager
def exclusive_machine_lock(on_wait: Callable[[], None], look: Callable[[], None] = lambda: None) -> Iterator[None]:
    """One measurement at a time on this machine, also between commands of the same user.

    Args:
        on_wait: called where another command is measuring.
        look: called from time to time while it does; may raise KeyboardInterrupt.
    """
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()  # a container's user may have no name
    lock = FileLock(Path(tempfile.gettempdir()) / f"aim-bench-{user}-measures.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        while not lock.is_locked:
            look()
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=_PATIENCE)
    try:
        yield
    finally:
        lock.release()
