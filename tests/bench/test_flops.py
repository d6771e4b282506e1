"""Counted multiply-accumulates against closed forms and the paper's tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from adapters.model import VideoClassifier
from adapters.strategy import STRATEGIES
from backbones.families import build, resolve
from bench.measure.flops import UncountedOperation, macs
from tests.models import CLASSES, NAMES, model
from tests.reference import macs as closed

PARTS = {
    "frozen": {},
    "full": {},
    "timesformer": {"time": "own"},
    "spatial": {"spatial": True},
    "temporal": {"spatial": True, "time": "shared"},
    "joint": {"spatial": True, "time": "shared", "joint": True},
}


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("frames", [3, 8])
@pytest.mark.parametrize("family", ["vit", "clip"])
def test_tiny_vit_and_clip_agree_with_the_closed_form(family: str, frames: int, strategy: str) -> None:
    expected = closed.vit(side=32, patch=8, width=96, depth=4, frames=frames, classes=CLASSES, **PARTS[strategy])
    assert macs(model(family, strategy, frames=frames)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("frames", [3, 8])
def test_tiny_swin_agrees_with_the_closed_form(frames: int, strategy: str) -> None:
    shape = {"side": 32, "patch": 4, "width": 64, "depths": (2, 2), "window": 4, "frames": frames, "classes": CLASSES}
    over_time = strategy in ("temporal", "joint")
    for tubelet in (1, 2):
        if frames % tubelet == 0 and (over_time or tubelet == 1):
            expected = closed.swin(**shape, tubelet=tubelet, **PARTS[strategy])
            adapted = model("swin", strategy, frames=frames, **({"tubelet": tubelet} if over_time else {}))
            assert macs(adapted) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "classes", "options", "views", "printed"),
    [
        ("clip:ViT-B-16@none", 400, {}, 3, 606),  # Table 2
        ("clip:ViT-B-16@none", 174, {"temporal_adapters": 2}, 3, 624),  # Table 3, three times 208 as rounded
        pytest.param("clip:ViT-L-14@none", 400, {}, 3, 2802, marks=pytest.mark.slow),  # Table 2
    ],
)
def test_published_gmacs_of_all_views(name: str, classes: int, options: dict, views: int, printed: int) -> None:
    strategy = STRATEGIES.get("joint")
    adapted = VideoClassifier(
        build(resolve(name, "base")), strategy, strategy.options(**options), classes=classes, frames=8
    )
    counted = macs(adapted) / 1e9
    # the paper rounds one view before it multiplies by the views in some rows, after it in others
    assert printed in (round(counted * views), round(counted) * views)


def test_attention_is_counted() -> None:
    with_two, with_four = (macs(model("vit", "frozen", frames=f)) for f in (2, 4))
    assert with_four - CLASSES * 96 == 2 * (with_two - CLASSES * 96)
    plain = closed.vit(side=32, patch=8, width=96, depth=4, frames=2, classes=CLASSES)
    without_attention = plain - 4 * 2 * 2 * 17 * 17 * 96
    assert with_two > 1.005 * without_attention


def test_products_that_nothing_counts_are_an_error_not_a_zero() -> None:
    adapted = model("vit", "frozen")

    class Uncounted(nn.Module):
        def forward(self, x):
            return torch.baddbmm(torch.zeros(len(x), 1, 1), x[:, None], x[:, :, None]).squeeze(1) + x.mean(
                1, keepdim=True
            )

    adapted.head = nn.Sequential(adapted.head, Uncounted())
    with pytest.raises(UncountedOperation, match="baddbmm"):
        macs(adapted)


@pytest.mark.parametrize(
    ("operation", "product"),
    [
        ("mv", lambda x, weight: weight.mv(x[0])),
        ("inner", lambda x, weight: torch.inner(x, weight)),
        ("outer", lambda x, weight: torch.outer(x[0], weight[0])),
        ("cdist", lambda x, weight: torch.cdist(x, weight)),
    ],
)
def test_products_whose_names_do_not_say_so_are_an_error_too(
    operation: str, product: Callable[[Tensor, Tensor], Tensor]
) -> None:
    class Head(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(CLASSES, width))

        def forward(self, x: Tensor) -> Tensor:
            return product(x, self.weight)

    adapted = model("vit", "frozen")
    adapted.head = Head(adapted.backbone.width)
    with pytest.raises(UncountedOperation, match=f"no rule counts aten::{operation}"):
        macs(adapted)
