"""Content of a cell's result.json. Every number says of which quantity and unit it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bench.spec import Cell, FrozenModel

Status = Literal["done", "failed", "oom", "interrupted"]


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


class Metrics(FrozenModel):
    """Accuracy on the test videos, in percent."""

    protocol: str = Field(description="frames x clips x crops of a video, such as 8x3x1 or 8x1x1@256")
    top1: float
    top5: float | None = Field(description="None of five classes or fewer, where it is 100 by definition")
    mean_class: float
    top1_reversed: float | None = None
    top1_shuffled: float | None = None
    val_top1: float | None = None
    evaluated: int
    listed: int


class Provenance(FrozenModel):
    """Facts that a reviewer needs to check a number, or to find out why there is none."""

    versions: dict[str, str]
    commit: str | None = Field(description="of the package; None where it was installed without its history")
    dirty: bool | None
    command: str
    machine: str
    device: str
    precision: str
    threads: int
    batch_size: int | None = Field(description="clips of a step as computed; this and the next are None where none was")
    micro_batch: int | None = None
    pretrained: str
    weights_sha256: str | None = None
    dataset_fingerprint: str | None = None
    decoders: tuple[str, ...] = ()
    started: str = Field(description="UTC, ISO 8601")
    wall_seconds: float


class Result(FrozenModel):
    """Outcome of one cell."""

    version: Literal[1] = 1
    cell: Cell
    status: Status
    metrics: Metrics | None = None
    measured: Measured | None = None
    train_seconds: float | None = None
    loaded_clips_per_s: float | None = Field(
        None, description="of the training, loading included: median over the log's intervals, the first left out"
    )
    loader_wait: float | None = Field(
        None, description="percent of the training's time in which the step waited for its clips, same intervals"
    )
    footnotes: tuple[str, ...] = ()
    provenance: Provenance
    error: str | None = Field(None, description="one line: what stopped the cell")
    traceback: str | None = None
    seconds: dict[str, float] = Field(default_factory=dict, description="where the cell's time went")

    @model_validator(mode="after")
    def _complete(self) -> Result:
        known = self.provenance
        whole = None not in (known.batch_size, known.micro_batch, known.weights_sha256, known.dataset_fingerprint)
        if self.status == "done" and (self.metrics is None or self.measured is None or not whole):
            raise ValueError("a result without its measurements and its provenance is not written")
        if self.status != "done" and not self.error:
            raise ValueError("a cell that did not end needs its reason")
        return self
