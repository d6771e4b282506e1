"""The bottleneck's gradients, and that its input is not kept where it can be worked out again."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.adapter import Adapter
from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.kernels.attention import projected
from backbones.kernels.norm import normed
from backbones.kernels.recompute import recompute_of
from backbones.swin import Swin
from tests.models import FAMILIES, backbone

WIDTH = 16


def _adapter(skip: bool, dtype: torch.dtype = torch.float64) -> Adapter:
    torch.manual_seed(0)
    adapter = Adapter(WIDTH, skip=skip)
    nn.init.normal_(adapter.up.weight)
    return adapter.to(dtype)


def _plain(x: Tensor, adapter: Adapter) -> Tensor:
    hidden = x @ adapter.down.weight.t() + adapter.down.bias
    out = F.gelu(hidden) @ adapter.up.weight.t() + adapter.up.bias
    return x + out if adapter.skip else out


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("behind", ["nothing", "product"])
def test_gradients_are_those_of_the_operations_one_by_one(skip: bool, behind: str) -> None:
    projection = nn.Linear(WIDTH, WIDTH).double().requires_grad_(False)
    found: list[tuple[Tensor, ...]] = []
    values = []
    for plain in (False, True):
        adapter = _adapter(skip)
        x = torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        before = x if behind == "nothing" else F.linear(x, projection.weight, projection.bias)
        if behind == "product" and not plain:
            before = projected(x, projection)
        out = _plain(before, adapter) if plain else adapter(before)
        values.append(out)
        found.append(torch.autograd.grad(out.square().sum(), [x, *adapter.parameters()]))
    torch.testing.assert_close(values[0], values[1], atol=1e-12, rtol=1e-12)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def _adapters(adapted: VideoClassifier) -> list[Adapter]:
    found = [module for module in adapted.body.blocks.modules() if isinstance(module, Adapter)]
    # of four blocks, two of a Swin attend over time
    assert len(found) == (12 if isinstance(adapted.backbone, Swin) else 16)
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("start", ["released", "torch"])
def test_every_adapter_starts_as_released_or_as_any_linear(family: str, start: Literal["released", "torch"]) -> None:
    """Normal with 0.02 and no bias; torch's Linear is uniform within 1 / sqrt(D), weight and bias."""
    joint = STRATEGIES.get("joint")
    options = joint.options(temporal_adapters=2)
    adapted = VideoClassifier(backbone(family), joint, options, classes=10, frames=4, adapter_init=start)
    for adapter in _adapters(adapted):
        weight, bound = adapter.down.weight, adapter.down.in_features**-0.5
        if start == "released":
            assert weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert 0.05 < weight.abs().max() < 0.12  # a normal's tail
            assert not adapter.down.bias.any()
        else:
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
            assert 0.95 * bound < weight.abs().max() <= bound
            assert adapter.down.bias.any()
        assert abs(weight.mean().item()) < 5 * weight.std().item() / weight.numel() ** 0.5
        assert not adapter.up.weight.any() and not adapter.up.bias.any()
    assert len({adapter.down.weight[0, 0].item() for adapter in _adapters(adapted)}) == len(_adapters(adapted))


def test_in_half_precision_gradients_stay_near_those_in_double() -> None:
    norm, exact = nn.LayerNorm(WIDTH), _adapter(skip=False)
    nn.init.normal_(norm.weight)
    norm.requires_grad_(False)
    half = _adapter(skip=False, dtype=torch.float32)
    x = torch.randn(4, 9, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        y = normed(x.requires_grad_(), norm)
        half(y).float().sum().backward()
    _plain(norm.double()(x.detach().double()), exact).sum().backward()
    for ours, theirs in zip(half.parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        assert ours.grad.dtype == torch.float32
        assert (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm() < 2e-2


def _kept(call: object, but: set[int]) -> int:
    """Bytes that are kept for the gradients, those of storages in `but` left out."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()  # type: ignore[operator]
    return sum(size for at, size in seen.items() if at not in but)


@pytest.mark.parametrize("skip", [True, False])
def test_what_is_kept(skip: bool) -> None:
    """The bottleneck before its GELU, and the input unless an operation before kept what it comes from."""
    adapter = _adapter(skip)
    projection = nn.Linear(WIDTH, WIDTH).double().requires_grad_(False)
    attended = torch.randn(7, WIDTH, dtype=torch.float64, requires_grad=True)
    known = {p.untyped_storage().data_ptr() for p in (*adapter.parameters(), *projection.parameters(), attended)}
    bottleneck, whole = 7 * (WIDTH // 4) * 8, 7 * WIDTH * 8
    assert _kept(lambda: adapter(projected(attended, projection)), known) == bottleneck
    assert _kept(lambda: adapter(attended * 2.0), known) == bottleneck + whole


def _of_down(behind: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The gradients of the first product's weight, ours and as autograd has it, of an input that `behind` computes."""
    found = []
    for plain in (False, True):
        adapter = _adapter(skip=False)
        x = behind(torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(1)).double().requires_grad_())
        out = _plain(x, adapter) if plain else adapter(x)
        found.append(torch.autograd.grad(out.square().sum(), adapter.down.weight)[0])
    return found


class _Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def _hooked() -> nn.Linear:
    linear = nn.Linear(WIDTH, WIDTH)
    linear.register_forward_hook(lambda module, inputs, out: 2 * out)
    return linear


@pytest.mark.parametrize("kind", ["changed in place", "a subclass", "a hook"])
def test_an_origin_that_is_none_any_more_is_not_used(kind: str) -> None:
    torch.manual_seed(3)
    linear = {"changed in place": nn.Linear, "a subclass": _Doubled}.get(kind, lambda *_: _hooked())(WIDTH, WIDTH)
    linear = linear.double().requires_grad_(False)

    def behind(x: Tensor) -> Tensor:
        out = projected(x, linear)
        return out.mul_(3.0) if kind == "changed in place" else out

    torch.testing.assert_close(*_of_down(behind), atol=1e-10, rtol=1e-10)


def test_nothing_is_kept_past_the_hooks_that_take_what_is_saved() -> None:
    """Recomputation, and whatever else takes saved tensors elsewhere, would free nothing otherwise."""
    adapter, projection = _adapter(skip=False), nn.Linear(WIDTH, WIDTH).double().requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda tensor: tensor):
        x = projected(torch.randn(7, WIDTH, dtype=torch.float64), projection)
        origin = recompute_of(x)
        assert origin is not None
        attended = weakref.ref(origin.tensors[0])
        out = adapter(x)
        del x, origin
    assert attended() is None
    assert out.requires_grad
