"""The adapted model against the equations, written out on plain tensors in tests/reference.

Every weight is random here, the frozen ones too: a norm that starts as (1, 0) is like any other norm, and a zero hides
what it is multiplied with.
"""

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor

from adapters.adapter import DropPath
from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from tests.adapters.equations import CASES, assert_alike, logits_swin, logits_vit_or_clip, video_model
from tests.models import FAMILIES, NAMES, backbone, clips

each_case = pytest.mark.parametrize(("strategy", "options"), CASES, ids=str)
each_family = pytest.mark.parametrize("family", FAMILIES)
each_shape = pytest.mark.parametrize(("batch", "frames"), [(2, 4), (1, 5), (2, 1)])
LOGITS = {"vit": logits_vit_or_clip, "clip": logits_vit_or_clip, "swin": logits_swin}


def _model(family: str, strategy: str, options: dict[str, object], frames: int) -> VideoClassifier:
    return video_model(backbone(family), strategy, options, frames)


@each_family
@each_case
@each_shape
def test_logits_and_gradients_are_those_of_the_equations(
    family: str, strategy: str, options: dict[str, object], batch: int, frames: int
) -> None:
    adapted, x = _model(family, strategy, options, frames).eval(), clips(batch, frames).double()
    assert_alike(adapted, adapted(x), LOGITS[family](adapted, x))


def test_so_it_is_with_the_activation_of_openais_weights() -> None:
    adapted, x = _model("clip", "joint", {}, 3).eval(), clips(1, 3).double()
    for block in adapted.body.blocks:
        block.block.module.mlp.gelu = QuickGELU()
    assert_alike(adapted, adapted(x), logits_vit_or_clip(adapted, x))


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Drop path multiplies the branches with known numbers, other ones for every clip and call, in place of chance.

    A branch that is never dropped, at the rate 0, is left alone.
    """
    generator = torch.Generator().manual_seed(5)
    numbers: list[Tensor] = []

    def known(self: DropPath, x: Tensor, frames: int) -> Tensor:
        if not self.rate:
            return x
        numbers.append(torch.rand(len(x) // frames, generator=generator).double())
        return x * numbers[-1].repeat_interleave(frames).view(-1, *(1 for _ in x.shape[1:]))

    monkeypatch.setattr(DropPath, "forward", known)
    return numbers


@each_family
@each_case
def test_drop_path_is_on_what_was_added_and_of_a_finetuned_block_on_every_branch(
    family: str, strategy: str, options: dict[str, object], dropped: list[Tensor]
) -> None:
    adapted, x = _model(family, strategy, options, 3).train(), clips(3, 3).double()
    logits = adapted(x)
    numbers = list(dropped)
    # the reference takes the numbers in the published order, so they would not fit in another one
    expected = LOGITS[family](adapted, x, iter(numbers).__next__)
    # of four blocks the first drops nothing; of the others, one of a Swin is not shifted
    over_time = {"joint": 3, "temporal": 3, "timesformer": 3}.get(strategy, 0)
    if family == "swin" and strategy in ("joint", "temporal"):
        over_time = 1
    beside = {"joint": 3, "full": 6, "timesformer": 6}.get(strategy, 0)
    assert len(numbers) == over_time + beside
    assert_alike(adapted, logits, expected)


@each_family
def test_rates_of_drop_path_grow_with_the_depth(family: str) -> None:
    adapted = _model(family, "joint", {}, 2)
    assert [block.drop_path.rate for block in adapted.body.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])


@each_family
@pytest.mark.parametrize("strategy", NAMES)
def test_the_head_starts_small(family: str, strategy: str) -> None:
    chosen = STRATEGIES.get(strategy)
    head = VideoClassifier(backbone(family), chosen, chosen.options(), classes=50, frames=2).head.linear
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert head.weight.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert not head.bias.any()
