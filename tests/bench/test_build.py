"""From a cell to its model: what the recipe says of the model reaches it."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.model import VideoClassifier
from bench.build import classifier
from tests.bench import make


def _model(**recipe: Any) -> VideoClassifier:
    return classifier(make.cell(recipe=recipe), 10)


def test_drop_path_and_its_mode() -> None:
    last = _model(drop_path=0.3, drop_path_mode="released").blocks[-1]
    assert last.drop_path.rate == pytest.approx(0.3) and last.drop_path.axes == ("clip", "frame")
    assert _model().blocks[-1].drop_path.axes == ("clip",)


def test_dropout() -> None:
    assert _model(dropout=0.25).dropout.p == 0.25
