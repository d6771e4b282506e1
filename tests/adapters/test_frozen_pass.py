"""The forward pass of a frozen image model, shared by several models on it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from adapters.adapter import Adapter
from adapters.base import STRATEGIES, BodyConfig, Options
from adapters.baselines import Frozen
from adapters.block import AdaptedBlock
from adapters.body import BlockwiseBody
from adapters.classifier import VideoClassifier
from adapters.frozen_pass import FrozenPass, KeptStates, of_block
from adapters.heads import HEADS
from backbones.base import Backbone, Block
from tests.models import CLASSES, FAMILIES, FRAMES, NAMES, awaken, backbone, clips, model

READERS: list[tuple[str, str, dict[str, Any]]] = [
    ("frozen", "linear", {}),
    ("frozen", "attentive", {}),
    ("frozen", "attentive-time", {}),
    ("evl", "linear", {"layers": 1}),
    ("evl", "linear", {"layers": 3}),
]


def _on(shared: Backbone, strategy: str, head: str, options: dict[str, Any]) -> VideoClassifier:
    chosen, kind = STRATEGIES.get(strategy), HEADS.get(head)
    own = kind.options(**({"depth": 2, "heads": 4} if head.startswith("attentive") else {}))
    torch.manual_seed(5)
    built = VideoClassifier(
        shared, chosen, chosen.options(**options), classes=CLASSES, frames=FRAMES, head=head, head_options=own
    )
    awaken(built)
    return built


def _outcome(built: VideoClassifier, logits: torch.Tensor) -> list[torch.Tensor]:
    """Logits, and the gradients of a loss."""
    built.zero_grad()
    logits.float().square().sum().backward()
    return [
        logits.detach(),
        *(parameter.grad.clone() for _, parameter in built.trained() if parameter.grad is not None),
    ]


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_models_go_on_from_one_pass_to_the_bit_as_each_by_itself(family: str, autocast: bool) -> None:
    readers = [each for each in READERS if family != "swin" or each[0] != "evl"]
    x = clips()
    alone = []
    for reader in readers:  # before anything else stands on its backbone
        built = _on(backbone(family), *reader).train()
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = built(x)
        alone.append(_outcome(built, logits))

    shared = backbone(family)
    together = [_on(shared, *reader).train() for reader in readers]
    reads = {name for built in together for name in built.frozen_reads or ()}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        states = FrozenPass(shared, reads)(x)
    assert set(states) == reads
    assert not any(state.requires_grad for state in states.values())
    for built, expected in zip(together, alone, strict=True):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = built.from_states(KeptStates(states, len(x)))
        found = _outcome(built, logits)
        assert len(found) == len(expected) > 1
        assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


def test_a_pass_ends_at_the_last_block_that_is_read() -> None:
    image = backbone("vit")
    frozen = FrozenPass(image, [of_block(1, "tokens"), of_block(1, "key")])
    assert frozen.blocks == 2
    x = clips()
    found = frozen(x)
    tokens = image.embed(x.flatten(0, 1))
    for block in image.blocks[:2]:
        before, tokens = tokens, tokens + block.attend(block.norm1(tokens))
        tokens = tokens + block.mlp(block.norm2(tokens))
    torch.testing.assert_close(found[of_block(1, "tokens")], tokens)
    projection = image.blocks[1].linear("key")
    assert projection is not None
    expected = image.blocks[1].norm1(before) @ projection.weight.T + projection.bias
    torch.testing.assert_close(found[of_block(1, "key")], expected)


def test_states_that_there_are_not_are_named() -> None:
    with pytest.raises(ValueError, match=r"blocks\.4\.tokens"):
        FrozenPass(backbone("vit"), [of_block(4, "tokens")])


@pytest.mark.parametrize("strategy", [name for name in (*NAMES, "lora", "vpt", "st-adapter") if name != "frozen"])
def test_models_that_change_or_train_the_backbone_read_no_states(strategy: str) -> None:
    assert model("vit", strategy).frozen_reads is None


@pytest.mark.parametrize("strategy", ["frozen", "evl"])
def test_a_copy_of_a_model_reads_its_own_backbone(strategy: str) -> None:
    first = model("vit", strategy)
    second = copy.deepcopy(first)
    x = clips()
    before = first.eval()(x)
    with torch.no_grad():
        for parameter in first.backbone.parameters():
            parameter.zero_()
    assert second.eval()(x).equal(before)
    assert not first.eval()(x).equal(before)


def test_a_strategy_derived_from_frozen_may_adapt_blocks() -> None:
    class Adapting(Frozen):
        name: ClassVar[str] = "adapting"

        def adapt(self, block: Block, index: int, depth: int, frames: int, options: Any, drop_path: float) -> nn.Module:
            return AdaptedBlock(block, spatial=Adapter(block.width, skip=True))

        def trainable(self, model: VideoClassifier) -> Iterable[nn.Parameter]:
            return model.body.parameters()

    built = VideoClassifier(backbone("vit"), Adapting(), Options(), classes=CLASSES, frames=FRAMES)
    awaken(built)
    built(clips()).square().sum().backward()
    assert built.frozen_reads is None
    assert all(parameter.grad is not None and parameter.grad.any() for _, parameter in built.trained())


def test_a_strategy_that_is_declared_frozen_must_name_what_it_reads() -> None:
    class Silent(Frozen):
        name: ClassVar[str] = "silent"
        frozen_backbone = True

        def body(self, backbone: Backbone, config: BodyConfig, options: Any) -> BlockwiseBody:
            return BlockwiseBody(backbone, (AdaptedBlock(block) for block in backbone.blocks), config.frames)

    with pytest.raises(ValueError, match="silent"):
        VideoClassifier(backbone("vit"), Silent(), Options(), classes=CLASSES, frames=FRAMES)
