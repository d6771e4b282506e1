"""Invariants of an adapted model, for every kind of image model and every strategy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from bench.measure.counts import macs, macs_by_part
from bench.measure.params import count_by_part
from tests.adapters.test_field import FIELD
from tests.architectures import BUILDERS, small
from tests.models import CLASSES, NAMES, awaken, clips, image_features

OVER_TIME = ("timesformer", "temporal", "joint")
each_kind = pytest.mark.parametrize("kind", BUILDERS)
each_strategy = pytest.mark.parametrize("strategy", NAMES)


def _model(kind: str, strategy: str, frames: int = 4, **options: object) -> VideoClassifier:
    chosen = STRATEGIES.get(strategy)
    return VideoClassifier(small(kind), chosen, chosen.options(**options), classes=CLASSES, frames=frames, dropout=0.0)


@each_kind
@each_strategy
def test_it_starts_as_the_image_model_trains_what_the_strategy_names_and_sees_order_over_time_alone(
    kind: str, strategy: str
) -> None:
    adapted, x = _model(kind, strategy).train(), clips(2, 4)
    if strategy in ("joint", "timesformer"):
        _in_half_precision_the_sums_between_blocks_stay_whole(kind, adapted)
    frozen = {name: value.clone() for name, value in adapted.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(adapted.features(x), image_features(adapted, x), atol=1e-5, rtol=1e-4)

    trained = {name for name, _ in adapted.trained()}
    final = {id(p) for p in adapted.backbone.final_norm.parameters()}
    image_names = {
        name for name, p in adapted.named_parameters() if name.startswith("backbone.") and id(p) not in final
    }
    if strategy in ("full", "timesformer"):
        assert image_names < trained
    else:
        assert not image_names & trained
    optimiser = torch.optim.SGD([p for _, p in adapted.trained()], lr=0.1)
    for step in range(2):  # what stands before a zero gets no gradient in the first
        optimiser.zero_grad()
        loss = F.cross_entropy(adapted(clips(2, 4, seed=step)), torch.arange(2))
        assert torch.isfinite(loss)
        loss.backward()
        reached = {name for name, p in adapted.named_parameters() if p.grad is not None}
        assert reached == trained
        optimiser.step()
    changed = {name for name, value in adapted.state_dict().items() if not torch.equal(value, frozen[name])}
    assert changed <= trained
    assert changed >= {name for name in trained if "adapter" in name or ".up." in name or name.startswith("head.")}

    adapted.load_state_dict(frozen)
    adapted.eval()
    awaken(adapted)
    with torch.no_grad():
        change = (adapted(x) - adapted(x.flip(1))).abs().max() / adapted(x).abs().max()
    if strategy in OVER_TIME:
        assert change > 1e-4
    else:
        assert change < 1e-5


def _in_half_precision_the_sums_between_blocks_stay_whole(kind: str, adapted: VideoClassifier) -> None:
    found: list[torch.dtype] = []
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].dtype))
        for block in adapted.body.blocks
    ]
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(adapted(clips(2, 4)), torch.arange(2))
    loss.backward()
    assert torch.isfinite(loss)
    assert found[0] == torch.float32
    if "Swin" not in kind:  # merging patches is a product, which stays as it comes
        assert set(found) == {torch.float32}
    for hook in hooks:
        hook.remove()
    adapted.zero_grad()


@each_kind
def test_every_product_is_counted(kind: str) -> None:
    """An operation that no rule counts would raise; adapters cost two products of D x D / 4 a token, exactly."""
    counted = {strategy: macs(_model(kind, strategy)) for strategy in ("frozen", "spatial")}
    counted["joint"] = macs(_model(kind, "joint", tubelet=1))  # as many tokens as the others have
    backbone = small(kind)
    tokens, adapters = backbone.embed(clips(1, 4)[0]), 0
    for block in backbone.blocks:
        tokens = block.enter(tokens)
        adapters += tokens.shape[:-1].numel() * 2 * block.width * (block.width // 4)
    assert counted["spatial"] - counted["frozen"] == adapters
    over_time = sum(block.attends_time for block in backbone.blocks) / len(backbone.blocks)
    assert counted["joint"] - counted["spatial"] > adapters * (1.5 if over_time == 0.5 else 2)


# kinds that do not take every method of other papers
REFUSED = {
    "normed queries": {"evl"},
    "differential attention": {"evl"},
    "RMS norm and SwiGLU": {"zeroi2v"},
    "ViTamin": {"zeroi2v"},
    "EVA": {"lora", "zeroi2v", "evl"},
    "EVA-02": {"lora", "vpt", "zeroi2v", "evl"},
    "post-norm EVA": {"lora", "zeroi2v", "evl"},
    "DINOv3": {"vpt", "evl"},
    "mixed RoPE": {"vpt", "evl"},
    "PE": {"vpt", "evl"},
    "grouped queries": {"vpt", "zeroi2v", "evl"},
    "Swin": {"vpt", "evl"},
    "Swin V2": {"lora", "vpt", "zeroi2v", "evl"},
    "custom CLIP blocks": {"lora", "zeroi2v", "evl"},
}


@each_kind
def test_other_papers_methods_train_see_order_and_merge_as_they_say_or_are_refused(kind: str) -> None:
    x = clips(2, 4)
    for strategy in FIELD:
        why = STRATEGIES.get(strategy).refuses(small(kind))
        assert (why is not None) == (strategy in REFUSED.get(kind, ())), (strategy, why)
        if why is not None:
            continue
        adapted = _model(kind, strategy, **({"layers": 2} if strategy == "evl" else {}))
        awaken(adapted)
        adapted.train()(x).square().sum().backward()
        assert [name for name, p in adapted.named_parameters() if (p.grad is not None) != p.requires_grad] == []
        with torch.no_grad():
            found, back = adapted.eval()(x), adapted(x.flip(1))
            torch.testing.assert_close(adapted.deployed()(x), found, rtol=1e-4, atol=1e-4)
        assert torch.allclose(found, back, atol=1e-4) != adapted.strategy.order_aware, strategy


@pytest.mark.parametrize("kind", ["convolutional stem", "residual stem", "ViTamin"])
def test_a_stem_of_convolutions_is_embedding(kind: str) -> None:
    """A convolution costs its weights of one output at every place of it."""
    adapted, costs = _model(kind, "joint"), []
    image_model = adapted.backbone.model
    convolutions = [module for module in image_model.patch_embed.modules() if isinstance(module, nn.Conv2d)]
    hooks = [
        module.register_forward_hook(lambda module, _, out: costs.append(out.numel() * module.weight[0].numel()))
        for module in convolutions
    ]
    with torch.no_grad():
        adapted.eval()(clips(1, 4))
    for hook in hooks:
        hook.remove()
    assert len(costs) == len(convolutions) > 1
    found = macs_by_part(adapted)
    assert found["embedding"] == sum(costs)
    assert found["elsewhere"] == 0
    stem = sum(parameter.numel() for parameter in image_model.patch_embed.parameters())
    tokens = sum(p.numel() for p in (image_model.cls_token, image_model.pos_embed) if p is not None)
    parameters = count_by_part(adapted)
    assert parameters["embedding"] == (stem + tokens + 4 * adapted.backbone.width, 4 * adapted.backbone.width)
    assert parameters["elsewhere"] == (0, 0)
