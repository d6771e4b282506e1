"""The MLP of OpenAI's CLIP is the equation, gradients included."""

from __future__ import annotations

import torch
from torch import nn

from backbones.quick_gelu import quick_gelu_mlp


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
