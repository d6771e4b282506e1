"""Measured: counts, speed and memory of a model, each with its quantity and unit; and what a reader must know of it."""

from __future__ import annotations

from pydantic import Field

from backbones.kernels.switch import Kernels
from bench.spec import FrozenModel

PLAIN_KERNELS = "plain kernels: PyTorch's own operations, without what is written by hand for speed"
# a measurement is disturbed by more than this of others' use
_CORES = 0.5
_PERCENT = 5.0
_MEMORY = 1e9  # bytes; a desktop holds some


class Gpu(FrozenModel):
    """A CUDA GPU around a measurement, as its driver tells; what it does not tell is None."""

    utilisation: float | None = Field(None, description="by others just before: percent of the time, median of samples")
    others_memory_bytes: int | None = Field(
        None, description="held by other processes just before; with our context where the driver tells a sum alone"
    )
    clock_mhz: int | None = Field(None, description="of the multiprocessors while training steps ran")
    max_clock_mhz: int | None = None
    temperature: int | None = Field(None, description="degrees Celsius, while training steps ran")
    slowed_by: tuple[str, ...] = Field((), description="what held the clocks down while training steps ran")


class Measured(FrozenModel):
    """Counts, speed and memory of a model, measured with the machine to itself.

    What has a default is missing in the files of runs that were made before it was measured. The values of a training
    are None where nothing of the model trains.
    """

    params: int
    trained_params: int
    macs_view: int = Field(description="multiply-accumulates of one view of the model as deployed")
    train_clips_per_s: float | None
    train_spread: float | None = Field(description="interquartile range / median of the timed steps")
    train_repeats: int | None
    infer_clips_per_s: float
    infer_spread: float
    infer_repeats: int
    train_ms: float | None = Field(None, description="median milliseconds of an optimiser step")
    infer_ms: float | None = Field(None, description="median milliseconds of a batch's prediction")
    warmup_seconds: float = Field(description="calls that were not counted, without compile_seconds")
    compiled: bool = Field(False, description="whether torch.compile made the model's kernels")
    why_not_compiled: str = Field("", description="what the compiler said where it was asked for and failed")
    compile_seconds: float = Field(
        0.0, description="what the first calls took beyond a median one where the model is compiled, else 0"
    )
    kernels: Kernels = Field("fast", description="hand-written kernels or their plain forms")
    train_memory_bytes: int | None
    infer_memory_bytes: int
    batch_size: int
    micro_batch: int = Field(description="clips computed at once, below the batch size where memory ran out")
    threads: int
    device: str
    busy_cores: float = Field(description="cores that were busy just before, on a CPU")
    gpu: Gpu | None = Field(None, description="None where the device is not a CUDA GPU")
    versions: dict[str, str]
    commit: str | None


def not_compiled(why: str) -> str:
    """Note that a compiled step was asked for and is none."""
    return f"not compiled, operations ran one by one: {why}"


def footnotes(measured: Measured) -> list[str]:
    """Sentences on what may have made a measured speed lower than the device's own; none where nothing did."""
    notes = [not_compiled(measured.why_not_compiled)] if measured.why_not_compiled else []
    if measured.kernels == "plain":
        notes.append(PLAIN_KERNELS)
    if measured.busy_cores > _CORES:
        notes.append(f"speed measured while {measured.busy_cores:.1f} cores were busy with something else")
    return notes if measured.gpu is None else notes + _of_gpu(measured.gpu)


def _of_gpu(gpu: Gpu) -> list[str]:
    notes = []
    held = gpu.others_memory_bytes or 0
    holding = f"other processes held {held / 1e9:.1f} GB of its memory" if held > _MEMORY else ""
    beside = f" ({holding})" if holding else ""
    if gpu.utilisation is None:
        notes.append(
            f"speed measured on a GPU of which nothing tells whether something else used it{beside}: "
            "nvidia-ml-py, the extra gpu, asks its driver"
        )
    elif gpu.utilisation > _PERCENT:
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
