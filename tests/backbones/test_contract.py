"""Each family, opened, computes what its library's own model computes."""

from __future__ import annotations

import open_clip
import pytest
import timm
import torch

from backbones.families import build, resolve
from backbones.names import BackboneName, UnsupportedModel
from tests.bench.command import quoting
from tests.models import FAMILIES, backbone


def _frames(side: int = 32) -> torch.Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_the_image_models_own(family: str) -> None:
    opened, frames = backbone(family), _frames()
    with torch.no_grad():
        torch.testing.assert_close(opened(frames), opened.model(frames), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tiny_size_is_about_half_a_million_parameters_on_32_pixels(family: str) -> None:
    opened = backbone(family)
    assert 0.4e6 < sum(p.numel() for p in opened.parameters()) < 0.6e6
    assert opened.input_size == 32
    assert opened(_frames()).shape == (3, opened.width)


@pytest.mark.parametrize("family", FAMILIES)
def test_offset_reaches_every_token_of_its_frame(family: str) -> None:
    opened, frames = backbone(family), _frames()
    offset = torch.zeros(3, opened.blocks[0].width)
    offset[1] = torch.randn(opened.blocks[0].width)
    with torch.no_grad():
        changed = (opened.embed(frames, offset) - opened.embed(frames)).flatten(1, -2).abs().amax(-1)
    assert changed[[0, 2]].max() == 0
    assert changed[1].min() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_over_time_mixes_frames_at_a_position_and_nothing_else(family: str) -> None:
    opened = backbone(family)
    block = opened.blocks[0]
    tokens = opened.embed(torch.randn(6, 3, 32, 32)).detach().requires_grad_(True)  # two clips of three frames
    out = block.attend_time(block.norm1(tokens), 3)
    assert out.shape == tokens.shape
    flat = out.flatten(1, -2)
    flat[1, 2].sum().backward()
    reached = tokens.grad.flatten(1, -2).abs().amax(-1) > 0
    assert reached[:3, 2].all()
    reached[:3, 2] = False
    assert not reached.any()


@pytest.mark.parametrize("family", FAMILIES)
def test_copied_attention_has_weights_of_its_own(family: str) -> None:
    block = backbone(family).blocks[0]
    copied = block.copy_attention()
    x = torch.randn(4, 17, block.width) if family != "swin" else torch.randn(4, 8, 8, block.width)
    torch.testing.assert_close(copied.attend_time(copied.norm1(x), 2), block.attend_time(block.norm1(x), 2))
    ours = {id(p) for p in block.module.parameters()}
    assert not ours & {id(p) for p in copied.module.parameters()}


def test_attention_with_a_bias_is_the_softmax_formula() -> None:
    block = backbone("swin").blocks[0]
    attention = block.module.attn
    x, bias = torch.randn(3, 1, 1, block.width), torch.randn(block.heads, 3, 3)
    q, k, v = attention.qkv(x.view(3, -1)).view(3, 3, block.heads, -1).unbind(1)
    weights = (torch.einsum("ihd,jhd->hij", q, k) * q.shape[-1] ** -0.5 + bias).softmax(-1)
    expected = attention.proj(torch.einsum("hij,jhd->ihd", weights, v).reshape(3, -1))
    torch.testing.assert_close(block.attend_time(x, 3, bias).view(3, -1), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("vit:test_vit@none", "test_vit"),
        ("vit:vit_tiny_patch16_224@none", "vit_tiny_patch16_224"),
        ("vit:test_vit2@none", "test_vit2"),  # average pooling, layer scale, a register token
        ("swin:swin_tiny_patch4_window7_224@none", "swin_tiny_patch4_window7_224"),
    ],
)
def test_published_architectures_open_as_timm_builds_them(name: str, architecture: str) -> None:
    expected = timm.create_model(architecture, num_classes=0).eval()
    opened = build(resolve(name, "base")).eval()
    opened.model.load_state_dict(expected.state_dict())
    frames = _frames(opened.input_size)[:1]
    with torch.no_grad():
        torch.testing.assert_close(opened(frames), expected(frames), atol=1e-4, rtol=1e-3)
    assert opened.mean == expected.pretrained_cfg["mean"]


def test_an_open_clip_tower_opens_without_its_projection() -> None:
    opened = build(resolve("clip:ViT-M-32-alt@none", "base")).eval()
    config = open_clip.get_model_config("ViT-M-32-alt")["vision_cfg"]
    assert opened.width == config["width"]
    assert len(opened.blocks) == config["layers"]
    assert opened.mean == open_clip.OPENAI_DATASET_MEAN
    assert "proj" not in dict(opened.model.named_parameters())
    frames = _frames(opened.input_size)[:1]
    with torch.no_grad():
        torch.testing.assert_close(opened(frames), opened.model(frames), atol=1e-4, rtol=1e-3)


def test_a_convolutional_tower_is_refused_with_its_reason() -> None:
    with pytest.raises(UnsupportedModel, match=quoting("ModifiedResNet")):
        build(resolve("clip:RN50@none", "base"))


def test_another_kind_of_block_is_refused_with_its_reason() -> None:
    with pytest.raises(UnsupportedModel, match=quoting("ParallelScalingBlock")):
        build(resolve("vit:vit_pwee_patch16_reg1_gap_256@none", "base"))


@pytest.mark.parametrize(("quick", "activation"), [(True, "QuickGELU"), (False, "GELU")])
def test_an_open_clip_tag_decides_the_activation_it_was_trained_with(monkeypatch, quick: bool, activation: str) -> None:
    """open_clip itself only warns, and OpenAI's weights would run with an activation they were not trained with."""
    asked = {}
    create = open_clip.create_model

    def offline(model: str, pretrained: str, force_quick_gelu: bool):
        asked["tag"] = pretrained
        return create(model, force_quick_gelu=force_quick_gelu)

    monkeypatch.setattr(open_clip, "create_model", offline)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: {"quick_gelu": quick})
    opened = build(BackboneName("clip", "ViT-M-32-alt", "anything"))
    assert asked == {"tag": "anything"}
    assert type(opened.blocks[0].module.mlp.gelu).__name__ == activation
