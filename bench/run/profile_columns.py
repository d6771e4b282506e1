"""The columns of a table of profiles, and rows that are read back from one."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from adapters.base import STRATEGIES
from backbones.families import FAMILIES
from bench.measure.machine import versions
from bench.measure.parts import PARTS
from bench.measure.result import Measured
from bench.run.profile_result import Profile
from bench.run.provenance import sources
from bench.version import commit

COLUMNS = (
    "backbone",
    "weights",
    "strategy",
    "options",
    "input_size",
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
    "train_ms",
    "infer_ms",
    "train_repeats",
    "infer_repeats",
    "warmup_seconds",
    "compiled",
    "compile_seconds",
    "batch_size",
    "micro_batch",
    "precision",
    "compile",
    "checkpoint_activations",
    "device",
    "threads",
    "footnotes",
    "torch",
    "versions",
    "sources",
    "commit",
    "dirty",
    "date",
)
# what makes a row's model the same one, and what must be alike in all rows of a table
MODEL = ("backbone", "weights", "strategy", "options", "input_size", "frames", "views", "classes", "sources")
_USE = ("precision", "batch_size", "compile", "checkpoint_activations")
CONDITIONS = ("commit", "dirty", "versions", "device", "threads", *_USE)
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
    "micro_batch",
)
_MEMORY = ("train_memory", "infer_memory")


def row(profile: Profile) -> dict[str, Any]:
    """A profile as a row, named and in units as in results.csv; what was not measured is None."""
    subject, measured, conditions = profile.subject, profile.measured, profile.conditions
    name = subject.backbone
    hashes = sources(name, family=FAMILIES.get(name.family), strategy=STRATEGIES.get(subject.strategy))
    values: dict[str, Any] = {
        "backbone": name.architecture,
        "weights": name.weights_label,
        "strategy": subject.strategy,
        "options": options_of(profile),
        "input_size": subject.input_size,
        "frames": subject.frames,
        "views": f"{subject.clips}x{subject.crops}",
        "classes": subject.classes,
        "footnotes": "; ".join(profile.footnotes),
        "torch": versions().get("torch"),
        "versions": _pairs(versions()),
        "sources": _pairs(hashes),
        "commit": commit()[0],
        "dirty": commit()[1],
        "date": profile.date,
    }
    if profile.macs:
        values |= {
            "params_m": profile.total_params / 1e6,
            "trained_params_m": profile.trained_params / 1e6,
            "gmacs_view": profile.macs_view / 1e9,
            "gmacs_total": profile.macs_view * subject.views / 1e9,
        }
        for part in PARTS:
            every, trained = profile.params[part]
            values[f"gmacs_view_{part}"] = profile.macs[part] / 1e9
            values[f"params_m_{part}"], values[f"trained_params_m_{part}"] = every / 1e6, trained / 1e6
    if conditions is not None:
        values |= {name: getattr(conditions, name) for name in ("device", "threads", *_USE)}
    if measured is not None:
        values |= {name: getattr(measured, name) for name in _MEASURED}
        values |= {f"{name}_gb": getattr(measured, f"{name}_bytes") / 1e9 for name in _MEMORY}
    return {column: values.get(column) for column in COLUMNS}


def _pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(values.items()))


def options_of(profile: Profile) -> str:
    return _pairs(profile.subject.options)


def texts(profile: Profile) -> dict[str, str]:
    """A row as the file holds it; counts to the digit, measured numbers to six."""
    return {column: _text(column, value) for column, value in row(profile).items()}


def _text(column: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.12g}" if column.startswith(("gmacs", "params", "trained")) else f"{value:.6g}"


def csv_of(rows: Iterable[Mapping[str, str]]) -> str:
    """Rows of texts with their header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_csv(profiles: Iterable[Profile]) -> str:
    """A row each."""
    return csv_of(map(texts, profiles))


def read_back(counted: Profile, found: Mapping[str, str]) -> Profile:
    """The profile of a row: what was counted now, and what was measured then, to the digits that the file holds.

    Raises:
        ValueError: the row holds no measurements, or damaged ones.
    """
    values: dict[str, Any] = {name: found[name] for name in _MEASURED}
    values |= {f"{name}_bytes": round(float(found[f"{name}_gb"]) * 1e9) for name in _MEMORY}
    measured = Measured(
        params=counted.total_params,
        trained_params=counted.trained_params,
        macs_view=counted.macs_view,
        batch_size=int(found["batch_size"]),
        threads=int(found["threads"]),
        device=found["device"],
        busy_cores=0.0,  # the footnotes tell where it was not
        versions=versions(),
        commit=commit()[0],
        **values,
    )
    footnotes = tuple(note for note in found["footnotes"].split("; ") if note)
    return replace(counted, measured=measured, footnotes=footnotes, date=found["date"])
