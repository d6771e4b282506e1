"""Another input size than a model's own: the model that its library builds for that size, of the same weights."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.model import resize_pos_embed
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from backbones.base import FrameSizeError
from backbones.clip import TINY as TINY_CLIP
from backbones.families import FAMILIES, Family, another_size, build, own_size, register_backbone, resolve
from backbones.names import BackboneName, BadInputSize
from backbones.timm_models import TINY as TINY_TIMM
from tests.architectures import opened, randomised, small
from tests.bench.command import quotes, quoting
from tests.models import backbone

_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
_SWIN = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
# timm's architecture, arguments, another size: prefix tokens, pooling, stems and rotary tables of every kind
KINDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "CLS": ("vit_tiny_patch16_224", _VIT, 48),
    "registers": ("vit_small_patch14_reg4_dinov2", _VIT, 24),
    "attention pooling": ("vit_base_patch16_siglip_224", _VIT, 40),
    "distilled": ("deit_tiny_distilled_patch16_224", _VIT, 40),
    "residual stem": ("vit_tiny_r_s16_p8_224", _VIT | {"patch_size": 1, "img_size": 64}, 96),
    "EVA-02": ("eva02_tiny_patch14_224", _VIT, 48),
    "DINOv3": ("vit_small_patch16_dinov3", _VIT, 48),
    "mixed RoPE": ("vit_small_patch16_rope_mixed_ape_224", _VIT, 48),
    "PE": ("vit_pe_core_tiny_patch16_384", _VIT, 48),
    "Swin": ("swin_tiny_patch4_window7_224", _SWIN, 96),
    "Swin V2": ("swinv2_tiny_window8_256", _SWIN, 64),
}


def _frames(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def _same(found: Any, expected: Any, side: int) -> None:
    with torch.no_grad():
        torch.testing.assert_close(found(_frames(side)), expected(_frames(side)), atol=2e-5, rtol=1e-4)


def _timm_builds(architecture: str, shape: dict[str, Any], size: int, state: dict[str, Tensor]) -> nn.Module:
    """Load a state dict by timm's own conversion into a model that timm builds for another size."""
    built = timm.create_model(architecture, pretrained=False, num_classes=0, **{**shape, "img_size": size}).eval()
    convert = sys.modules[type(built).__module__].checkpoint_filter_fn
    built.load_state_dict(convert({name: value.clone() for name, value in state.items()}, built))
    return built


def _open_clip_builds(size: int, state: dict[str, Tensor], **shape: Any) -> nn.Module:
    """The same, of open_clip, without the projection into the space shared with text."""
    built = VisionTransformer(**{**TINY_CLIP, **shape, "image_size": size}).eval()
    whole = {f"visual.{name}": value for name, value in state.items()}
    resize_pos_embed(whole, SimpleNamespace(visual=built))
    built.proj = None
    built.load_state_dict({name.removeprefix("visual."): value for name, value in whole.items()})
    return built


@pytest.mark.parametrize("kind", KINDS)
def test_a_resized_model_is_what_timm_builds_for_that_size(kind: str) -> None:
    architecture, shape, size = KINDS[kind]
    torch.manual_seed(0)
    model = randomised(timm.create_model(architecture, pretrained=False, num_classes=0, **shape))
    expected = _timm_builds(architecture, shape, size, model.state_dict())
    found = opened(model)
    own = found.input_size
    found.resize(size)
    assert found.input_size == size
    _same(found, expected, size)
    with pytest.raises(FrameSizeError):
        found(_frames(own + 1))
    counts = [sum(parameter.numel() for parameter in one.parameters()) for one in (found, expected)]
    assert counts[0] == counts[1]


def test_a_resized_tower_is_what_open_clip_builds_for_that_size() -> None:
    found = backbone("clip")
    expected = _open_clip_builds(56, found.model.state_dict())
    found.resize(56)
    assert found.input_size == 56
    _same(found, expected, 56)
    with pytest.raises(FrameSizeError):
        found(_frames(32))


def test_what_trains_goes_on_training() -> None:
    """And what does not, does not: positions become another parameter of the same kind."""
    for family in ("vit", "clip"):
        for trains in (True, False):
            found = backbone(family)
            found.requires_grad_(trains)
            found.resize(48)
            assert {parameter.requires_grad for parameter in found.parameters()} == {trains}
            assert all(parameter.is_leaf for parameter in found.parameters())


def _loaded(family: str, size: int, state: dict[str, Tensor]) -> nn.Module:
    if family == "clip":
        return _open_clip_builds(size, state)
    return _timm_builds(*TINY_TIMM[family], size, state)


@pytest.mark.parametrize(("family", "size"), [("vit", 56), ("clip", 56), ("swin", 64)])
@pytest.mark.parametrize("weights", ["bundled", "file"])
def test_bundled_weights_and_files_are_those_of_the_library(
    family: str, size: int, weights: str, tmp_path: Path
) -> None:
    state = {name: value.contiguous() for name, value in backbone(family, seed=3).model.state_dict().items()}
    file = tmp_path / "w.safetensors"
    save_file(state, file)
    name = resolve(f"{family}:tiny@{file if weights == 'file' else weights}", "tiny")
    assert name.stored is not None
    _same(build(name, size).eval(), _loaded(family, size, load_file(name.stored)), size)


@pytest.mark.parametrize(("family", "key"), [("vit", "pos_embed"), ("clip", "positional_embedding")])
def test_positions_of_that_very_size_in_a_file_are_taken_as_they_are(family: str, key: str, tmp_path: Path) -> None:
    """Not by way of the model's own size, which would lose the half of them."""
    large = backbone(family, seed=3)
    large.resize(64)
    with torch.no_grad():
        getattr(large.model, key).normal_()
    save_file(
        {name: value.contiguous() for name, value in large.model.state_dict().items()}, tmp_path / "w.safetensors"
    )
    found = build(resolve(f"{family}:tiny@{tmp_path / 'w.safetensors'}", "tiny"), 64)
    assert torch.equal(getattr(found.model, key), getattr(large.model, key))


@pytest.mark.parametrize("family", ["vit", "clip", "swin"])
def test_random_weights_are_those_of_the_same_seed_at_the_own_size(family: str) -> None:
    own = backbone(family)
    torch.manual_seed(0)
    found = build(resolve(f"{family}:tiny@none", "tiny"), 64).eval()
    _same(found, _loaded(family, 64, own.model.state_dict()), 64)


def test_weights_of_a_hub_are_interpolated_from_the_size_of_the_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    source = randomised(create("test_vit", num_classes=0)).eval()

    def offline(name: str, pretrained: bool, num_classes: int, **shape: Any) -> nn.Module:
        model = create(name.partition(".")[0], num_classes=num_classes, **shape)
        if pretrained:
            model.load_state_dict(source.state_dict())
        return model

    monkeypatch.setattr(timm, "create_model", offline)
    found = build(BackboneName("vit", "test_vit", "r160_in1k"), 224).eval()
    monkeypatch.undo()
    assert source.patch_embed.img_size == (160, 160)
    _same(found, _timm_builds("test_vit", {}, 224, source.state_dict()), 224)


@pytest.mark.parametrize("model", ["ViT-M-32-alt", "ViT-B-16-SigLIP"])
def test_weights_of_open_clips_hub_too(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tower of open_clip's own, one which is a timm model inside; small ones in their place."""
    if model == "ViT-M-32-alt":
        source: Any = VisionTransformer(**TINY_CLIP).eval()
        state = {name: value for name, value in source.state_dict().items() if name != "proj"}
        expected: Any = _open_clip_builds(64, state)
    else:
        source = TimmModel("test_vit", embed_dim=8, image_size=160, pool="", proj="linear").eval()
        expected = copy.deepcopy(source)
        expected.set_input_size(64)  # as open_clip does where it is asked for a size
        expected = expected.trunk
        expected.reset_classifier(0)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: {})
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: SimpleNamespace(visual=source))
    found = build(BackboneName("clip", model, "anything"), 64).eval()
    assert found.input_size == 64
    _same(found, expected, 64)


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [
        ("clip:ViT-B-16@none", 230, "224 or 240"),
        ("clip:ViT-L-14@none", 335, "322 or 336"),
        ("vit:vit_base_patch16_224@none", 5, "16"),
        ("swin:swin_base_patch4_window7_224@none", 336, "224 or 448"),
        ("swin:swin_base_patch4_window7_224@none", 112, "224"),
        ("swin:swin_base_patch4_window12_384@none", 448, "384 or 768"),
        # the last stage's window is 8, the whole of its grid
        ("swin:swinv2_base_window16_256@none", 384, "256 or 512"),
        ("clip:ViT-SO400M-14-SigLIP-384@none", 400, "392 or 406"),
        ("swin:tiny", 48, "32 or 64"),
    ],
)
def test_a_size_that_does_not_divide_is_refused_with_the_nearest(name: str, size: int, near: str) -> None:
    with pytest.raises(BadInputSize) as refused:
        another_size(resolve(name, "base"), size)
    assert quotes(refused.value, f"input_size is {size}", near)
    for other in map(int, near.split(" or ")):
        assert another_size(resolve(name, "base"), other) in (other, None)
    with pytest.raises(BadInputSize):
        build(resolve(name, "base"), size)


def test_the_own_size_is_no_other_one_even_where_it_does_not_divide() -> None:
    for name, own in (("clip:ViT-B-16@none", 224), ("clip:ViT-SO400M-14-SigLIP-384@none", 384), ("swin:tiny", 32)):
        assert own_size(resolve(name, "base")) == own
        assert another_size(resolve(name, "base"), own) is None
        assert another_size(resolve(name, "base"), None) is None


def test_a_swin_keeps_its_windows() -> None:
    found = backbone("swin")
    tables = [name for name, _ in found.named_parameters() if name.endswith("bias_table")]
    before = {name: value.clone() for name, value in found.state_dict().items()}
    found.resize(96)
    assert tables and all(torch.equal(value, before[name]) for name, value in found.state_dict().items())
    assert {block.module.window_size for block in found.blocks} == {(4, 4)}
    # now the last stage has several windows, and shifts them
    assert [block.module.shift_size for block in found.blocks] == [(0, 0), (2, 2)] * 2


def test_trained_positions_are_resized_by_timms_filter() -> None:
    found = small("registers and layer scale")
    before = found.model.pos_embed.detach().clone()
    found.resize(48)
    expected = resample_abs_pos_embed(before, [6, 6], num_prefix_tokens=0)  # DINOv2's registers have no position
    assert torch.equal(found.model.pos_embed, expected)


class _Fixed(Family):
    name, summary, base = "fixed", "takes one size alone", "one"

    def models(self) -> tuple[str, ...]:
        return ("one",)

    def tags(self, model: str) -> tuple[str, ...]:
        return ()

    def build(self, name: BackboneName) -> Any:  # type: ignore[override]
        return backbone("vit")


def test_a_family_of_before_takes_its_own_size_alone() -> None:
    FAMILIES.names()
    register_backbone(_Fixed)
    try:
        name = BackboneName("fixed", "one", "none")
        assert build(name).input_size == 32
        for size in (32, 64):
            with pytest.raises(BadInputSize, match=quoting(f"input_size is {size}", "fixed:one")):
                build(name, size)
    finally:
        del FAMILIES._entries["fixed"]
