"""Views as they are written, and what becomes of them in a matrix."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.data.cache import FrameCache
from bench.data.dataset import DATASETS, Video
from bench.data.decode_pool import Reading
from bench.errors import UserError
from bench.report.table import make_table
from bench.run.context import WorkerContext
from bench.run.loaders import Loaders
from bench.run.matrix import expand
from bench.spec.source import Views, parse_views
from tests.bench import make


@pytest.mark.parametrize(
    ("text", "views"),
    [("3x1", Views(3, 1)), (" 10 × 3 ", Views(10, 3)), ("1x1@256", Views(1, 1, 256)), ("4x3 @ 240", Views(4, 3, 240))],
)
def test_views_are_read_and_written_alike(text: str, views: Views) -> None:
    assert parse_views(text) == views and parse_views(str(views)) == views


def test_a_cell_tells_its_views_in_its_protocol_its_key_and_its_table() -> None:
    plain, larger = make.cell(clips=1), make.cell(clips=1, view_side=256)
    assert (plain.protocol, larger.protocol) == ("8x1x1", "8x1x1@256")
    assert plain.key != larger.key and plain.model_key() == larger.model_key()
    sheet = make_table([make.done(plain), make.done(larger)])
    assert [row.labels["views"] for row in sheet.rows] == ["1x1", "1x1@256"]


def cells(**changes: Any) -> list[Any]:
    return list(expand(make.matrix(device="cpu", **changes)).cells)


def test_a_matrix_has_the_views_that_are_asked_for() -> None:
    (plain,), (three,), (larger,) = cells(), cells(views="1x3"), cells(views="1x1@37")
    assert (plain.views, three.views, larger.views) == (Views(1, 1), Views(1, 3), Views(1, 1, 37))
    assert len({plain.key, three.key, larger.key}) == 3
    # the input's own side is not another view and so no other cell
    assert cells(views="1x1@32")[0].key == plain.key


def problems(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(UserError) as error:
        cells(**changes)
    return error.value.problems


def test_views_that_cannot_be_are_told_once() -> None:
    both = "vit:tiny@none,clip:tiny@none"
    assert problems(views="2x1@31", backbones=both, strategies="joint,frozen", seeds="0,1") == (
        "clips is 2: motion is sampled over the whole video, one clip covers it, expected 1",
        "views is '2x1@31': vit:tiny is shown 32 pixels, expected a short side of at least 32",
        "views is '2x1@31': clip:tiny is shown 32 pixels, expected a short side of at least 32",
    )


@pytest.mark.parametrize(("flag", "problem"), [("2x2", "expected 1 crop"), ("3", "expected clips x crops")])
def test_views_of_a_command_are_checked(flag: str, problem: str, bench: Any) -> None:
    said = bench("run", "--views", flag, "--backbones", "vit:tiny@none", "--strategies", "jiont", "--dry-run")
    assert said.code == 2 and len(said.problems) == 2
    assert said.problems[0].startswith(f"views is {flag!r}: {problem}")


def test_diving48_is_tested_with_one_view_where_nothing_is_asked() -> None:
    data = DATASETS.get("diving48")
    assert (data.clips, data.crops, data.sampling) == (1, 1, "uniform")


def test_a_training_is_tested_with_its_views_and_validated_as_ever(tmp_path: Path) -> None:
    """From frames that are as large as its crops need them, in the test alone."""
    video = Video(tmp_path / "a.mp4", 0, "a.mp4")
    video.path.touch()
    own = SimpleNamespace(stride=lambda _: 4)
    data = SimpleNamespace(
        sampling="dense", content="", small=True, classes=("a",), defaults=lambda *_: own, videos=lambda _: (video,)
    )
    context = WorkerContext(torch.device("cpu"), Reading(), "bench run", FrameCache())
    cell = make.cell(clips=2, crops=3, view_side=288)
    loaders = Loaders(cell, data, 224, (0.5, 0.5, 0.5), context)  # type: ignore[arg-type]
    train, val, test = (loader._clips for loader in loaders._loaders.values())
    assert (test.clips, test.crops, test.transform.short_side, test.short_side) == (2, 3, 288, 288)
    assert (val.clips, val.crops, val.transform.short_side, val.short_side) == (1, 1, 256, 256)
    assert train.short_side == 256
