"""Activations that are worked out again: the same gradients to the bit, and less that is kept."""

from __future__ import annotations

import pytest
import torch

from adapters.block import AdaptedBlock
from tests.models import FAMILIES, awaken, clips, model


def _gradients(
    family: str, strategy: str, checkpointed: bool, precision: torch.dtype
) -> tuple[list[torch.Tensor], int]:
    """Gradients of a training step with dropped paths and dropout, and the bytes that were kept for them."""
    adapted = model(family, strategy)
    adapted.head.dropout.p = 0.5
    for block in adapted.body.blocks:
        assert isinstance(block, AdaptedBlock)
        block.time_drop_path.rate = block.drop_path.rate = 0.4
    awaken(adapted)
    adapted.train()
    adapted.body.checkpoint_activations = checkpointed
    known = {p.untyped_storage().data_ptr() for p in adapted.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    torch.manual_seed(0)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", precision, enabled=precision != torch.float32),
    ):
        loss = adapted(clips(batch=3)).float().square().sum()
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    loss.backward()
    return [p.grad for _, p in adapted.trained() if p.grad is not None], size


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", ["joint", "timesformer"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_gradients_are_the_same_to_the_bit_and_less_is_kept(family: str, strategy: str, precision: torch.dtype) -> None:
    ours, less = _gradients(family, strategy, True, precision)
    theirs, more = _gradients(family, strategy, False, precision)
    assert len(ours) == len(theirs) > 0
    for again, kept in zip(ours, theirs, strict=True):
        assert again.equal(kept)
    assert less < more / 2


def test_nothing_is_computed_again_where_no_gradient_is_wanted() -> None:
    adapted = model("vit", "joint").eval()
    adapted.body.checkpoint_activations = True
    with torch.no_grad():
        again = adapted(clips())
        adapted.body.checkpoint_activations = False
        assert adapted(clips()).equal(again)
