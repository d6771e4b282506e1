"""The MLP of OpenAI's CLIP is the equation, gradients included."""

from __future__ import annotations

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import nn

from backbones.clip import TINY, CLIPBlock
from backbones.kernels.quick_gelu import quick_gelu_mlp


def test_it_is_the_equation() -> None:
    torch.manual_seed(0)
    up, down = nn.Linear(12, 48).double(), nn.Linear(48, 12).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    hidden = x @ up.weight.t() + up.bias
    expected = (hidden / (1 + (-1.702 * hidden).exp())) @ down.weight.t() + down.bias
    found = quick_gelu_mlp(x, up, down)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    inputs = [x, *up.parameters(), *down.parameters()]
    gradient = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, gradient), torch.autograd.grad(expected, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


class _Doubled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def test_a_product_that_a_strategy_replaced_is_computed_as_it_is() -> None:
    block = CLIPBlock(VisionTransformer(**TINY, act_layer=QuickGELU).transformer.resblocks[0])
    mlp = block.module.mlp
    x = torch.randn(2, 5, block.width)
    torch.testing.assert_close(block.mlp(x), mlp(x), atol=1e-5, rtol=1e-4)
    mlp.c_fc = _Doubled(mlp.c_fc.in_features, mlp.c_fc.out_features)
    torch.testing.assert_close(block.mlp(x), mlp(x), atol=1e-5, rtol=1e-4)
