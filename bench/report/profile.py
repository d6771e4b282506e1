"""Profiles as a table, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.measure.machine import versions
from bench.measure.parts import PARTS, Part
from bench.profile import Profile
from bench.provenance import commit

COLUMNS = (
    "backbone",
    "weights",
    "strategy",
    "options",
    "frames",
    "views",
    "classes",
    "params_m",
    "trained_params_m",
    "gmacs_view",
    "gmacs_total",
    *(f"{quantity}_{part}" for part in PARTS for quantity in ("gmacs_view", "params_m", "trained_params_m")),
    "train_clips_per_s",
    "infer_clips_per_s",
    "train_memory_gb",
    "infer_memory_gb",
    "train_spread",
    "infer_spread",
    "batch_size",
    "micro_batch",
    "precision",
    "device",
    "threads",
    "footnotes",
    "torch",
    "commit",
)


def row(profile: Profile) -> dict[str, Any]:
    """A profile as a row, named and in units as in results.csv; what was not measured is None."""
    subject, measured = profile.subject, profile.measured
    values: dict[str, Any] = {
        "backbone": subject.backbone.architecture,
        "weights": subject.backbone.weights_label,
        "strategy": subject.strategy,
        "options": _options(profile),
        "frames": subject.frames,
        "views": f"{subject.clips}x{subject.crops}",
        "classes": subject.classes,
        "params_m": profile.total_params / 1e6,
        "trained_params_m": profile.trained_params / 1e6,
        "gmacs_view": profile.macs_view / 1e9,
        "gmacs_total": profile.macs_view * subject.views / 1e9,
        "precision": profile.precision,
        "footnotes": "; ".join(profile.footnotes),
        "torch": versions().get("torch"),
        "commit": commit()[0],
    }
    for part in PARTS:
        every, trained = profile.params[part]
        values[f"gmacs_view_{part}"] = profile.macs[part] / 1e9
        values[f"params_m_{part}"], values[f"trained_params_m_{part}"] = every / 1e6, trained / 1e6
    if measured is not None:
        values |= {
            "train_clips_per_s": measured.train_clips_per_s,
            "infer_clips_per_s": measured.infer_clips_per_s,
            "train_memory_gb": measured.train_memory_bytes / 1e9,
            "infer_memory_gb": measured.infer_memory_bytes / 1e9,
            "train_spread": measured.train_spread,
            "infer_spread": measured.infer_spread,
            "batch_size": measured.batch_size,
            "micro_batch": measured.micro_batch,
            "device": measured.device,
            "threads": measured.threads,
        }
    return {column: values.get(column) for column in COLUMNS}


def to_csv(profiles: Sequence[Profile]) -> str:
    """A row each; counts to the digit, measured numbers to six."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for profile in profiles:
        writer.writerow({column: _number(column, value) for column, value in row(profile).items()})
    return text.getvalue()


def _number(column: str, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.12g}" if column.startswith(("gmacs", "params", "trained")) else f"{value:.6g}"


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
                "frames": subject.frames,
                "clips": subject.clips,
                "crops": subject.crops,
                "classes": subject.classes,
                "params": profile.total_params,
                "trained_params": profile.trained_params,
                "macs_view": profile.macs_view,
                "macs_total": profile.macs_view * subject.views,
                "parts": {
                    part: {
                        "macs_view": profile.macs[part],
                        "params": profile.params[part][0],
                        "trained_params": profile.params[part][1],
                    }
                    for part in PARTS
                },
                "precision": profile.precision,
                "measured": None if profile.measured is None else profile.measured.model_dump(mode="json"),
                "footnotes": list(profile.footnotes),
            }
        )
    return json.dumps(listed, indent=2) + "\n"


def table(profiles: Sequence[Profile]) -> Group:
    """Of one profile a line for each part, of several a line for each of them."""
    (body, notes) = (_parts(profiles[0]), list(profiles[0].footnotes)) if len(profiles) == 1 else _rows(profiles)
    marked = len(profiles) > 1
    below = [Text(f"{number} {note}" if marked else note) for number, note in enumerate(notes, start=1)]
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
            f"{macs / 1e9:.3f}",
            f"{macs * subject.views / 1e9:.3f}",
            f"{100 * macs / whole:.1f}",
            f"{every / 1e6:.3f}",
            f"{trained / 1e6:.3f}",
        )
    parts: list[RenderableType] = [Text(f"{subject.backbone} {subject.strategy}", style="bold")]
    if options := _options(profile):
        parts.append(Text(options))
    parts += [Text(), counts]
    if measured is not None:
        speed = _grid("", "clips/s", "spread %", "memory GB")
        for name, rate, spread, held in (
            ("training", measured.train_clips_per_s, measured.train_spread, measured.train_memory_bytes),
            ("inference", measured.infer_clips_per_s, measured.infer_spread, measured.infer_memory_bytes),
        ):
            speed.add_row(name, f"{rate:.3g}" if rate < 100 else f"{rate:.0f}", f"{100 * spread:.1f}", _gb(held))
        parts += [Text(), speed]
    return Group(*parts)


def _rows(profiles: Sequence[Profile]) -> tuple[Table, list[str]]:
    shown = _shown(profiles)
    timed = any(profile.measured or profile.failed for profile in profiles)
    differing = _differing(profiles)
    texts = ["backbone", "strategy", *(name.replace("_", " ") for name in differing), "frames"]
    numbers = ["params M", "trained M", "GMACs of all views", "of one", *map(_name, shown)]
    numbers += ["train clips/s", "infer clips/s", "train GB", "infer GB"] if timed else []
    grid = _grid(*texts, *numbers, texts=2)
    notes: dict[str, int] = {}
    for profile in profiles:
        subject, measured = profile.subject, profile.measured
        marks = ",".join(str(notes.setdefault(note, len(notes) + 1)) for note in profile.footnotes)
        cells = [
            str(subject.backbone),
            f"{subject.strategy} ({marks})" if marks else subject.strategy,
            *(str(subject.options.get(name, "-")) for name in differing),
            str(subject.frames),
            f"{profile.total_params / 1e6:.2f}",
            f"{profile.trained_params / 1e6:.3f}",
            f"{profile.macs_view * subject.views / 1e9:.3f}",
            f"{profile.macs_view / 1e9:.3f}",
            *(f"{profile.macs[part] / 1e9:.3f}" for part in shown),
        ]
        if measured is not None:
            cells += [
                *(f"{rate:.3g}" for rate in (measured.train_clips_per_s, measured.infer_clips_per_s)),
                _gb(measured.train_memory_bytes),
                _gb(measured.infer_memory_bytes),
            ]
        grid.add_row(*cells, *(["-"] * (len(texts) + len(numbers) - len(cells))))
    return grid, list(notes)


def _grid(*headers: str, texts: int = 1) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        grid.add_column(header, justify="left" if index < texts else "right", overflow="fold")
    return grid


def _shown(profiles: Sequence[Profile]) -> list[Part]:
    """The parts that compute or hold anything."""
    return [part for part in PARTS if any(p.macs[part] or p.params[part][0] for p in profiles)]


def _name(part: Part) -> str:
    return "MLP" if part == "mlp" else part.replace("_", " ")


def _gb(held: int) -> str:
    return f"{held / 1e9:.3f}"


def _options(profile: Profile) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(profile.subject.options.items()))


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
    frames = ", ".join(dict.fromkeys(str(profile.subject.frames) for profile in profiles))
    lines = [f"{frames} frames, {subject.clips}x{subject.crops} views (clips x crops), {subject.classes} classes"]
    if len(profiles) > 1 and (shared := {n: v[0] for n, v in _option_values(profiles).items() if len(v) == 1}):
        lines.append(" ".join(f"{name}={value}" for name, value in shared.items()))
    speeds = dict.fromkeys(
        f"{m.device}, {profile.precision}, batch {m.batch_size}"
        + (f", {m.threads} thread{'s' if m.threads > 1 else ''}" if m.device.startswith("CPU") else "")
        for profile in profiles
        if (m := profile.measured)
    )
    return [*lines, f"speed and memory: {'; '.join(speeds)}"] if speeds else lines
