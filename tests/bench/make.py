"""Cells and results made by hand, with plausible numbers: nothing is trained, torch is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.measure.machine import versions
from bench.measure.result import Measured
from bench.run.result import Counts, Metrics, Provenance, Result, Status, Training
from bench.spec import Cell, Matrix, Recipe
from bench.version import commit


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"epochs": 2, "batch_size": 16, "flip": False, **changes})


def cell(**changes: Any) -> Cell:
    """A cell of `motion`; `recipe` may be a mapping of changes."""
    values: dict[str, Any] = {
        "backbone": "vit:tiny",
        "weights": "none",
        "strategy": "joint",
        "options": {"ratio": 0.25, "blocks": "all", "temporal_adapters": 1, "scale": 0.5},
        "dataset": "motion",
        "frames": 8,
        "clips": 1,
        "crops": 1,
        "seed": 0,
        "recipe": {},
        "device": "cpu",
        "precision": "fp32",
    }
    values |= changes
    if isinstance(values["recipe"], dict):
        values["recipe"] = recipe(**values["recipe"])
    return Cell(**values)


def measured(**changes: Any) -> Measured:
    values: dict[str, Any] = {
        "params": 1_234_567,
        "trained_params": 98_765,
        "macs_view": 123_456_789,
        "train_clips_per_s": 321.4,
        "train_spread": 0.02,
        "train_repeats": 20,
        "infer_clips_per_s": 987.6,
        "infer_spread": 0.01,
        "infer_repeats": 20,
        "train_ms": 49.8,
        "infer_ms": 16.2,
        "warmup_seconds": 1.5,
        "train_memory_bytes": 512_000_000,
        "infer_memory_bytes": 128_000_000,
        "batch_size": 16,
        "micro_batch": 16,
        "threads": 2,
        "device": "Some CPU",
        "busy_cores": 0.1,
        "versions": versions(),
        "commit": commit()[0],
    }
    return Measured(**(values | changes))


def metrics(**changes: Any) -> Metrics:
    values: dict[str, Any] = {
        "protocol": "8x1x1",
        "top1": 61.25,
        "top5": 97.5,
        "mean_class": 60.75,
        "top1_reversed": 12.5,
        "top1_shuffled": 33.0,
        "val_top1": 62.0,
        "evaluated": 400,
        "listed": 400,
    }
    return Metrics(**(values | changes))


def provenance(**changes: Any) -> Provenance:
    values: dict[str, Any] = {
        "versions": {"python": "3.11.7", "torch": "2.6.0"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "command": "bench run",
        "machine": "linux, 2 cores",
        "device": "Some CPU",
        "precision": "fp32",
        "threads": 2,
        "batch_size": 16,
        "micro_batch": 16,
        "pretrained": "none",
        "weights_sha256": "ab" * 32,
        "dataset_fingerprint": "cd" * 32,
        "decoders": ("decord",),
        "started": "2025-01-02T03:04:05Z",
        "wall_seconds": 42.5,
    }
    return Provenance(**(values | changes))


def done(of: Cell | None = None, *, footnotes: Sequence[str] = (), top1: float = 61.25, **changes: Any) -> Result:
    """A finished cell; further changes are of what was measured."""
    return Result(
        cell=of or cell(),
        status="done",
        metrics=metrics(top1=top1),
        measured=measured(**changes),
        provenance=provenance(),
        training=Training(train_seconds=30.25, train_clips_per_s_loaded=204.8, loader_wait=3.25),
        footnotes=tuple(footnotes),
        seconds={"training": 30.25, "evaluating": 4.0},
    )


def done_of_few_classes(of: Cell | None = None) -> Result:
    """A finished cell that has no top-5."""
    return done(of).model_copy(update={"metrics": metrics(top5=None)})


def failed(of: Cell | None = None, status: Status = "failed", error: str = "ValueError: no such luck") -> Result:
    return Result(
        cell=of or cell(),
        status=status,
        error=error,
        traceback="Traceback ...\nValueError: no such luck",
        provenance=provenance(batch_size=None, micro_batch=None, weights_sha256=None, dataset_fingerprint=None),
    )


def profiled(of: Cell, **changes: Any) -> Result:
    """A model that was measured."""
    return Result(cell=of, status="done", measured=measured(**changes), provenance=provenance())


def evaluated(footnotes: Sequence[str] = (), **changes: Any) -> Result:
    """A model file that was evaluated; changes are of its accuracy."""
    file = {"path": "some/adapter.safetensors", "sha256": "12" * 32, "layout": "aim-bench"}
    return Result(
        cell=cell(stages=("evaluate",), model_file=file, clips=2, crops=3),
        status="done",
        counts=Counts(params=1_234_567, trained_params=98_765, macs_view=123_456_789),
        metrics=metrics(**changes),
        footnotes=tuple(footnotes),
        provenance=provenance(),
    )


def matrix(**changes: Any) -> Matrix:
    return Matrix(**{"backbones": ["vit:tiny@none"], "strategies": ["joint"], **changes})
