"""Costs of models, as `bench profile` shows them: the parts of one, or several side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.measure.parts import PARTS, Part
from bench.measure.result import Measured
from bench.run.columns import options_of
from bench.run.result import PartCounts, Result
from bench.spec import sized_label
from bench.text import counted, one_line, quantity


def table(results: Sequence[Result], whole: bool = False) -> Group:
    """Of one profile a line for each part, of several a line for each of them: with its parts, or with its speed.

    Args:
        whole: a line for each, whatever their number.
    """
    marked = len(results) > 1 or whole
    (body, notes) = _rows(results) if marked else (_parts(results[0]), list(results[0].footnotes))
    below = [Text(one_line(f"{number} {note}" if marked else note)) for number, note in enumerate(notes, start=1)]
    return Group(body, Text(), *below, *(Text(line, style="dim") for line in _caption(results)))


def _parts(result: Result) -> Group:
    cell, measured, counts = result.cell, result.measured, result.counts
    grid = _grid("part", "GMACs a view", f"of all {cell.clips * cell.crops}", "share %", "params M", "trained M")
    if counts is not None:
        whole = counts.macs_view or 0
        total = PartCounts(macs_view=whole, params=counts.params, trained_params=counts.trained_params)
        for name, part in [*((_name(part), counts.parts[part]) for part in _shown([result])), ("total", total)]:
            grid.add_row(
                name,
                _billions(part.macs_view),
                _billions(part.macs_view * cell.clips * cell.crops),
                f"{100 * part.macs_view / whole:.1f}",
                quantity(part.params / 1e6, 3),
                quantity(part.trained_params / 1e6, 3),
            )
    parts: list[RenderableType] = [Text(f"{_backbone(result)} {cell.strategy}", style="bold")]
    if options := options_of(result):
        parts.append(Text(options))
    parts += [Text(), grid]
    if measured is not None:
        speed = _grid("", "clips/s", "ms", "spread %", "repeats", "memory GB")
        for name, rate, ms, spread, repeats, held in (
            (
                "training",
                measured.train_clips_per_s,
                measured.train_ms,
                measured.train_spread,
                measured.train_repeats,
                measured.train_memory_bytes,
            ),
            (
                "inference",
                measured.infer_clips_per_s,
                measured.infer_ms,
                measured.infer_spread,
                measured.infer_repeats,
                measured.infer_memory_bytes,
            ),
        ):
            speed.add_row(name, _rate(rate), _rate(ms), _percent(spread), str(repeats or "-"), _billions(held))
        compiling = f", {measured.compile_seconds:.1f} s of compiling" if measured.compiled else ""
        parts += [Text(), speed, Text(f"after {measured.warmup_seconds:.1f} s of warm-up{compiling}", style="dim")]
    return Group(*parts)


def _rows(results: Sequence[Result]) -> tuple[Table, list[str]]:
    timed = any(result.measured or result.status != "done" for result in results)
    shown = [] if timed else _shown(results)  # both are more than a terminal has room for
    compiled = any(result.measured.compiled for result in results if result.measured)
    differing = _differing(results)
    texts = ["backbone", "strategy", *(name.replace("_", " ") for name in differing), "frames"]
    numbers = ["params M", "trained M", "GMACs of all views", "of one", *map(_name, shown)]
    numbers += _SPEEDS if timed else []
    numbers += ["compiling s"] if compiled else []
    grid = _grid(*texts, *numbers, texts=2)
    notes: dict[str, int] = {}
    for result in results:
        cell, measured, counts = result.cell, result.measured, result.counts
        marks = ",".join(str(notes.setdefault(note, len(notes) + 1)) for note in result.footnotes)
        cells = [
            one_line(_backbone(result)),
            f"{cell.strategy} ({marks})" if marks else cell.strategy,
            *(str(cell.options.get(name, "-")) for name in differing),
            str(cell.frames),
        ]
        if counts is not None:
            macs = counts.macs_view or 0
            cells += [
                quantity(counts.params / 1e6, 2),
                quantity(counts.trained_params / 1e6, 3),
                _billions(macs * cell.clips * cell.crops),
                _billions(macs),
                *(_billions(counts.parts[part].macs_view) for part in shown),
            ]
        if measured is not None:
            cells += [*_speeds(measured), *([f"{measured.compile_seconds:.1f}"] if compiled else [])]
        grid.add_row(*cells, *(["-"] * (len(texts) + len(numbers) - len(cells))))
    return grid, list(notes)


_SPEEDS = [
    "train clips/s",
    "train ms",
    "spread %",
    "infer clips/s",
    "infer ms",
    "spread %",
    "train GB",
    "infer GB",
    "batch",
    "warm-up s",
]


def _speeds(measured: Measured) -> list[str]:
    """In the order of `_SPEEDS`."""
    return [
        _rate(measured.train_clips_per_s),
        _rate(measured.train_ms),
        _percent(measured.train_spread),
        _rate(measured.infer_clips_per_s),
        _rate(measured.infer_ms),
        _percent(measured.infer_spread),
        _billions(measured.train_memory_bytes),
        _billions(measured.infer_memory_bytes),
        str(measured.batch_size),
        f"{measured.warmup_seconds:.1f}",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _rate(value: float | None) -> str:
    return "-" if value is None else quantity(value, 0)


def _grid(*headers: str, texts: int = 1) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        grid.add_column(header, justify="left" if index < texts else "right", overflow="fold")
    return grid


def _backbone(result: Result) -> str:
    """The backbone as it is named on a command line, and its input size where that is not its own."""
    return sized_label(str(result.cell.backbone_name), result.cell.input_size)


def _shown(results: Sequence[Result]) -> list[Part]:
    """The parts that compute or hold anything."""
    found = [result.counts.parts for result in results if result.counts]
    return [part for part in PARTS if any(parts[part].macs_view or parts[part].params for parts in found)]


def _name(part: Part) -> str:
    return "MLP" if part == "mlp" else part.replace("_", " ")


def _billions(count: int | None) -> str:
    return "-" if count is None else quantity(count / 1e9, 3)


def _option_values(results: Sequence[Result]) -> dict[str, list[str]]:
    """Option -> its values among the models that take it, each once."""
    values: dict[str, dict[str, None]] = {}
    for result in results:
        for name, value in result.cell.options.items():
            values.setdefault(name, {})[str(value)] = None
    return {name: list(found) for name, found in sorted(values.items())}


def _differing(results: Sequence[Result]) -> list[str]:
    """The options that tell models apart, as the tubelet does a Swin from others."""
    return [name for name, found in _option_values(results).items() if len(found) > 1]


def _caption(results: Sequence[Result]) -> list[str]:
    views = ", ".join(dict.fromkeys(str(result.cell.views) for result in results))
    frames = ", ".join(dict.fromkeys(str(result.cell.frames) for result in results))
    frames += " frame" if frames == "1" else " frames"
    classes = counted(results[0].cell.classes or 0, "class", "classes")
    lines = [f"{frames}, {views} views (clips x crops), {classes}"]
    if len(results) > 1 and (shared := {n: v[0] for n, v in _option_values(results).items() if len(v) == 1}):
        lines.append(" ".join(f"{name}={value}" for name, value in shared.items()))
    speeds = dict.fromkeys(
        f"{m.device}, {result.cell.precision}, batch {m.batch_size}"
        + (f", {counted(m.threads, 'thread')}" if m.device.startswith("CPU") else "")
        + (", compiled" if m.compiled else "")
        + (", activations recomputed" if result.cell.checkpoint_activations else "")
        for result in results
        if (m := result.measured)
    )
    return [*lines, f"speed and memory: {'; '.join(speeds)}"] if speeds else lines
