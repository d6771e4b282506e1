"""Every count that AIM's tables print, found in the built models to every printed digit.

Rules that the tables follow where they do not simply round what a model has are stated with each of them.
"""

from __future__ import annotations

import csv
import math
from functools import cache
from pathlib import Path

import pytest

from bench.measure.counts import macs
from bench.measure.params import count
from tests.models import without_numbers
from tests.reference import macs as closed

Row = dict[str, str]
TABLES = Path(__file__).parents[2] / "results" / "aim_paper.csv"
CLASSES = {"ssv2": 174, "k400": 400, "k700": 700, "diving48": 48}
BACKBONES = {
    ("ViT-B/16", "IN-21K"): "vit:vit_base_patch16_224@none",
    ("ViT-B/16", "CLIP"): "clip:ViT-B-16@none",
    ("ViT-L/14", "CLIP"): "clip:ViT-L-14@none",
    ("Swin-B", "IN-21K"): "swin:swin_base_patch4_window7_224@none",
}
STRATEGIES = {
    "frozen space-only": "frozen",
    "finetuned space-only": "full",
    "finetuned space-time (TimeSformer)": "timesformer",
    "spatial adaptation": "spatial",
    "spatial + temporal adaptation": "temporal",
}
OPTIONS = {
    "AIM bottom 6 blocks": {"blocks": "bottom"},
    "AIM top 6 blocks": {"blocks": "top"},
    "AIM every second block": {"blocks": "second"},
    "AIM ratio 0.0625": {"ratio": 0.0625},
    "AIM ratio 0.125": {"ratio": 0.125},
    "AIM ratio 0.5": {"ratio": 0.5},
}


def _rows() -> list[Row]:
    with TABLES.open(encoding="utf-8") as file:
        # the video Swin that Table 6 compares with has windows over time: no strategy of ours makes one
        return [row for row in csv.DictReader(file) if row["method"] != "VideoSwin-B"]


def _id(row: Row) -> str:
    return f"{row['source']}-{row['method']}-{row['backbone']}-{row['pretrain']}-{row['frames']}f"


def _model(row: Row) -> tuple[str, str, tuple[tuple[str, object], ...]]:
    method = row["method"]
    strategy = STRATEGIES.get(method, "timesformer" if method.startswith("TimeSformer") else "joint")
    options: dict[str, object] = dict(OPTIONS.get(method, {}))
    if row["dataset"] == "ssv2" and strategy in ("temporal", "joint"):
        options["temporal_adapters"] = 2
    return BACKBONES[row["backbone"], row["pretrain"]], strategy, tuple(options.items())


@cache
def _params(name: str, strategy: str, options: tuple, frames: int, classes: int) -> tuple[int, int]:
    return count(without_numbers(name, strategy, frames, classes, **dict(options)))


@cache
def _gmacs(name: str, strategy: str, options: tuple, frames: int, classes: int) -> float:
    return macs(without_numbers(name, strategy, frames, classes, **dict(options))) / 1e9


# --- parameters: rounded to the printed digit, but these are cut off there (50.6 is printed as 50) ---

CUT = {
    ("AIM Table 3", "AIM", "ViT-L/14", "tunable_m"),
    ("AIM Table 4", "AIM", "ViT-L/14", "params_m"),
    ("AIM Table 4", "AIM", "ViT-L/14", "tunable_m"),
    ("AIM Table 8", "AIM ratio 0.125", "ViT-B/16", "tunable_m"),
    ("AIM Table 8", "AIM ratio 0.5", "ViT-B/16", "tunable_m"),
} | {
    (source, method, "ViT-B/16", column)
    for source, method in [
        ("AIM Table 6", "TimeSformer"),
        *(("AIM Figure 3", f"TimeSformer {share}% of the training data") for share in (1, 10, 50)),
    ]
    for column in ("params_m", "tunable_m")
}


@pytest.mark.parametrize("row", _rows(), ids=_id)
def test_parameters(row: Row) -> None:
    found = _params(*_model(row), int(row["frames"]), CLASSES[row["dataset"]])
    for column, number in zip(("params_m", "tunable_m"), found, strict=True):
        if printed := row[column]:
            digits = len(printed.partition(".")[2])
            rounded = f"{number / 1e6:.{digits}f}"
            cut = f"{math.floor(number / 1e6 * 10**digits) / 10**digits:.{digits}f}"
            if (row["source"], row["method"], row["backbone"], column) in CUT:
                assert cut == printed != rounded
            else:
                assert rounded == printed


def test_the_rows_that_are_cut_are_there() -> None:
    found = {(row["source"], row["method"], row["backbone"], c) for row in _rows() for c in ("params_m", "tunable_m")}
    assert found >= CUT


# --- multiply-accumulates ---


def _half_up(number: float) -> int:
    return math.floor(number + 0.5)


def _three_views(row: Row, frames: int) -> int:
    """Return what Tables 2 and 3 print for a model: all views of a clip of so many frames, in GMACs.

    8 frames: one view, to one decimal, then to a whole number, then times three (933.48, 933.5, 934, 2802). Twice the
    frames: twice that number, though attention over time takes more; but CLIP ViT-B/16 on Kinetics-400 in 16 frames is
    three times what the model of 16 frames takes (404.64, 1214).
    """
    name, strategy, options = _model(row)
    classes = 174 if row["dataset"] == "ssv2" else 400  # Tables 4 and 5 take over Table 2's numbers
    if frames == 16 and (row["backbone"], classes) == ("ViT-B/16", 400):
        return _half_up(3 * _gmacs(name, strategy, options, 16, classes))
    if frames > 8:
        return 2 * _three_views(row, frames // 2)
    return 3 * _half_up(round(_gmacs(name, strategy, options, 8, classes), 1))


GMACS = [row for row in _rows() if row["gmacs_all_views"]]


@pytest.mark.parametrize("row", GMACS, ids=_id)
def test_gmacs_of_all_views(row: Row) -> None:
    views = int(row["temporal_views"]) * int(row["spatial_views"])
    assert _half_up(_three_views(row, int(row["frames"])) * views / 3) == int(row["gmacs_all_views"])


@pytest.mark.parametrize("row", GMACS, ids=_id)
def test_what_the_printed_gmacs_leave_out_grows_with_the_square_of_the_frames(row: Row) -> None:
    """The model of the row itself: its own count is the printed one, but for rounding and that square."""
    frames, views = int(row["frames"]), int(row["temporal_views"]) * int(row["spatial_views"])
    classes = CLASSES[row["dataset"]]
    own = _gmacs(*_model(row), frames, classes)
    shape = {"side": 224, "patch": 16, "width": 768, "depth": 12}
    if row["backbone"] == "ViT-L/14":
        shape = {"side": 224, "patch": 14, "width": 1024, "depth": 24}
    times = frames // 8
    square = closed.quadratic(**shape, frames=frames) - times * closed.quadratic(**shape, frames=8)
    head = (times - 1) * shape["width"] * classes  # once a clip
    eight = _gmacs(*_model(row), 8, classes)
    assert own == pytest.approx(times * eight + (square - head) / 1e9, rel=1e-9)
    # to within half of a view's GMAC, times as many as the row's frames hold eights
    assert int(row["gmacs_all_views"]) == pytest.approx(views * (own - square / 1e9), abs=views * times * 0.55)
