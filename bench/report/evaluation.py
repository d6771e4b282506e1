"""An evaluation, as `bench eval` shows it."""

from __future__ import annotations

from bench.run.columns import options_of
from bench.run.result import Result
from bench.text import counted, one_line, quantity


def render(result: Result) -> str:
    """Names and values below each other: no terminal is too narrow for it."""
    cell, where, file, metrics = result.cell, result.provenance, result.cell.model_file, result.metrics
    if file is None or metrics is None or result.counts is None:
        raise ValueError(f"{cell.label} is not an evaluation that is done")
    counts = result.counts
    rows = {
        "checkpoint": f"{file.path} (SHA-256 {file.sha256[:12]}, {file.layout})",
        "backbone": f"{cell.backbone_label} (SHA-256 {str(where.weights_sha256)[:12]})",
        "strategy": f"{cell.strategy} {options_of(result)}".strip(),
        "params M": f"{quantity(counts.params / 1e6, 2)}, trained {quantity(counts.trained_params / 1e6, 3)}",
        "GMACs": _gmacs(result),
        "data set": f"{cell.dataset} {cell.split}, {metrics.evaluated} of {counted(metrics.listed, 'video')}",
        "views": f"{metrics.protocol} (frames x clips x crops), {cell.pixels} pixels",
        "top-1 %": f"{metrics.top1:.2f}",
        "top-5 %": "-" if metrics.top5 is None else f"{metrics.top5:.2f}",
        "mean class %": f"{metrics.mean_class:.2f}",
        "reversed %": None if metrics.top1_reversed is None else f"{metrics.top1_reversed:.2f}",
        "shuffled %": None if metrics.top1_shuffled is None else f"{metrics.top1_shuffled:.2f}",
        "device": f"{where.device}, {where.precision}, torch {where.versions['torch']}, {where.wall_seconds:.0f} s",
    }
    width = max(map(len, rows)) + 2
    lines = [f"{name:{width}}{one_line(value)}" for name, value in rows.items() if value is not None]
    return "\n".join([*lines, *(f"note: {one_line(note)}" for note in result.footnotes)])


def _gmacs(result: Result) -> str | None:
    if result.counts is None or result.counts.macs_view is None:
        return None
    one, views = result.counts.macs_view / 1e9, result.cell.clips * result.cell.crops
    return f"{quantity(one, 3)} a view" + (f", {quantity(one * views, 3)} all {views}" if views > 1 else "")
