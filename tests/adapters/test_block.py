"""The adapted model against the equations, written out on plain tensors in tests/reference/aim_block.py.

Every weight is random here, the frozen ones too: a norm that starts as (1, 0) is like any other norm, and a zero hides
what it is multiplied with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from adapters.adapter import Adapter, DropPath
from adapters.block import AdaptedBlock
from adapters.model import VideoClassifier
from adapters.strategy import STRATEGIES
from tests.models import CLASSES, FAMILIES, NAMES, backbone, clips
from tests.reference import aim_block as plain

CASES = [
    ("joint", {"temporal_adapters": 1, "scale": 0.7, "ratio": 0.3}),
    ("joint", {"temporal_adapters": 2, "scale": 1.3}),
    ("temporal", {"temporal_adapters": 1}),
    ("temporal", {"temporal_adapters": 2, "ratio": 0.1}),
    ("spatial", {"ratio": 0.5}),
    ("timesformer", {}),
    ("full", {}),
]
each_case = pytest.mark.parametrize(("strategy", "options"), CASES, ids=str)
each_family = pytest.mark.parametrize("family", FAMILIES)
each_shape = pytest.mark.parametrize(("batch", "frames"), [(2, 4), (1, 5), (2, 1)])

# of every clip, for the branch that is dropped next
Keep = Callable[[], Tensor]


def _model(family: str, strategy: str, options: dict[str, object], frames: int) -> VideoClassifier:
    """In float64, all of its parameters random, with drop path and without dropout."""
    chosen = STRATEGIES.get(strategy)
    if family == "swin" and frames % 2 and strategy in ("temporal", "joint"):
        options = {**options, "tubelet": 1}
    found = VideoClassifier(
        backbone(family),
        chosen,
        chosen.options(**options),
        classes=CLASSES,
        frames=frames,
        drop_path=0.3,
        dropout=0.0,
    ).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return found


def _linears(adapter: nn.Module | None) -> tuple[plain.Affine, plain.Affine] | None:
    if adapter is None:
        return None
    assert isinstance(adapter, Adapter)
    return plain.affine(adapter.down), plain.affine(adapter.up)


def _added(block: AdaptedBlock, strategy: str, weights: Callable[..., plain.Weights], *, time: bool) -> plain.Added:
    """The added weights of a block; its parts must be those that the strategy's name promises.

    Args:
        weights: reads norm and attention of the family's modules.
        time: whether a block of this kind attends over time where the strategy wants it.
    """
    time = time and strategy in ("temporal", "joint", "timesformer")
    assert (block.time is not None) == time
    assert (block.spatial is not None) == (strategy in ("spatial", "temporal", "joint"))
    assert (block.joint is not None) == (strategy == "joint")
    parts: dict[str, Any] = {
        "spatial": _linears(block.spatial),
        "joint": _linears(block.joint),
        "scale": block.scale,
    }
    if block.time is not None:
        parts["table"] = None if block.time.bias is None else block.time.bias.table
        if strategy == "timesformer":
            copies, originals = (set(module.parameters()) for module in (block.time.block.module, block.block.module))
            assert copies and not copies & originals
            parts["own"] = weights(block.time.block.module, attention_alone=True)
            parts["linear"] = plain.affine(block.time.after)
        else:
            parts |= {"before": _linears(block.time.before), "after": _linears(block.time.after)}
    return plain.Added(**parts)


def _every_time() -> Tensor:
    return torch.ones(99, dtype=torch.float64)


def _plain_vit_or_clip(adapted: VideoClassifier, family: str, x: Tensor, keep: Keep = _every_time) -> Tensor:
    """Logits (B, classes) from the equations."""
    model, name = adapted.backbone.model, adapted.strategy.name
    embedding = None if adapted.temporal_embedding is None else adapted.temporal_embedding[0]
    if family == "vit":
        weights, final = plain.of_vit, model.norm
        tokens = [
            plain.embedded(clip, model.patch_embed.proj, model.cls_token[0, 0], model.pos_embed[0], embedding)
            for clip in x
        ]
    else:
        weights, final = plain.of_clip, model.ln_post
        tokens = [
            plain.norm(
                plain.embedded(clip, model.conv1, model.class_embedding, model.positional_embedding, embedding),
                plain.affine(model.ln_pre),
            )
            for clip in x
        ]
    for block in adapted.blocks:
        own, added = weights(block.block.module), _added(block, name, weights, time=True)
        keep_time = keep() if added.over_time else _every_time()
        keep_joint = keep() if added.joint is not None else _every_time()
        tokens = [
            plain.block(clip, own, added, float(keep_time[i]), float(keep_joint[i])) for i, clip in enumerate(tokens)
        ]
    head = plain.affine(adapted.head)
    return torch.stack([plain.classified(clip, plain.affine(final), head) for clip in tokens])


def _plain_swin(adapted: VideoClassifier, x: Tensor, keep: Keep = _every_time) -> Tensor:
    """Logits (B, classes): windows, MLP and merging are the image model's own, all that was added is written out."""

    attention = partial(plain.of_vit, attention_alone=True)
    model, name = adapted.backbone.model, adapted.strategy.name
    modules = [module for stage in model.layers for module in stage.blocks]
    second_stage = len(model.layers[0].blocks)
    embed = model.patch_embed
    tokens = [plain.norm(plain.tubelets(clip, embed.proj, adapted.tubelet), plain.affine(embed.norm)) for clip in x]
    if adapted.temporal_embedding is not None:
        tokens = [clip + adapted.temporal_embedding[0][:, None, None] for clip in tokens]
    for index, (block, module) in enumerate(zip(adapted.blocks, modules, strict=True)):
        if index == second_stage:
            tokens = [model.layers[1].downsample(clip) for clip in tokens]
        unshifted = index % 2 == 0
        added = _added(block, name, attention, time=unshifted or name == "timesformer")
        keep_time = keep() if added.over_time else _every_time()
        keep_joint = keep() if added.joint is not None else _every_time()
        after = []
        for i, clip in enumerate(tokens):
            if added.over_time:
                branch = plain.time_branch(clip.flatten(1, 2), attention(module), added)
                clip = clip + keep_time[i] * branch.view(clip.shape)
            clip = clip + plain.spatial_branch(module._attn(module.norm1(clip)), added)
            normed = module.norm2(clip)
            clip = clip + module.mlp(normed)
            if added.joint is not None:
                clip = clip + keep_joint[i] * plain.joint_branch(normed, added)
            after.append(clip)
        tokens = after
    head, final = plain.affine(adapted.head), plain.affine(model.norm)
    return torch.stack([plain.linear(plain.norm(clip, final).mean(dim=(0, 1, 2)), head) for clip in tokens])


def _plain(adapted: VideoClassifier, family: str, x: Tensor, keep: Keep = _every_time) -> Tensor:
    return _plain_swin(adapted, x, keep) if family == "swin" else _plain_vit_or_clip(adapted, family, x, keep)


def _assert_alike(adapted: VideoClassifier, found: Tensor, expected: Tensor) -> None:
    """Logits within 1e-10 and the gradient of every trained parameter within 1e-8."""
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(4)).double()
    names, trained = zip(*adapted.trained(), strict=True)
    ours, theirs = (
        torch.autograd.grad((logits * weights).sum(), trained, allow_unused=True) for logits in (found, expected)
    )
    for name, our, their in zip(names, ours, theirs, strict=True):
        assert our is not None, name
        assert their is not None, name
        torch.testing.assert_close(our, their, atol=1e-8, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@each_family
@each_case
@each_shape
def test_logits_and_gradients_are_those_of_the_equations(
    family: str, strategy: str, options: dict[str, object], batch: int, frames: int
) -> None:
    adapted, x = _model(family, strategy, options, frames).eval(), clips(batch, frames).double()
    _assert_alike(adapted, adapted(x), _plain(adapted, family, x))


def test_so_it_is_with_the_activation_of_openais_weights() -> None:
    adapted, x = _model("clip", "joint", {}, 3).eval(), clips(1, 3).double()
    for block in adapted.blocks:
        block.block.module.mlp.gelu = QuickGELU()
    _assert_alike(adapted, adapted(x), _plain(adapted, "clip", x))


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Drop path multiplies the branches with known numbers, other ones for every clip and call, in place of chance."""
    generator = torch.Generator().manual_seed(5)
    numbers: list[Tensor] = []

    def known(self: DropPath, x: Tensor, frames: int) -> Tensor:
        numbers.append(torch.rand(len(x) // frames, generator=generator).double())
        return x * numbers[-1].repeat_interleave(frames).view(-1, *(1 for _ in x.shape[1:]))

    monkeypatch.setattr(DropPath, "forward", known)
    return numbers


@each_family
@each_case
def test_drop_path_is_on_the_branch_over_time_then_on_the_scaled_joint_one_and_nowhere_else(
    family: str, strategy: str, options: dict[str, object], dropped: list[Tensor]
) -> None:
    adapted, x = _model(family, strategy, options, 3).train(), clips(3, 3).double()
    logits = adapted(x)
    numbers = list(dropped)
    # the reference takes the numbers in the published order, so they would not fit in another one
    expected = _plain(adapted, family, x, iter(numbers).__next__)
    over_time = {"joint": 4, "temporal": 4, "timesformer": 4}.get(strategy, 0)
    if family == "swin" and strategy != "timesformer":
        over_time //= 2
    assert len(numbers) == over_time + (4 if strategy == "joint" else 0)
    _assert_alike(adapted, logits, expected)


@each_family
def test_rates_of_drop_path_grow_with_the_depth(family: str) -> None:
    adapted = _model(family, "joint", {}, 2)
    assert [block.drop_path.rate for block in adapted.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])


@each_family
@pytest.mark.parametrize("strategy", NAMES)
def test_the_head_starts_small(family: str, strategy: str) -> None:
    chosen = STRATEGIES.get(strategy)
    head = VideoClassifier(backbone(family), chosen, chosen.options(), classes=50, frames=2).head
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert head.weight.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert not head.bias.any()
