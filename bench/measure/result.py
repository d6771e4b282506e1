"""Measured: counts, speed and memory of a model, each with its quantity and unit."""

from __future__ import annotations

from pydantic import Field

from bench.spec import FrozenModel


class Gpu(FrozenModel):
    """A CUDA GPU around a measurement, as its driver tells; what it does not tell is None."""

    utilisation: float | None = Field(None, description="by others just before: percent of the time, median of samples")
    others_memory_bytes: int | None = Field(None, description="held by other processes just before")
    clock_mhz: int | None = Field(None, description="of the multiprocessors while training steps ran")
    max_clock_mhz: int | None = None
    temperature: int | None = Field(None, description="degrees Celsius, while training steps ran")
    slowed_by: tuple[str, ...] = Field((), description="what held the clocks down while training steps ran")


class Measured(FrozenModel):
    """Counts, speed and memory of a model, measured with the machine to itself.

    What has a default is missing in the files of runs that were made before it was measured.
    """

    params: int
    trained_params: int
    macs_view: int = Field(description="multiply-accumulates of one view")
    train_clips_per_s: float
    train_spread: float = Field(description="interquartile range / median of the timed steps")
    train_repeats: int
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
    train_memory_bytes: int
    infer_memory_bytes: int
    batch_size: int
    micro_batch: int = Field(description="clips computed at once, below the batch size where memory ran out")
    threads: int
    device: str
    busy_cores: float = Field(description="cores that were busy just before, on a CPU")
    gpu: Gpu | None = Field(None, description="None where the device is not a CUDA GPU")
    versions: dict[str, str]
    commit: str | None
