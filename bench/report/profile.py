"""Profiles as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.measure.parts import PARTS, Part
from bench.measure.result import Measured
from bench.run.profile_columns import options_of
from bench.run.profile_result import Profile
from bench.text import counted, one_line, quantity
from bench.version import commit


def to_json(profiles: Sequence[Profile]) -> str:
    """A list of objects; counts are whole numbers, not millions of parameters and GMACs."""
    listed = []
    for profile in profiles:
        subject = profile.subject
        listed.append(
            {
                "backbone": subject.backbone.architecture,
                "weights": subject.backbone.weights_label,
                "strategy": subject.strategy,
                "options": dict(subject.options),
                "input_size": subject.input_size,
                "frames": subject.frames,
                "clips": subject.clips,
                "crops": subject.crops,
                "classes": subject.classes,
                "params": profile.total_params if profile.macs else None,
                "trained_params": profile.trained_params if profile.macs else None,
                "macs_view": profile.macs_view if profile.macs else None,
                "macs_total": profile.macs_view * subject.views if profile.macs else None,
                "parts": {
                    part: {
                        "macs_view": profile.macs[part],
                        "params": profile.params[part][0],
                        "trained_params": profile.params[part][1],
                    }
                    for part in PARTS
                    if profile.macs
                },
                "precision": profile.precision,
                "measured": None if profile.measured is None else profile.measured.model_dump(mode="json"),
                "footnotes": list(profile.footnotes),
                "dirty": commit()[1],
                "date": profile.date,
            }
        )
    return json.dumps(listed, indent=2) + "\n"


def table(profiles: Sequence[Profile], whole: bool = False) -> Group:
    """Of one profile a line for each part, of several a line for each of them: with its parts, or with its speed.

    Args:
        whole: a line for each, whatever their number.
    """
    marked = len(profiles) > 1 or whole
    (body, notes) = _rows(profiles) if marked else (_parts(profiles[0]), list(profiles[0].footnotes))
    below = [Text(one_line(f"{number} {note}" if marked else note)) for number, note in enumerate(notes, start=1)]
    return Group(body, Text(), *below, *(Text(line, style="dim") for line in _caption(profiles)))


def _parts(profile: Profile) -> Group:
    subject, measured = profile.subject, profile.measured
    counts = _grid("part", "GMACs a view", f"of all {subject.views}", "share %", "params M", "trained M")
    whole = profile.macs_view
    lines: list[tuple[str, int, tuple[int, int]]] = [
        (_name(part), profile.macs[part], profile.params[part]) for part in _shown([profile])
    ]
    for name, macs, (every, trained) in [*lines, ("total", whole, (profile.total_params, profile.trained_params))]:
        counts.add_row(
            name,
            _billions(macs),
            _billions(macs * subject.views),
            f"{100 * macs / whole:.1f}",
            quantity(every / 1e6, 3),
            quantity(trained / 1e6, 3),
        )
    parts: list[RenderableType] = [Text(f"{subject.backbone_label} {subject.strategy}", style="bold")]
    if options := options_of(profile):
        parts.append(Text(options))
    parts += [Text(), counts]
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
            speed.add_row(name, _rate(rate), _rate(ms), f"{100 * spread:.1f}", str(repeats), _billions(held))
        compiling = f", {measured.compile_seconds:.1f} s of compiling" if measured.compiled else ""
        parts += [Text(), speed, Text(f"after {measured.warmup_seconds:.1f} s of warm-up{compiling}", style="dim")]
    return Group(*parts)


def _rows(profiles: Sequence[Profile]) -> tuple[Table, list[str]]:
    timed = any(profile.measured or profile.failed for profile in profiles)
    shown = [] if timed else _shown(profiles)  # both are more than a terminal has room for
    compiled = any(profile.measured.compiled for profile in profiles if profile.measured)
    differing = _differing(profiles)
    texts = ["backbone", "strategy", *(name.replace("_", " ") for name in differing), "frames"]
    numbers = ["params M", "trained M", "GMACs of all views", "of one", *map(_name, shown)]
    numbers += _SPEEDS if timed else []
    numbers += ["compiling s"] if compiled else []
    grid = _grid(*texts, *numbers, texts=2)
    notes: dict[str, int] = {}
    for profile in profiles:
        subject, measured = profile.subject, profile.measured
        marks = ",".join(str(notes.setdefault(note, len(notes) + 1)) for note in profile.footnotes)
        cells = [
            one_line(subject.backbone_label),
            f"{subject.strategy} ({marks})" if marks else subject.strategy,
            *(str(subject.options.get(name, "-")) for name in differing),
            str(subject.frames),
        ]
        if profile.macs:
            cells += [
                quantity(profile.total_params / 1e6, 2),
                quantity(profile.trained_params / 1e6, 3),
                _billions(profile.macs_view * subject.views),
                _billions(profile.macs_view),
                *(_billions(profile.macs[part]) for part in shown),
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
        f"{100 * measured.train_spread:.1f}",
        _rate(measured.infer_clips_per_s),
        _rate(measured.infer_ms),
        f"{100 * measured.infer_spread:.1f}",
        _billions(measured.train_memory_bytes),
        _billions(measured.infer_memory_bytes),
        str(measured.batch_size),
        f"{measured.warmup_seconds:.1f}",
    ]


def _rate(value: float | None) -> str:
    return "-" if value is None else quantity(value, 0)


def _grid(*headers: str, texts: int = 1) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        grid.add_column(header, justify="left" if index < texts else "right", overflow="fold")
    return grid


def _shown(profiles: Sequence[Profile]) -> list[Part]:
    """The parts that compute or hold anything."""
    return [part for part in PARTS if any(p.macs[part] or p.params[part][0] for p in profiles if p.macs)]


def _name(part: Part) -> str:
    return "MLP" if part == "mlp" else part.replace("_", " ")


def _billions(count: int) -> str:
    return quantity(count / 1e9, 3)


def _option_values(profiles: Sequence[Profile]) -> dict[str, list[str]]:
    """Option -> its values among the models that take it, each once."""
    values: dict[str, dict[str, None]] = {}
    for profile in profiles:
        for name, value in profile.subject.options.items():
            values.setdefault(name, {})[str(value)] = None
    return {name: list(found) for name, found in sorted(values.items())}


def _differing(profiles: Sequence[Profile]) -> list[str]:
    """The options that tell models apart, as the tubelet does a Swin from others."""
    return [name for name, found in _option_values(profiles).items() if len(found) > 1]


def _caption(profiles: Sequence[Profile]) -> list[str]:
    subject = profiles[0].subject
    views = ", ".join(dict.fromkeys(f"{profile.subject.clips}x{profile.subject.crops}" for profile in profiles))
    frames = ", ".join(dict.fromkeys(str(profile.subject.frames) for profile in profiles))
    frames += " frame" if frames == "1" else " frames"
    lines = [f"{frames}, {views} views (clips x crops), {counted(subject.classes, 'class', 'classes')}"]
    if len(profiles) > 1 and (shared := {n: v[0] for n, v in _option_values(profiles).items() if len(v) == 1}):
        lines.append(" ".join(f"{name}={value}" for name, value in shared.items()))
    speeds = dict.fromkeys(
        f"{m.device}, {profile.precision}, batch {m.batch_size}"
        + (f", {counted(m.threads, 'thread')}" if m.device.startswith("CPU") else "")
        + (", compiled" if m.compiled else "")
        + (", activations recomputed" if profile.conditions and profile.conditions.checkpoint_activations else "")
        for profile in profiles
        if (m := profile.measured)
    )
    return [*lines, f"speed and memory: {'; '.join(speeds)}"] if speeds else lines
