"""Norms under autocast: the same numbers rounded once, gradients from a rounded input, and what the others pass by."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.kernels.norm import normed
from backbones.kernels.recompute import recompute_of

WIDTH = 48


def _norm(seed: int = 0) -> nn.LayerNorm:
    torch.manual_seed(seed)
    norm = nn.LayerNorm(WIDTH, eps=1e-5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def _tokens() -> Tensor:
    # with one number far from the others, as image transformers have them
    x = torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(1))
    x[..., 7] += 30.0
    return x


def _by_hand(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * w + b."""
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("grad", [True, False])
def test_under_autocast_it_is_the_norm_in_float32_rounded_once(grad: bool) -> None:
    norm, x = _norm(), _tokens()
    expected = _by_hand(x.double(), norm.double()).float()
    norm = _norm()
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
        found = normed(x, norm)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=2**-8)
    assert (found == F.layer_norm(x, (WIDTH,), norm.weight, norm.bias, norm.eps).bfloat16()).float().mean() == 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_are_the_equations_but_for_the_rounding(dtype: torch.dtype) -> None:
    norm, x = _norm(), _tokens().requires_grad_()
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.autocast("cpu", dtype):
        normed(x, norm).backward(gradient)
    exact, wide = _norm().double(), _tokens().double().requires_grad_()
    _by_hand(wide, exact).backward(gradient.double())
    for found, expected in ((x, wide), (norm.weight, exact.weight), (norm.bias, exact.bias)):
        assert found.grad is not None and expected.grad is not None
        error = (found.grad.double() - expected.grad).norm() / expected.grad.norm()
        assert found.grad.dtype == torch.float32
        assert error < 5e-3


@pytest.mark.parametrize("strided", [False, True], ids=["contiguous", "strided"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("needs", ["x", "weight", "bias", "weight bias", "x weight", "x bias", "x weight bias"])
@pytest.mark.parametrize("has", ["weight bias", "weight", "nothing"])
def test_whatever_the_norm_has_and_whatever_trains(has: str, needs: str, dtype: torch.dtype, strided: bool) -> None:
    def gradients(of: Callable[[Tensor, nn.LayerNorm], Tensor], to: torch.dtype) -> list[Tensor]:
        torch.manual_seed(0)
        norm = nn.LayerNorm(WIDTH, elementwise_affine=has != "nothing", bias="bias" in has)
        for name, parameter in norm.named_parameters():
            nn.init.normal_(parameter).requires_grad_(name in needs)
        tokens = _tokens().transpose(0, 1).contiguous().transpose(0, 1) if strided else _tokens()
        x = tokens.requires_grad_("x" in needs)
        y = of(x, norm)
        if not y.requires_grad:
            return []
        gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype).to(to)
        return list(torch.autograd.grad(y, [t for t in (x, *norm.parameters()) if t.requires_grad], gradient))

    with torch.autocast("cpu", dtype):
        ours = gradients(normed, dtype)
    theirs = gradients(lambda x, norm: norm(x), torch.float32)
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() / expected.norm() < 2e-2


def test_the_input_is_kept_in_half_precision() -> None:
    norm, x = _norm().requires_grad_(False), _tokens().requires_grad_()
    kept: list[Tensor] = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t),
        torch.autocast("cpu", torch.bfloat16),
    ):
        normed(x, norm)
    assert {t.dtype for t in kept if t.numel() >= x.numel()} == {torch.bfloat16}


def test_the_origin_gives_the_products_with_what_was_normed() -> None:
    norm, x = _norm(), _tokens().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = normed(x, norm)
    origin = recompute_of(y)
    assert origin is not None
    left = torch.randn(15, 4, generator=torch.Generator().manual_seed(3)).bfloat16()
    expected = left.double().t() @ y.detach().double().flatten(0, -2)
    found = origin.outer(left, origin.tensors).double()
    assert (found - expected).norm() / expected.norm() < 1e-2


def test_sums_beyond_the_largest_number_of_fp16_have_gradients_too() -> None:
    norm, x = _norm(), (_tokens() * 1e5).requires_grad_()
    with torch.autocast("cpu", torch.float16):
        y = normed(x, norm)
        y.float().square().sum().backward()
    origin = recompute_of(y)
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad.any()
    assert origin is not None
    assert torch.isfinite(origin.outer(torch.ones(15, 4, dtype=torch.float16), origin.tensors)).all()


class _Doubled(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def _hooked() -> nn.Module:
    norm = nn.LayerNorm(WIDTH)
    norm.register_forward_hook(lambda module, inputs, out: 2 * out)
    return norm


@pytest.mark.parametrize(
    "norm", [_Doubled(WIDTH), _hooked(), nn.RMSNorm(WIDTH), nn.Identity()], ids=lambda n: type(n).__name__
)
def test_norms_of_another_arithmetic_are_called_as_they_are(norm: nn.Module) -> None:
    x = _tokens()
    with torch.autocast("cpu", torch.bfloat16):
        assert normed(x, norm).equal(norm(x))


def test_without_autocast_it_is_the_norm_itself() -> None:
    norm, x = _norm(), _tokens()
    assert normed(x, norm).equal(norm(x))
    assert recompute_of(normed(x, norm)) is None
