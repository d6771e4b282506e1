"""The model that faster steps are timed against computes what ours does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.kernels import attention
from tests.architectures import opened
from tests.models import FAMILIES, NAMES, awaken, clips, model
from tests.reference import aim_eager


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", NAMES)
def test_the_eager_reference_is_the_same_function(family: str, strategy: str) -> None:
    ours = model(family, strategy).double().eval()
    awaken(ours)
    x = clips().double()
    torch.testing.assert_close(aim_eager.logits(ours, x), ours(x), atol=1e-10, rtol=1e-10)
    found = []
    for forward in (ours, lambda x: aim_eager.logits(ours, x)):
        ours.zero_grad()
        forward(x).square().sum().backward()
        found.append({name: p.grad.clone() for name, p in ours.trained()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-8, rtol=1e-8)


def _kept(adapted: VideoClassifier, forward: Callable[[torch.Tensor], torch.Tensor]) -> int:
    """Bytes of activations that a step in bf16 keeps for its gradients. Weights, rounded ones too, are left out."""
    shapes = {p.shape for p in adapted.parameters()} | {p.shape[::-1] for p in adapted.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape not in shapes:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x = torch.randn(1, 8, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        forward(x)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_a_step_keeps_much_less_than_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of narrow blocks with QuickGELU, as OpenAI's CLIP has it, with attention in one kernel as on a GPU.

    By the width of the tokens in half precision, a block of the reference keeps: three norms' inputs in float32 (6),
    queries, keys, values and results of two attentions (8), the MLP's hidden numbers and their sigmoid (8), inputs of
    three adapters (3) and their bottlenecks before and after the GELU (1.5): 26.5. Ours: three norms' inputs (3),
    queries, keys and values twice (6), attentions' results (2), hidden numbers (4), three bottlenecks (0.75): 15.75.
    """
    monkeypatch.setattr(attention, "_SHORT", 0)
    chosen = STRATEGIES.get("joint")
    shape = {"image_size": 48, "patch_size": 8, "width": 128, "layers": 12, "heads": 2, "mlp_ratio": 4.0}
    narrow = opened(VisionTransformer(**shape, output_dim=128, act_layer=QuickGELU))
    adapted = VideoClassifier(narrow, chosen, chosen.options(), classes=10, frames=8)
    adapted.train()
    ours, theirs = _kept(adapted, adapted), _kept(adapted, lambda x: aim_eager.logits(adapted, x))
    assert ours / theirs == pytest.approx(15.75 / 26.5, rel=0.05)
