"""Counted multiply-accumulates against closed forms, part by part, and the two ways to count against each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters.adapter import Adapter
from adapters.blockwise import BlockwiseStrategy
from backbones.kernels.switch import using
from bench.measure.counts import UncountedOperation, macs, macs_by_part
from bench.measure.params import count_by_part
from bench.measure.parts import by_part
from tests.models import CLASSES, FAMILIES, NAMES, model, without_numbers
from tests.reference import macs as closed

ADDED: dict[str, dict[str, Any]] = {
    "frozen": {},
    "full": {},
    "timesformer": {"time": "own"},
    "spatial": {"spatial": True},
    "temporal": {"spatial": True, "time": "shared"},
    "joint": {"spatial": True, "time": "shared", "joint": True},
}
TINY_VIT = {"side": 32, "patch": 8, "width": 96, "depth": 4}
TINY_SWIN = {"side": 32, "patch": 4, "width": 64, "depths": (2, 2), "window": 4}


def _agree(found: dict[str, int], expected: dict[str, int]) -> None:
    assert found.keys() == expected.keys()
    for part, number in expected.items():
        assert found[part] == pytest.approx(number, rel=1e-3, abs=0), part  # of nothing, nothing


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("frames", [3, 8])
@pytest.mark.parametrize("family", ["vit", "clip"])
def test_tiny_vit_and_clip_agree_with_the_closed_form(family: str, frames: int, strategy: str) -> None:
    expected = closed.vit_parts(**TINY_VIT, frames=frames, classes=CLASSES, **ADDED[strategy])
    adapted = model(family, strategy, frames=frames)
    _agree(macs_by_part(adapted), expected)
    assert macs(adapted) == pytest.approx(sum(expected.values()), rel=1e-3)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("frames", [3, 8])
def test_tiny_swin_agrees_with_the_closed_form(frames: int, strategy: str) -> None:
    over_time = strategy in ("temporal", "joint")
    for tubelet in (1, 2):
        if frames % tubelet == 0 and (over_time or tubelet == 1):
            expected = closed.swin_parts(
                **TINY_SWIN, frames=frames, classes=CLASSES, tubelet=tubelet, **ADDED[strategy]
            )
            adapted = model("swin", strategy, frames=frames, **({"tubelet": tubelet} if over_time else {}))
            _agree(macs_by_part(adapted), expected)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_numbers_counts_as_one_with_numbers(family: str, strategy: str) -> None:
    with torch.device("meta"):
        shapes = model(family, strategy)
    assert macs_by_part(shapes, clips=2) == macs_by_part(model(family, strategy), clips=2)


CLIP_L = {"side": 224, "patch": 14, "width": 1024, "depth": 24}
VIT_B = {"side": 224, "patch": 16, "width": 768, "depth": 12}
SWIN_T = {"side": 224, "patch": 4, "width": 96, "depths": (2, 2, 6, 2), "window": 7}
SWIN_B = {"side": 224, "patch": 4, "width": 128, "depths": (2, 2, 18, 2), "window": 7}


@pytest.mark.parametrize(
    ("name", "shape", "strategy", "frames", "options"),
    [
        ("vit:vit_small_patch32_224@none", {**VIT_B, "patch": 32, "width": 384}, "timesformer", 5, {}),
        ("vit:vit_base_patch16_224@none", VIT_B, "temporal", 8, {"temporal_adapters": 2}),
        ("vit:vit_base_patch16_224@none", VIT_B, "joint", 16, {"ratio": 0.5}),
        ("clip:ViT-B-32@none", {**VIT_B, "patch": 32}, "spatial", 8, {}),
        ("clip:ViT-B-16@none", VIT_B, "joint", 32, {}),
        ("clip:ViT-L-14@none", CLIP_L, "joint", 8, {}),
        ("swin:swin_tiny_patch4_window7_224@none", SWIN_T, "timesformer", 3, {}),
        ("swin:swin_tiny_patch4_window7_224@none", SWIN_T, "full", 8, {}),
        ("swin:swin_base_patch4_window7_224@none", SWIN_B, "joint", 32, {"tubelet": 2}),
    ],
    ids=str,
)
def test_real_sizes_agree_with_the_closed_form(
    name: str, shape: dict[str, Any], strategy: str, frames: int, options: dict[str, Any]
) -> None:
    parts = closed.swin_parts if name.startswith("swin") else closed.vit_parts
    expected = parts(**shape, frames=frames, classes=400, **ADDED[strategy], **options)
    _agree(macs_by_part(without_numbers(name, strategy, frames, 400, **options)), expected)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_kernels_compute_the_same_products(family: str, device: str) -> None:
    with torch.device(device):
        adapted = model(family, "joint")
        fast = macs_by_part(adapted)
        with using("plain"):
            assert macs_by_part(adapted) == fast


def test_blocks_that_are_left_out_add_nothing() -> None:
    expected = closed.vit_parts(**TINY_VIT, frames=4, classes=CLASSES, adapted=2, **ADDED["joint"])
    _agree(macs_by_part(model("clip", "joint", blocks="top")), expected)


def test_attention_is_counted() -> None:
    with_two, with_four = (macs(model("vit", "frozen", frames=f)) for f in (2, 4))
    assert with_four - CLASSES * 96 == 2 * (with_two - CLASSES * 96)
    plain = sum(closed.vit_parts(**TINY_VIT, frames=2, classes=CLASSES).values())
    without_attention = plain - 4 * 2 * 2 * 17 * 17 * 96
    assert with_two > 1.005 * without_attention


class _OwnBlock(nn.Module):
    """A strategy's own way through a block: a part of it runs twice, and something is added around it."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block
        self.added = Adapter(block.width, skip=True)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = self.block.enter(x)
        x = x + self.added(self.block.attend(self.block.norm1(x)))
        return x + self.block.mlp(self.block.norm2(x)) + self.block.mlp(x)


class _Own(BlockwiseStrategy):
    name = "own"

    def adapt(self, block: Any, *_: Any) -> nn.Module:
        return _OwnBlock(block)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_strategy_with_blocks_of_its_own_is_told_apart_too(device: str) -> None:
    from adapters.classifier import VideoClassifier
    from tests.models import backbone

    with torch.device(device):
        adapted = VideoClassifier(backbone("swin"), _Own(), _Own.options(), classes=CLASSES, frames=4)
    expected = closed.swin_parts(**TINY_SWIN, frames=4, classes=CLASSES, spatial=True)
    _agree(macs_by_part(adapted), {**expected, "mlp": 2 * expected["mlp"]})


def test_the_model_is_as_it_was_after_counting() -> None:
    adapted = model("clip", "timesformer").train()
    kind = type(adapted.backbone.blocks[0])
    before = [dict(vars(kind)), *(set(vars(module)) for module in adapted.modules())]
    with pytest.raises(ZeroDivisionError), by_part(adapted, lambda part, inside, call: 1 / 0):
        adapted(torch.zeros(1, 4, 3, 32, 32))
    macs_by_part(adapted)
    count_by_part(adapted)
    assert [dict(vars(kind)), *(set(vars(module)) for module in adapted.modules())] == before
    assert adapted.training and all(module.training for module in adapted.modules())


def test_products_that_nothing_counts_are_an_error_not_a_zero() -> None:
    adapted = model("vit", "frozen")

    class Uncounted(nn.Module):
        def forward(self, x):
            return torch.addbmm(torch.zeros(1, 1), x[:, None], x[:, :, None]) + x.mean(1, keepdim=True)

    adapted.head = nn.Sequential(adapted.head, Uncounted())
    with pytest.raises(UncountedOperation, match="addbmm"):
        macs(adapted)


class _Head(nn.Module):
    def __init__(self, width: int, product: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(CLASSES, width))
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight)


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
    adapted = model("vit", "frozen")
    adapted.head = _Head(adapted.backbone.width, product)
    with pytest.raises(UncountedOperation, match=f"aten::{operation}"):
        macs(adapted)


@pytest.mark.parametrize(
    ("operation", "product"),
    [
        ("mv", lambda x, weight: weight.mv(x[0])),
        ("_cdist_forward", lambda x, weight: torch.cdist(x, weight)),
        ("dot", lambda x, weight: x[0].dot(weight[0])),
    ],
)
def test_products_of_a_model_without_numbers_are_an_error_too(
    operation: str, product: Callable[[Tensor, Tensor], Tensor]
) -> None:
    with torch.device("meta"):
        adapted = model("vit", "frozen")
        adapted.head = _Head(adapted.backbone.width, product)
    with pytest.raises(UncountedOperation, match=f"aten::{operation}"):
        macs(adapted)
