"""Drop path: entries that are dropped together, how often, and that it repeats, recomputes and compiles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from math import prod

import pytest
import torch

from adapters.adapter import DropPath
from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from tests.models import CLASSES, FAMILIES, awaken, backbone, clips
from tests.reference.drop_path import draw_of

MODES = ("clip", "released")
RATE, BATCH, FRAMES, DRAWS = 0.4, 2, 4, 200
BRANCHES = {"time": "time_drop_path", "own": "own_drop_path", "joint": "drop_path"}


def _model(family: str, strategy: str, mode: str) -> VideoClassifier:
    chosen = STRATEGIES.get(strategy)
    torch.manual_seed(0)
    return VideoClassifier(
        backbone(family),
        chosen,
        chosen.options(),
        classes=CLASSES,
        frames=FRAMES,
        drop_path=RATE,
        drop_path_mode=mode,
        dropout=0.0,
    ).train()


def _positions(family: str) -> tuple[int, ...]:
    return (3, 2) if family == "swin" else (5,)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("strategy", "branch"), [("joint", "time"), ("joint", "joint"), ("full", "own")])
def test_what_is_dropped_together_and_how_often(family: str, mode: str, strategy: str, branch: str) -> None:
    path: DropPath = getattr(_model(family, strategy, mode).body.blocks[-1], BRANCHES[branch])
    assert path.rate == pytest.approx(RATE)
    between = _positions(family)
    ones = torch.ones(BATCH * FRAMES, *between, 3)
    kept = torch.stack([path(ones, FRAMES) for _ in range(DRAWS)]).view(DRAWS, BATCH, FRAMES, prod(between), 3)
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / (1 - RATE)])
    assert (kept == kept[..., :1]).all()  # never a part of a token's numbers
    groups: dict[tuple[int, ...], list[torch.Tensor]] = defaultdict(list)
    for clip in range(BATCH):
        for frame in range(FRAMES):
            for position in range(prod(between)):
                group = draw_of(mode, family, branch, clip, frame, position)
                groups[group].append(kept[:, clip, frame, position, 0] > 0)
    for members in groups.values():
        assert all(torch.equal(member, members[0]) for member in members)
    each = torch.stack([members[0] for members in groups.values()]).double()
    spread = (RATE * (1 - RATE) / DRAWS) ** 0.5
    assert ((each.mean(1) - (1 - RATE)).abs() < 5 * spread).all()
    # independent of each other: correlations are those of chance
    correlation = torch.corrcoef(each) - torch.eye(len(each), dtype=torch.float64)
    assert correlation.abs().max() < 5 / DRAWS**0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_blocks_never_drop_their_own_branches(family: str) -> None:
    for strategy in ("frozen", "spatial", "temporal", "joint"):
        assert {block.own_drop_path.rate for block in _model(family, strategy, "clip").body.blocks} == {0.0}


def test_nothing_is_dropped_in_a_test_or_at_the_rate_0() -> None:
    ones = torch.ones(6, 5, 2)
    assert torch.equal(DropPath(0.5).eval()(ones, frames=3), ones)
    assert torch.equal(DropPath(0.0).train()(ones, frames=3), ones)


def _step(adapted: VideoClassifier, forward: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    """Logits and gradients of a step whose draws follow from a seed."""
    awaken(adapted)
    torch.manual_seed(3)
    logits = forward(clips(BATCH))
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad for _, p in adapted.trained() if p.grad is not None)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("family", "strategy"), [("clip", "joint"), ("swin", "joint"), ("vit", "timesformer")])
def test_a_step_repeats_and_recomputes_to_the_bit(family: str, strategy: str, mode: str) -> None:
    plain, again, recomputed, other = (_model(family, strategy, mode) for _ in range(4))
    recomputed.body.checkpoint_activations = True
    other.body.blocks.eval()  # drops nothing
    expected = _step(plain, plain)
    for found in (_step(again, again), _step(recomputed, recomputed)):
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert (_step(other, other)[0] - expected[0]).abs().max() > 1e-2


@pytest.mark.parametrize(("family", "strategy", "mode"), [("swin", "joint", "released"), ("vit", "full", "clip")])
def test_a_step_compiles_into_one_graph_with_the_same_draws(family: str, strategy: str, mode: str) -> None:
    plain, compiled = (_model(family, strategy, mode) for _ in range(2))
    torch.compiler.reset()
    graph = torch.compile(compiled, fullgraph=True, backend="eager")
    for one, two in zip(_step(compiled, graph), _step(plain, plain), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
