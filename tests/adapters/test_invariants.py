"""Invariants of an adapted model, for every family and every strategy."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from adapters.base import STRATEGIES
from tests.bench.command import quoting
from tests.models import CLASSES, FAMILIES, NAMES, awaken, backbone, clips, image_features, model

each_model = pytest.mark.parametrize("strategy", NAMES)
each_family = pytest.mark.parametrize("family", FAMILIES)
ALL_OPTIONS = [
    {"ratio": 0.5},
    {"blocks": "top"},
    {"blocks": "bottom"},
    {"blocks": "second"},
    {"temporal_adapters": 2, "scale": 1.0},
]


def test_all_strategies_are_the_six_of_the_paper() -> None:
    assert STRATEGIES.names()[:6] == NAMES
    assert tuple(name for name in STRATEGIES.names() if not STRATEGIES.get(name).of_field) == NAMES


@each_family
@each_model
def test_at_the_start_the_adapted_model_is_the_image_model(family: str, strategy: str) -> None:
    adapted, x = model(family, strategy).eval(), clips()
    with torch.no_grad():
        torch.testing.assert_close(adapted.features(x), image_features(adapted, x), atol=1e-5, rtol=1e-5)


@each_family
@pytest.mark.parametrize("options", ALL_OPTIONS, ids=str)
def test_at_the_start_so_it_is_with_every_option(family: str, options: dict[str, object]) -> None:
    adapted, x = model(family, "joint", **options).eval(), clips()
    with torch.no_grad():
        torch.testing.assert_close(adapted.features(x), image_features(adapted, x), atol=1e-5, rtol=1e-5)


def _expected_trained(adapted, strategy: str) -> set[str]:
    """The trained names, from the paper's list: head always, then adapters, temporal embedding, final norm; or all."""
    names = {name for name, _ in adapted.named_parameters()}
    if strategy in ("full", "timesformer"):
        return names
    if strategy == "frozen":
        return {"head.linear.weight", "head.linear.bias"}
    norm = {id(p) for p in adapted.backbone.final_norm.parameters()}
    return {
        name
        for name, parameter in adapted.named_parameters()
        if name.startswith(("head.", "body.")) or id(parameter) in norm
    }


def _steps(adapted, count: int = 2) -> set[str]:
    """Train; the names that got a gradient other than zero."""
    # a second step, since what stands before a zero gets no gradient in the first
    optimiser = torch.optim.AdamW([p for _, p in adapted.trained()], lr=1e-2)
    reached: set[str] = set()
    for step in range(count):
        optimiser.zero_grad()
        F.cross_entropy(adapted(clips(seed=step)), torch.arange(2) % CLASSES).backward()
        assert {name for name, p in adapted.named_parameters() if p.grad is not None} == {
            n for n, _ in adapted.trained()
        }
        reached |= {name for name, p in adapted.named_parameters() if p.grad is not None and p.grad.any()}
        optimiser.step()
    return reached


@each_family
@each_model
def test_exactly_the_named_parameters_get_gradients_and_change(family: str, strategy: str) -> None:
    adapted = model(family, strategy).train()
    expected = _expected_trained(adapted, strategy)
    assert {name for name, _ in adapted.trained()} == expected
    before = {name: value.detach().clone() for name, value in adapted.state_dict().items()}
    reached = _steps(adapted)
    # a bias on the keys moves all of a query's logits alike: its gradient is zero by nature, within rounding
    assert expected - reached <= {name for name in expected if "qkv.bias" in name or "in_proj_bias" in name}
    for name, value in adapted.state_dict().items():
        if name in expected:
            assert not torch.equal(value, before[name]), name
        else:
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("strategy", ["spatial", "temporal", "joint"])
def test_released_freezing_trains_exactly_what_the_released_swin_does(strategy: str) -> None:
    """Adapters and head alone: neither the final norm nor the bias over time, and there is no temporal embedding."""
    ours, theirs = model("swin", strategy), model("swin", strategy, released_freezing=True).train()
    expected = {name for name in _expected_trained(ours, strategy) if name.startswith(("head.", "body.blocks."))}
    expected -= {name for name in expected if name.endswith("time.bias.table")}
    assert {name for name, _ in theirs.trained()} == expected
    assert theirs.body.temporal_embedding is None
    before = {name: value.detach().clone() for name, value in theirs.state_dict().items()}
    assert _steps(theirs) == expected
    assert {name for name, value in theirs.state_dict().items() if not torch.equal(value, before[name])} == expected
    tables = [value for name, value in theirs.state_dict().items() if name.endswith("time.bias.table")]
    assert len(tables) == (0 if strategy == "spatial" else 2)
    assert all(table.std() > 0.01 for table in tables)  # random


@pytest.mark.parametrize("family", ["vit", "clip"])
def test_released_freezing_is_refused_of_what_was_not_released_so(family: str) -> None:
    with pytest.raises(ValueError, match=quoting("released_freezing", "Swin")):
        model(family, "joint", released_freezing=True)


@each_family
@each_model
def test_only_attention_over_time_sees_the_order_of_frames(family: str, strategy: str) -> None:
    adapted, x = model(family, strategy).eval(), clips()
    awaken(adapted)
    with torch.no_grad():
        change = (adapted(x) - adapted(x.flip(1))).abs().max()
    if strategy in ("timesformer", "temporal", "joint"):
        assert change > 1e-3
    else:
        assert change < 1e-5
        assert adapted.body.temporal_embedding is None


@each_family
@each_model
def test_clips_of_a_batch_do_not_see_each_other(family: str, strategy: str) -> None:
    adapted, x = model(family, strategy).eval(), clips(3)
    awaken(adapted)
    with torch.no_grad():
        alone = torch.cat([adapted(clip[None]) for clip in x])
        torch.testing.assert_close(adapted(x), alone, atol=1e-4, rtol=1e-4)


@each_family
@pytest.mark.parametrize("which", ["all", "top", "bottom", "second"])
def test_the_chosen_blocks_are_half_of_them_and_some_attend_over_time(family: str, which: str) -> None:
    """A half without attention over time would be blind to the order of frames, whatever its name says."""
    adapted = model(family, "joint", blocks=which)
    depth = len(adapted.body.blocks)
    chosen = [index for index, block in enumerate(adapted.body.blocks) if any(True for _ in block.parameters())]
    assert len(chosen) == (depth if which == "all" else depth // 2)
    assert [index for index in chosen if adapted.body.blocks[index].time is not None]
    ends = {"all": range(depth), "bottom": range(depth // 2), "top": range(depth // 2, depth)}
    if which in ends:
        assert chosen == list(ends[which])
    else:
        assert {after - before for before, after in pairwise(chosen)} == {2}
    if family == "swin" and which == "second":
        assert chosen == [index for index, block in enumerate(adapted.backbone.blocks) if block.attends_time]
    for index, block in enumerate(adapted.body.blocks):
        if index not in chosen:
            assert block.time is block.spatial is block.joint is None


def _dtypes(family: str, strategy: str, **options: object) -> list[torch.dtype]:
    """Of the tokens into each block, under autocast to bf16."""
    adapted = model(family, strategy, **options).train()
    found: list[torch.dtype] = []
    for block in adapted.body.blocks:
        block.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        adapted(clips())
    assert len(found) == len(adapted.body.blocks)
    return found


@each_family
@each_model
def test_mixed_precision_is_the_same_for_every_strategy(family: str, strategy: str) -> None:
    """Otherwise a table would compare number formats: what is added must not change what the sums are kept in."""
    found = _dtypes(family, strategy)
    assert found[0] == torch.float32
    assert found == _dtypes(family, "frozen")


def test_patches_of_swin_cover_two_frames_where_they_attend_over_time_and_only_there() -> None:
    covered = {strategy: model("swin", strategy).body.tubelet for strategy in NAMES}
    assert covered == dict.fromkeys(NAMES, 1) | {"temporal": 2, "joint": 2}
    adapted = model("swin", "joint", frames=8)
    assert adapted.body.temporal_embedding.shape[1] == 4
    assert {len(block.time.bias.table) for block in adapted.body.blocks if block.time} == {2 * 4 - 1}
    assert model("swin", "joint", tubelet=1).body.tubelet == 1
    with pytest.raises(ValueError, match=quoting("frames is 5", 2)):
        model("swin", "joint", frames=5)
    with pytest.raises(ValueError, match=quoting("tubelet is 2", 1)):
        model("vit", "joint", tubelet=2)


@each_family
@pytest.mark.parametrize("tubelet", [2, 3])
def test_a_tubelet_that_no_published_patch_has_is_refused(family: str, tubelet: int) -> None:
    opened = backbone(family)
    if tubelet != opened.tubelet:
        with pytest.raises(ValueError, match=f"tubelet is {tubelet}"):
            opened.tokens(clips(1, 6).flatten(0, 1), tubelet)


@each_family
@pytest.mark.parametrize("strategy", ["joint", "timesformer"])
def test_odd_frame_counts_and_one_frame_run(family: str, strategy: str) -> None:
    for frames in (1, 5):
        single = {"tubelet": 1} if family == "swin" and strategy == "joint" else {}
        adapted = model(family, strategy, frames=frames, **single)
        F.cross_entropy(adapted(clips(1, frames)), torch.tensor([3])).backward()
