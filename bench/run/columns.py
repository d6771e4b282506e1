"""The columns of every table of results: one fixed order and one name a quantity, whatever the cells' stages are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from bench.measure.parts import PARTS
from bench.run.result import Result
from bench.text import one_line

_OF_MODEL = ("gmacs_view", "params_m", "trained_params_m")
# accuracies, counts, speeds and times
MEASURES = (
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
)
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
    *MEASURES,
    "epochs",
    "batch_size",
    "precision",
    "device",
    "footnotes",
    # further ones: of the cell
    "options",
    "input_size",
    "head",
    "head_options",
    "order_aware",
    "classes",
    "split",
    "pixels",
    "model_file",
    "model_file_sha256",
    "lr",
    "head_lr",
    "train_fraction",
    "train_videos",
    "compile",
    "kernels",
    "checkpoint_activations",
    "adapter_mb",
    # of its accuracy
    "val_top1",
    "evaluated",
    "listed",
    # of its time
    "train_spread",
    "infer_spread",
    "train_ms",
    "infer_ms",
    "train_repeats",
    "infer_repeats",
    "warmup_seconds",
    "compiled",
    "compile_seconds",
    "train_clips_per_s_loaded",
    "loader_wait",
    "gradient_bytes",
    "micro_batch",
    "threads",
    "world_size",
    "started",
    "wall_seconds",
    # of its origin
    "weights_sha256",
    "dataset_fingerprint",
    "sources",
    "torch",
    "versions",
    "commit",
    "dirty",
    "error",
    # of the parts of its model
    *(f"{quantity}_{part}" for part in PARTS for quantity in _OF_MODEL),
)
# of `Measured`, as they are
_MEASURED = (
    "train_clips_per_s",
    "infer_clips_per_s",
    "train_spread",
    "infer_spread",
    "train_ms",
    "infer_ms",
    "train_repeats",
    "infer_repeats",
    "warmup_seconds",
    "compiled",
    "compile_seconds",
)


def row(result: Result) -> dict[str, Any]:
    """One result as a row; what its cell has no stage for, or failed before, is None."""
    cell, measured, known = result.cell, result.measured, result.provenance
    values: dict[str, Any] = {
        "cell": cell.key,
        "backbone": cell.backbone,
        "weights": cell.weights_label,
        "strategy": cell.strategy,
        "dataset": cell.dataset or None,
        "frames": cell.frames,
        "views": str(cell.views),
        "seed": cell.seed,
        "status": result.status,
        "footnotes": one_line("; ".join(result.footnotes)),
        "options": options_of(result),
        "head": cell.head,
        "head_options": _pairs(cell.head_options) or None,
        "input_size": cell.input_size,
        "classes": cell.classes,
        "adapter_mb": None if result.adapter_bytes is None else result.adapter_bytes / 1e6,
        "sources": _pairs(cell.sources),
        "started": known.started,
        "wall_seconds": known.wall_seconds,
        "weights_sha256": known.weights_sha256,
        "dataset_fingerprint": known.dataset_fingerprint,
        "torch": known.versions.get("torch"),
        "versions": _pairs(known.versions),
        "commit": known.commit,
        "dirty": known.dirty,
        "error": None if result.error is None else one_line(result.error),
    }
    if cell.stages:
        values |= {
            "batch_size": known.batch_size or cell.recipe.batch_size,
            "micro_batch": known.micro_batch,
            "precision": cell.precision,
            "device": known.device,
            "threads": known.threads,
            "world_size": known.world_size,
            "compile": cell.compile,
            "kernels": cell.kernels,
            "checkpoint_activations": cell.checkpoint_activations,
        }
    if "train" in cell.stages:
        values |= {"epochs": cell.recipe.epochs, "lr": cell.recipe.lr, "head_lr": cell.recipe.head_lr}
        values["train_fraction"] = cell.train_fraction
    if "evaluate" in cell.stages:
        values |= {"split": cell.split, "pixels": cell.pixels}
    if cell.model_file is not None:
        values |= {"model_file": cell.model_file.path, "model_file_sha256": cell.model_file.sha256}
    if (counts := result.counted) is not None:
        values |= _counted(counts)
        values["gmacs_total"] = None if counts.macs_view is None else counts.macs_view * cell.clips * cell.crops / 1e9
    if result.counts is not None:
        for part, found in result.counts.parts.items():
            values |= {f"{name}_{part}": value for name, value in _counted(found).items()}
    if measured is not None:
        values |= {name: getattr(measured, name) for name in _MEASURED}
        held = {stage: getattr(measured, f"{stage}_memory_bytes") for stage in ("train", "infer")}
        values |= {f"{stage}_memory_gb": None if size is None else size / 1e9 for stage, size in held.items()}
    for stage in (result.training, result.metrics):
        values |= {} if stage is None else stage.model_dump()
    return {column: values.get(column) for column in COLUMNS}


def _counted(counts: Any) -> dict[str, float | None]:
    """Counts of a model or of a part of it, in the columns' units."""
    return {
        "gmacs_view": None if counts.macs_view is None else counts.macs_view / 1e9,
        "params_m": counts.params / 1e6,
        "trained_params_m": counts.trained_params / 1e6,
    }


def _pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(values.items()))


def options_of(result: Result) -> str:
    """The strategy's options in one text."""
    return _pairs(result.cell.options)


def line(result: Result) -> str:
    """A result as a line of CSV: counts to the digit, other numbers to six, nothing for what is missing."""
    return _line(_text(column, value) for column, value in row(result).items())


def _text(column: str, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.12g}" if column.startswith(("gmacs", "params", "trained")) else f"{value:.6g}"


def _line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


HEADER = _line(COLUMNS)


def to_csv(results: Iterable[Result]) -> str:
    """The results with their header, a row each, in the order given."""
    return HEADER + "".join(map(line, results))
