"""Content of a cell's result.json: a part a stage. Every number says of which quantity and unit it is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from bench.measure.parts import Part
from bench.measure.result import Measured
from bench.spec import Cell, FrozenModel, Tuning

Status = Literal["done", "failed", "oom", "interrupted"]
# begin of the error of a training whose numbers became infinite, see `bench.train.trainer`
_DIVERGED = "Diverged:"
# of a training; of version 1 they stood beside the parts
_OF_TRAINING = {
    "train_seconds": "train_seconds",
    "loaded_clips_per_s": "train_clips_per_s_loaded",
    "loader_wait": "loader_wait",
}


class PartCounts(FrozenModel):
    """Counts of a part of a model, see `bench.measure.parts`."""

    macs_view: int
    params: int
    trained_params: int


class Counts(FrozenModel):
    """Parameters and multiply-accumulates of a model, whole and part by part."""

    params: int
    trained_params: int
    macs_view: int | None = Field(
        description="multiply-accumulates of one view of the model as deployed; None where an operation has no rule"
    )
    parts: dict[Part, PartCounts] = Field(default_factory=dict, description="empty where they were not told apart")


class Training(FrozenModel):
    """Time of a training, and what its ranks exchanged."""

    train_seconds: float
    train_clips_per_s_loaded: float | None = Field(
        None, description="loading included: median over the log's intervals, the first left out"
    )
    loader_wait: float | None = Field(
        None, description="percent of the training's time in which the step waited for its clips, same intervals"
    )
    train_videos: int | None = Field(None, description="that it was on; None of results of before they were counted")
    gradient_bytes: int | None = Field(
        None, description="of gradients that each rank gives to the sum in a step; None where one process trained"
    )


class Metrics(FrozenModel):
    """Accuracy on the videos of the cell's split, in percent."""

    protocol: str = Field(description="frames x clips x crops of a video, such as 8x3x1 or 8x1x1@256")
    order_aware: bool | None = Field(
        None, description="whether scores depend on the frames' order; None of results of before it was told"
    )
    top1: float
    top5: float | None = Field(description="None of five classes or fewer, where it is 100 by definition")
    mean_class: float
    top1_reversed: float | None = None
    top1_shuffled: float | None = None
    val_top1: float | None = None
    evaluated: int
    listed: int


class SkippedVideo(FrozenModel):
    """A video that could not be read."""

    name: str
    split: Literal["train", "val", "test"]
    reason: str
    times: int = Field(description="how often that was met: once a clip in training, once an evaluation else")


class Attempt(FrozenModel):
    """One of the processes that a training was in, one after the other."""

    started: str = Field(description="UTC, ISO 8601")
    seconds: float = Field(description="until its last checkpoint; of the last, until the result")


class Provenance(FrozenModel):
    """Facts that a reviewer needs to check a number, or to find out why there is none."""

    versions: dict[str, str]
    commit: str | None = Field(description="of the package; None where it was installed without its history")
    dirty: bool | None
    command: str
    machine: str
    device: str
    precision: str
    threads: int = Field(description="of each rank")
    world_size: int = Field(1, description="ranks: processes that executed the cell together")
    shared_pass: int = Field(1, description="cells that trained together from one forward pass of the frozen backbone")
    batch_size: int | None = Field(
        description="clips of a step over all ranks; this and the next are None where none was"
    )
    micro_batch: int | None = None
    pretrained: str
    weights_sha256: str | None = None
    dataset_fingerprint: str | None = None
    decoders: tuple[str, ...] = ()
    head: dict[str, Any] = Field(
        default_factory=dict, description="its name, and what its start was made from, such as prompts"
    )
    attempts: tuple[Attempt, ...] = Field((), description="of a training that was resumed, the first first")
    tuning: Tuning | None = Field(None, description="space, budget, sampler and choice of its recipe; None: not tuned")
    started: str = Field(description="UTC, ISO 8601, of the last attempt")
    wall_seconds: float = Field(description="of all attempts")


class Result(FrozenModel):
    """Outcome of one cell; the parts of stages that it does not have are None."""

    version: Literal[2] = 2
    cell: Cell
    status: Status
    counts: Counts | None = Field(None, description="None where `measured` tells them, or nothing could be counted")
    measured: Measured | None = None
    training: Training | None = None
    metrics: Metrics | None = None
    adapter_bytes: int | None = Field(None, description="size of the adapter file that was written")
    skipped: tuple[SkippedVideo, ...] = ()
    footnotes: tuple[str, ...] = ()
    provenance: Provenance
    error: str | None = Field(None, description="one line: what stopped the cell")
    traceback: str | None = None
    seconds: dict[str, float] = Field(default_factory=dict, description="where the cell's time went")

    @property
    def final(self) -> bool:
        """True where the cell is not run again: it is done, or it is a trial whose values made the training diverge."""
        return self.status == "done" or (self.cell.trial is not None and (self.error or "").startswith(_DIVERGED))

    @property
    def counted(self) -> Counts | Measured | None:
        """The part that tells the parameters and multiply-accumulates of the model."""
        return self.counts or self.measured

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, values: Any) -> Any:
        """The values as they are called now."""
        if not isinstance(values, dict) or values.get("version") != 1:
            return values
        training = {now: values[name] for name, now in _OF_TRAINING.items() if values.get(name) is not None}
        kept = {name: value for name, value in values.items() if name not in _OF_TRAINING}
        return {**kept, "version": 2, "training": training or None}

    @model_validator(mode="after")
    def _complete(self) -> Result:
        if self.status != "done" and not self.error:
            raise ValueError("a cell that did not end needs its reason")
        stages, known = self.cell.stages, self.provenance
        needed: list[Any] = [self.counted]
        needed += [self.measured, known.batch_size, known.micro_batch] if "measure" in stages else []
        needed += [known.batch_size, known.micro_batch] if "train" in stages else []
        if "evaluate" in stages:
            needed += [self.metrics, known.micro_batch, known.weights_sha256, known.dataset_fingerprint]
        if self.status == "done" and None in needed:
            raise ValueError("a result without its measurements and its provenance is not written")
        return self
