"""The columns of results.csv: one fixed order, whatever the cells hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from bench.run.result import Result
from bench.text import one_line

COLUMNS = (
    "cell",
    "backbone",
    "weights",
    "strategy",
    "dataset",
    "frames",
    "views",
    "seed",
    "status",
    "top1",
    "top5",
    "mean_class",
    "top1_reversed",
    "top1_shuffled",
    "params_m",
    "trained_params_m",
    "gmacs_view",
    "gmacs_total",
    "train_clips_per_s",
    "infer_clips_per_s",
    "train_memory_gb",
    "infer_memory_gb",
    "train_seconds",
    "epochs",
    "batch_size",
    "precision",
    "device",
    "footnotes",
    # further ones
    "options",
    "input_size",
    "lr",
    "head_lr",
    "val_top1",
    "evaluated",
    "listed",
    "train_spread",
    "infer_spread",
    "micro_batch",
    "threads",
    "wall_seconds",
    "weights_sha256",
    "dataset_fingerprint",
    "torch",
    "commit",
    "dirty",
    "error",
    "train_clips_per_s_loaded",
    "loader_wait",
    "train_ms",
    "infer_ms",
    "timed_batch_size",
    "warmup_seconds",
    "compile_seconds",
)


def row(result: Result) -> dict[str, Any]:
    """One result as a row; what a failed cell lacks is None."""
    cell, metrics, measured, provenance = result.cell, result.metrics, result.measured, result.provenance
    views = cell.clips * cell.crops
    values: dict[str, Any] = {
        "cell": cell.key,
        "backbone": cell.backbone,
        "weights": cell.weights_label,
        "strategy": cell.strategy,
        "dataset": cell.dataset,
        "frames": cell.frames,
        "views": str(cell.views),
        "seed": cell.seed,
        "status": result.status,
        "train_seconds": result.train_seconds,
        "epochs": cell.recipe.epochs,
        "batch_size": cell.recipe.batch_size,
        "precision": cell.precision,
        "device": cell.device,
        "footnotes": one_line("; ".join(result.footnotes)),
        "options": " ".join(f"{name}={value}" for name, value in sorted(cell.options.items())),
        "input_size": cell.input_size,
        "lr": cell.recipe.lr,
        "head_lr": cell.recipe.head_lr,
        "error": None if result.error is None else one_line(result.error),
        "train_clips_per_s_loaded": result.loaded_clips_per_s,
        "loader_wait": result.loader_wait,
    }
    if metrics is not None:
        values |= metrics.model_dump()
    if measured is not None:
        values |= {
            "device": measured.device,
            "params_m": measured.params / 1e6,
            "trained_params_m": measured.trained_params / 1e6,
            "gmacs_view": measured.macs_view / 1e9,
            "gmacs_total": measured.macs_view * views / 1e9,
            "train_clips_per_s": measured.train_clips_per_s,
            "infer_clips_per_s": measured.infer_clips_per_s,
            "train_memory_gb": measured.train_memory_bytes / 1e9,
            "infer_memory_gb": measured.infer_memory_bytes / 1e9,
            "train_spread": measured.train_spread,
            "infer_spread": measured.infer_spread,
            "train_ms": measured.train_ms,
            "infer_ms": measured.infer_ms,
            "timed_batch_size": measured.batch_size,
            "warmup_seconds": measured.warmup_seconds,
            "compile_seconds": measured.compile_seconds,
        }
    if provenance is not None:
        values |= {
            "batch_size": provenance.batch_size or cell.recipe.batch_size,
            "micro_batch": provenance.micro_batch,
            "threads": provenance.threads,
            "wall_seconds": provenance.wall_seconds,
            "weights_sha256": provenance.weights_sha256,
            "dataset_fingerprint": provenance.dataset_fingerprint,
            "torch": provenance.versions.get("torch"),
            "commit": provenance.commit,
            "dirty": provenance.dirty,
        }
    return {column: values.get(column) for column in COLUMNS}


def line(values: Iterable[Any]) -> str:
    """Values as a line of CSV: numbers to six significant digits, whole ones whole, nothing for what is missing."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        f"{value:.6g}" if isinstance(value, float) else value for value in values
    )
    return text.getvalue()


HEADER = line(COLUMNS)


def to_csv(results: Iterable[Result]) -> str:
    """The results as results.csv holds them, a row each, in the order given."""
    return HEADER + "".join(line(row(result).values()) for result in results)
