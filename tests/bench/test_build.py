"""From a cell to its model: what the recipe says of the model reaches it."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.adapter import Adapter
from adapters.classifier import VideoClassifier
from bench.run.build import classifier
from tests.bench import make


def _model(**recipe: Any) -> VideoClassifier:
    return classifier(make.cell(recipe=recipe), 10)


def test_drop_path_and_its_mode() -> None:
    last = _model(drop_path=0.3, drop_path_mode="released").body.blocks[-1]
    assert last.drop_path.rate == pytest.approx(0.3) and last.drop_path.axes == ("clip", "frame")
    assert _model().body.blocks[-1].drop_path.axes == ("clip",)


def test_dropout() -> None:
    assert _model(dropout=0.25).head.dropout.p == 0.25


@pytest.mark.parametrize("start", ["released", "torch"])
def test_the_start_of_the_adapters(start: str) -> None:
    first = next(module for module in _model(adapter_init=start).modules() if isinstance(module, Adapter))
    assert bool(first.down.bias.any()) is (start == "torch")
