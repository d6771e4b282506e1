"""Notes for the reader of a measurement on the machine's state while it was made."""

from __future__ import annotations

from bench.measure.result import Gpu, Measured

_CORES = 0.5
_PERCENT = 5.0
_MEMORY = 1e9  # bytes; a desktop holds some


def not_compiled(why: str) -> str:
    """Note that a compiled step was asked for and is none."""
    return f"not compiled, operations ran one by one: {why}"


def footnotes(measured: Measured) -> list[str]:
    """Sentences on what may have made a measured speed lower than the device's own; none where nothing did."""
    notes = [not_compiled(measured.why_not_compiled)] if measured.why_not_compiled else []
    if measured.busy_cores > _CORES:
        notes.append(f"speed measured while {measured.busy_cores:.1f} cores were busy with something else")
    return notes if measured.gpu is None else notes + _of_gpu(measured.gpu)


def _of_gpu(gpu: Gpu) -> list[str]:
    notes = []
    held = gpu.others_memory_bytes or 0
    holding = f"other processes held {held / 1e9:.1f} GB of its memory" if held > _MEMORY else ""
    if gpu.utilisation is None:
        notes.append(
            "speed measured on a GPU of which neither nvidia-ml-py nor nvidia-smi tells whether something else used it"
        )
    elif gpu.utilisation > _PERCENT:
        beside = f" ({holding})" if holding else ""
        notes.append(
            f"speed measured while something else kept the GPU busy for {gpu.utilisation:.0f} % of the time{beside}"
        )
    elif holding:
        notes.append(f"speed measured on a GPU that was idle, while {holding}")
    if gpu.slowed_by:
        clock = f" at {gpu.clock_mhz} of {gpu.max_clock_mhz} MHz" if gpu.clock_mhz and gpu.max_clock_mhz else ""
        heat = f", {gpu.temperature} °C" if gpu.temperature is not None else ""
        notes.append(f"speed measured while the GPU was slowed by {' and '.join(gpu.slowed_by)}{clock}{heat}")
    return notes
