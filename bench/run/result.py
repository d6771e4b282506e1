"""Content of a cell's result.json. Every number says of which quantity and unit it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bench.measure.result import Measured
from bench.spec import Cell, FrozenModel

Status = Literal["done", "failed", "oom", "interrupted"]


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
