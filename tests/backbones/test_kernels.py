"""Hand-written kernels and their plain forms: the same function, and one switch for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.base import Backbone
from backbones.clip import TINY, CLIPBlock
from backbones.kernels.attention import among_frames, among_windows, multi_head, projected
from backbones.kernels.mlp import bottleneck, quick_gelu_mlp
from backbones.kernels.norm import normed
from backbones.kernels.precision import cast_frozen_weights
from backbones.kernels.recompute import recompute_of
from backbones.kernels.switch import Kernels, is_fast, kernels, using
from tests.architectures import opened
from tests.models import CLASSES, FAMILIES, FRAMES, awaken, backbone, clips

WIDTH, HEADS = 12, 3
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    torch.manual_seed(inputs)
    return nn.Linear(inputs, outputs)


def _adapter(frozen: nn.Linear, down: nn.Linear, up: nn.Linear) -> Callable[[Tensor], Tensor]:
    """A bottleneck behind a frozen product, from which the fast form works its input out again."""
    frozen.requires_grad_(False)
    return lambda x: bottleneck(projected(x, frozen), down, up)


# name -> the function, its inputs, and the modules that it computes with
Case = tuple[Callable[..., Tensor], list[Tensor], list[nn.Module]]


def _cases() -> dict[str, Case]:
    up, down, wide, narrow = _linear(WIDTH, 4), _linear(4, WIDTH), _linear(WIDTH, 48), _linear(48, WIDTH)
    frozen, norm = _linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
    qkv, bias = _random(2 * 4, 5, 3 * WIDTH), _random(HEADS, 4, 4, seed=1)
    windows = _random(2, 4, 6, 3 * WIDTH)
    return {
        "multi-head": (lambda x: multi_head(x, HEADS), [qkv], []),
        "multi-head, biased": (lambda x, b: multi_head(x, HEADS, b), [qkv, _random(HEADS, 5, 5)], []),
        "among frames": (lambda x: among_frames(x, 4, HEADS), [qkv], []),
        "among frames, biased": (lambda x, b: among_frames(x, 4, HEADS, b), [qkv, bias], []),
        "among frames of a grid": (lambda x: among_frames(x, 2, HEADS), [windows], []),
        "among windows": (lambda x, b: among_windows(x, (2, 3), HEADS, b), [windows, _random(1, HEADS, 6, 6)], []),
        "masked windows": (lambda x, b: among_windows(x, (2, 3), HEADS, b), [windows, _random(4, HEADS, 6, 6)], []),
        "norm": (lambda x: normed(x, norm), [_random(3, 5, WIDTH)], [norm]),
        "quick GELU": (lambda x: quick_gelu_mlp(x, wide, narrow), [_random(3, 5, WIDTH)], [wide, narrow]),
        "bottleneck": (lambda x: bottleneck(x, up, down), [_random(3, 5, WIDTH)], [up, down]),
        "recomputed input": (_adapter(frozen, up, down), [_random(3, 5, WIDTH)], [frozen, up, down]),
    }


def _with_gradients(
    chosen: Kernels, call: Callable[..., Tensor], inputs: list[Tensor], modules: list[nn.Module]
) -> list[Tensor]:
    """The output and the gradients of all that trains."""
    given = [x.detach().clone().requires_grad_() for x in inputs]
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    with using(chosen):
        out = call(*given)
    return [out, *torch.autograd.grad(out, [*given, *trained], _random(*out.shape, seed=9).to(out.dtype))]


@pytest.mark.parametrize("name", _cases())
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_both_forms_of_a_kernel_agree(name: str, dtype: torch.dtype) -> None:
    call, inputs, modules = _cases()[name]
    inputs, modules = [x.to(dtype) for x in inputs], [module.to(dtype) for module in modules]
    fast, plain = (_with_gradients(chosen, call, inputs, modules) for chosen in ("fast", "plain"))
    tolerance = TOLERANCES[dtype]
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", _cases())
def test_both_forms_agree_under_autocast_as_far_as_its_rounding_goes(name: str) -> None:
    call, inputs, modules = _cases()[name]
    inputs, modules = [x.float() for x in inputs], [module.float() for module in modules]
    with torch.autocast("cpu", torch.bfloat16):
        inputs = inputs if modules else [x.bfloat16() for x in inputs]
        fast, plain = (_with_gradients(chosen, call, inputs, modules) for chosen in ("fast", "plain"))
    for ours, theirs in zip(fast, plain, strict=True):
        assert (ours.float() - theirs.float()).norm() < 2e-2 * theirs.float().norm()


def _quick_clip() -> Backbone:
    """A CLIP of OpenAI's kind, with QuickGELU, which the tiny CLIP lacks."""
    torch.manual_seed(0)
    shape = {"image_size": 32, "patch_size": 8, "width": 48, "layers": 2, "heads": 3, "mlp_ratio": 4.0}
    return opened(VisionTransformer(**shape, output_dim=48, act_layer=QuickGELU))


def _joint(family: str) -> VideoClassifier:
    joint = STRATEGIES.get("joint")
    opened_ = _quick_clip() if family == "OpenAI's CLIP" else backbone(family)
    options = joint.options(temporal_adapters=2)
    found = VideoClassifier(opened_, joint, options, classes=CLASSES, frames=FRAMES, dropout=0.0).train()
    awaken(found)
    return found


@pytest.mark.parametrize("family", [*FAMILIES, "OpenAI's CLIP"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_both_forms_of_a_whole_model_agree(family: str, dtype: torch.dtype) -> None:
    x = clips().to(dtype)
    found: dict[str, list[Tensor]] = {}
    for chosen in ("fast", "plain"):
        adapted = _joint(family).to(dtype)
        with using(chosen):  # type: ignore[arg-type]
            out = adapted(x)
            out.square().mean().backward()
        found[chosen] = [out.detach(), *(p.grad for _, p in adapted.trained() if p.grad is not None)]
    tolerance = TOLERANCES[dtype]
    assert len(found["fast"]) == len(found["plain"]) > 20
    for ours, theirs in zip(found["fast"], found["plain"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def _operations(out: Tensor) -> Iterator[str]:
    """Names of the functions whose gradients lead to a result."""
    seen, left = set(), [out.grad_fn]
    while left:
        if (function := left.pop()) is not None and function not in seen:
            seen.add(function)
            left += [before for before, _ in function.next_functions]
            yield function.name()


@pytest.mark.parametrize("family", [*FAMILIES, "OpenAI's CLIP"])
@pytest.mark.parametrize("chosen", ["fast", "plain"])
def test_the_switch_turns_all_of_it_off(family: str, chosen: Kernels) -> None:
    """Functions of our own in the graph, weights that are cast and inputs that are worked out again: all or none."""
    with using(chosen), torch.autocast("cpu", torch.bfloat16):
        adapted = _joint(family)
        cast_frozen_weights(adapted, torch.bfloat16)
        names = {name for name in _operations(adapted(clips())) if name.startswith("_")}
        x = projected(torch.randn(2, WIDTH), _linear(WIDTH, WIDTH).requires_grad_(False))
    fast = chosen == "fast"
    assert names == ({"_BottleneckBackward", "_NormBackward"} if fast else set())
    assert {p.dtype for p in adapted.parameters()} == ({torch.float32, torch.bfloat16} if fast else {torch.float32})
    assert (recompute_of(x) is not None) == fast


def _broken() -> None:
    with using("plain"):
        with using("fast"):
            assert is_fast()
        assert kernels() == "plain"
        raise ValueError("broken")


def test_the_switch_is_back_where_it_was_whatever_happens_inside() -> None:
    assert kernels() == "fast"
    with pytest.raises(ValueError, match="broken"):
        _broken()
    assert is_fast()


def test_the_mlp_of_openais_clip_is_the_equation() -> None:
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
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_a_product_that_a_strategy_replaced_is_computed_as_it_is() -> None:
    block = CLIPBlock(VisionTransformer(**TINY, act_layer=QuickGELU).transformer.resblocks[0])
    mlp = block.module.mlp
    x = torch.randn(2, 5, block.width)
    torch.testing.assert_close(block.mlp(x), mlp(x), atol=1e-5, rtol=1e-4)
    mlp.c_fc = _Doubled(mlp.c_fc.in_features, mlp.c_fc.out_features)
    torch.testing.assert_close(block.mlp(x), mlp(x), atol=1e-5, rtol=1e-4)
