"""Accuracies of the classes of an evaluation as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.stats.per_class import ClassAccuracy
from bench.text import one_line

_HEADERS = ("class", "videos", "top-1 %", "most taken for")
_SHOWN = 48  # letters of a class's name in a terminal


def render(classes: Sequence[ClassAccuracy]) -> str:
    """A line a class, in the order of the labels."""
    lines = [list(_HEADERS)]
    for each in classes:
        told = f"{_short(each.confused_with)} ({each.confused:,})" if each.confused_with is not None else ""
        top1 = "-" if each.top1 is None else f"{each.top1:.1f}"
        lines.append([_short(each.name), f"{each.videos:,}", top1, told])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        f"{name:{widths[0]}}  {videos:>{widths[1]}}  {top1:>{widths[2]}}  {told}".rstrip()
        for name, videos, top1, told in lines
    ]
    return "\n".join(texts) + "\n"


def _short(name: str) -> str:
    text = one_line(name)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def records(classes: Sequence[ClassAccuracy]) -> list[dict[str, Any]]:
    """A mapping a class: label, name, videos, right, confused_with, confused and top1."""
    return [{**asdict(each), "top1": each.top1} for each in classes]


def to_csv(classes: Sequence[ClassAccuracy]) -> str:
    """A row a class; empty where there is no value."""
    file = io.StringIO()
    names = ("label", "name", "videos", "right", "top1", "confused_with", "confused")
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records(classes))
    return file.getvalue()
