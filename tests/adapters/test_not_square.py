"""Video models on frames that are not square, against the equations, clip by clip of an odd number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import open_clip.transformer
import pytest
import timm
import torch
from torch import nn

from adapters.classifier import VideoClassifier
from tests.adapters.equations import CASES, Windows, assert_alike, logits_swin, logits_vit_or_clip, video_model
from tests.architectures import opened

each_case = pytest.mark.parametrize(("strategy", "options"), CASES, ids=str)
_VIT = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
_SWIN = {"patch_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}


def _timm(architecture: str, **shape: object) -> nn.Module:
    return timm.create_model(architecture, num_classes=0, **shape)


def _clip() -> nn.Module:
    return open_clip.transformer.VisionTransformer(
        image_size=(24, 40), patch_size=8, width=24, layers=2, heads=3, mlp_ratio=2.0, output_dim=24
    )


def _swin(**shape: object) -> nn.Module:
    return _timm("swin_tiny_patch4_window7_224", **_SWIN, **shape)


def _resized_swin() -> nn.Module:
    model = _swin(img_size=32)
    model.set_input_size((64, 32), window_size=(4, 8))
    return model


def _model(build: Callable[[], nn.Module], strategy: str, options: dict[str, object], frames: int) -> VideoClassifier:
    torch.manual_seed(0)
    return video_model(opened(build()), strategy, options, frames).eval()


def _clips(frames: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(1, frames, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@each_case
@pytest.mark.parametrize(
    ("build", "size"),
    [
        (lambda: _timm("vit_tiny_patch16_224", img_size=(24, 40), **_VIT), (24, 40)),
        (lambda: _timm("vit_tiny_patch16_224", img_size=32, dynamic_img_size=True, **_VIT), (40, 16)),
        (_clip, (24, 40)),
    ],
    ids=["vit built so", "vit of any size", "clip built so"],
)
def test_vit_and_clip_compute_the_equations(
    build: Callable[[], nn.Module], size: tuple[int, int], strategy: str, options: dict[str, object]
) -> None:
    adapted, x = _model(build, strategy, options, 3), _clips(3, size)
    assert_alike(adapted, adapted(x), logits_vit_or_clip(adapted, x))


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # on how it resizes a table
@each_case
@pytest.mark.parametrize(
    ("build", "size", "frames", "windows"),
    [
        # the second stage is one window high and two wide: it is shifted sideways alone
        (lambda: _swin(img_size=(32, 64)), (32, 64), 6, (((4, 4), (2, 2)), ((4, 4), (0, 2)))),
        # windows that are not square either
        (_resized_swin, (64, 32), 3, (((4, 8), (2, 0)), ((4, 4), (2, 0)))),
        # shifts are those of the size that it was built for
        (lambda: _swin(img_size=32, strict_img_size=False), (64, 32), 3, (((4, 4), (2, 2)), ((4, 4), (0, 0)))),
    ],
    ids=["built so", "resized", "of any size"],
)
def test_swin_computes_the_equations(
    build: Callable[[], nn.Module],
    size: tuple[int, int],
    frames: int,
    windows: Sequence[Windows],
    strategy: str,
    options: dict[str, object],
) -> None:
    adapted, x = _model(build, strategy, options, frames), _clips(frames, size)
    assert_alike(adapted, adapted(x), logits_swin(adapted, x, windows=windows))
