"""Attention among frames: batched products and the GPU's kernel give what the equation says, gradients included."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from backbones.base import over_time
from backbones.kernels.attention import among_frames, multi_head
from tests.models import backbone

# Triton's interpreter is chosen when the kernels are defined: in a process of its own
KERNEL = """
import torch
from torch.utils.flop_counter import FlopCounterMode
from backbones.kernels.attention import among_frames
from backbones.kernels.frame_attention import frame_attention

for clips, frames, positions, heads, depth in ((2, 8, 5, 3, 16), (1, 3, 4, 2, 8), (1, 17, 3, 2, 24), (1, 1, 2, 1, 16)):
    torch.manual_seed(frames)
    qkv = torch.randn(clips * frames, positions, 3 * heads * depth, requires_grad=True)
    with FlopCounterMode(display=False) as ours:
        found = frame_attention(qkv, frames, heads)
    with FlopCounterMode(display=False) as theirs:
        expected = among_frames(qkv, frames, heads)
    gradient = torch.randn_like(expected)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with ours:
        (by_kernel,) = torch.autograd.grad(found, qkv, gradient)
    with theirs:
        (by_products,) = torch.autograd.grad(expected, qkv, gradient)
    torch.testing.assert_close(by_kernel, by_products, atol=1e-5, rtol=1e-5)
    assert ours.get_total_flops() == theirs.get_total_flops() > 0
    torch.library.opcheck(frame_attention, (qkv, frames, heads), test_utils=("test_schema", "test_faketensor"))
print("agreed")
"""


def _random(clips: int, frames: int, positions: tuple[int, ...], width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(clips * frames, *positions, 3 * width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("clips", "frames", "positions"), [(1, 8, (5,)), (2, 3, (4,)), (2, 1, (3,)), (1, 4, (2, 3))])
@pytest.mark.parametrize("biased", [False, True])
def test_frames_see_each_other_at_their_position(
    clips: int, frames: int, positions: tuple[int, ...], biased: bool
) -> None:
    qkv = _random(clips, frames, positions, 12).requires_grad_()
    bias = torch.randn(3, frames, frames, dtype=torch.float64, requires_grad=True) if biased else None
    # the same by rearranging the tokens
    rearranged = over_time(lambda x: multi_head(x, 3, bias).repeat(1, 1, 3), qkv, frames)[..., :12]
    found = among_frames(qkv, frames, 3, bias)
    torch.testing.assert_close(found, rearranged, atol=1e-12, rtol=1e-12)
    inputs = [x for x in (qkv, bias) if x is not None]
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), inputs),
        torch.autograd.grad(rearranged.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_in_half_precision_a_cpus_products_agree_with_its_kernel() -> None:
    qkv = _random(3, 1, (7,), 32)
    found = multi_head(qkv.bfloat16(), 4)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), multi_head(qkv, 4), atol=0.03, rtol=0.03)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch on Linux alone")
def test_the_kernel_computes_what_the_products_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = subprocess.run([sys.executable, "-c", KERNEL], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "agreed", done.stderr[-2000:]


def test_an_attention_that_was_put_into_a_swin_is_the_one_that_runs() -> None:
    class Nothing(torch.nn.Module):
        num_heads = 2

        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            return torch.zeros_like(x)

    swin = backbone("swin")
    block = swin.blocks[0]
    x = torch.randn(2, 8, 8, block.width)
    assert block.attend(x).any()
    block.module.attn = Nothing()
    assert not block.attend(x).any()
