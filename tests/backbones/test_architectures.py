"""Every kind of image model, opened, computes what its library computes, over space and over time."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from backbones.base import FrameSizeError
from backbones.families import FAMILIES, why_unsupported
from backbones.names import BackboneName, UnsupportedModel
from tests.architectures import BUILDERS, opened, small
from tests.bench.command import Wording, quotes, quoting

each_kind = pytest.mark.parametrize("kind", BUILDERS)


def _frames(height: int = 32, width: int = 32, count: int = 3) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def _own(model: torch.nn.Module, frames: Tensor) -> Tensor:
    """The library's own features; CoCa's tower gives its tokens beside them."""
    with torch.no_grad():
        found = model(frames)
    return found[0] if isinstance(found, tuple) else found


@each_kind
def test_features_are_the_image_models_own(kind: str) -> None:
    backbone, frames = small(kind), _frames()
    own = _own(backbone.model, frames)
    assert own.shape == (3, backbone.width)
    assert torch.isfinite(own).all() and own.std() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(backbone(frames), own, atol=1e-5, rtol=1e-4)
        # nothing is dropped and no statistics move while others train around it
        torch.testing.assert_close(backbone.train()(frames), own, atol=1e-5, rtol=1e-4)


@each_kind
def test_what_the_contract_promises_is_there_and_the_final_norm_behind_the_last_block(kind: str) -> None:
    backbone = small(kind)
    assert backbone.input_size == 32
    assert len(backbone.mean) == len(backbone.std) == 3
    assert len(backbone.blocks) == (4 if "Swin" in kind else 2)
    owned = {id(parameter) for parameter in backbone.parameters()}
    final = {id(p) for p in backbone.final_norm.parameters()}
    assert final and final < owned
    embeddings = list(backbone.embeddings())
    assert embeddings and {id(p) for p in embeddings} < owned
    assert len(embeddings) == len({id(p) for p in embeddings})
    called: list[bool] = []
    backbone.final_norm.register_forward_hook(lambda *_: called.append(True))
    tokens = backbone.embed(_frames())
    for block in backbone.blocks:
        tokens = block.enter(tokens)
        assert tokens.shape[-1] == block.width
        assert block.width % block.heads == 0
        assert block.time_bias == ("Swin" in kind)
    assert not called
    backbone.finish(tokens)
    assert called == [True]


@each_kind
def test_over_time_a_token_sees_its_own_position_alone(kind: str) -> None:
    backbone = small(kind)
    block = backbone.blocks[0]
    tokens = backbone.embed(torch.randn(6, 3, 32, 32)).detach().requires_grad_(True)  # two clips of three frames
    out = block.attend_time(block.norm1(tokens), 3)
    assert out.shape == tokens.shape
    (out.flatten(1, -2)[1, 2] * torch.randn(block.width)).sum().backward()
    reached = tokens.grad.flatten(1, -2).abs().amax(-1) > 0
    assert reached[:3, 2].all()
    reached[:3, 2] = False
    assert not reached.any()


@each_kind
def test_copied_attention_computes_the_same_with_weights_of_its_own(kind: str) -> None:
    backbone = small(kind)
    block = backbone.blocks[-1]
    copied = block.copy_attention()
    x = torch.randn(4, 17, block.width) if "Swin" not in kind else torch.randn(4, 4, 4, block.width)
    frames = torch.randn(block.heads, 2, 2) if block.time_bias else None
    torch.testing.assert_close(
        copied.attend_time(copied.norm1(x), 2, frames), block.attend_time(block.norm1(x), 2, frames)
    )
    assert not {id(p) for p in block.module.parameters()} & {id(p) for p in copied.module.parameters()}
    copied.attend_time(copied.norm1(x), 2, frames).sum().backward()
    assert all(p.grad is not None for p in copied.module.parameters())
    assert all(p.grad is None for p in block.module.parameters())


def _softmax_attention(q: Tensor, k: Tensor, v: Tensor, scale: Tensor | float, bias: Tensor | None = None) -> Tensor:
    """(T, heads, d) each -> (T, heads d), one query and one head at a time."""
    frames, heads, _ = q.shape
    rows = []
    for at in range(frames):
        row = []
        for head in range(heads):
            factor = scale if isinstance(scale, float) else scale[head]
            logits = torch.stack([q[at, head] @ k[other, head] * factor for other in range(frames)])
            if bias is not None:
                logits = logits + bias[head, at]
            shares = torch.exp(logits - logits.max())
            row.append((shares / shares.sum()) @ v[:, head])
        rows.append(torch.cat(row))
    return torch.stack(rows)


@each_kind
def test_a_copy_computes_by_itself(kind: str) -> None:
    """Averages of weights and other processes work on copies."""
    backbone, frames = small(kind), _frames()
    expected = backbone(frames).detach()
    copied = pickle.loads(pickle.dumps(copy.deepcopy(backbone)))
    with torch.no_grad():
        if kind == "DINOv3":
            backbone(_frames(16, 16))
        for parameter in backbone.parameters():
            parameter.zero_()
        torch.testing.assert_close(copied(frames), expected, atol=1e-6, rtol=1e-6)


def test_rotary_attention_runs_over_time_without_rotation() -> None:
    backbone = small("EVA-02").double()
    block = backbone.blocks[1]
    attention = block.module.attn
    backbone.embed(_frames(count=4).double())  # so that there is a rotation, which over time must not count
    assert block.rotation.at(1) is not None
    x = torch.randn(4, 1, block.width, dtype=torch.float64)
    shift = torch.cat([attention.q_bias, torch.zeros(block.width, dtype=torch.float64), attention.v_bias])
    q, k, v = (x[:, 0] @ attention.qkv.weight.T + shift).view(4, 3, block.heads, -1).unbind(1)
    mixed = _softmax_attention(q, k, v, q.shape[-1] ** -0.5)
    expected = attention.norm(mixed) @ attention.proj.weight.T + attention.proj.bias
    torch.testing.assert_close(block.attend_time(x, 4)[:, 0], expected)


@pytest.mark.parametrize("sharp", [False, True])
def test_swin_v2_attends_over_time_by_cosines(sharp: bool) -> None:
    """softmax(cos(q, k) tau + B) v with tau at most 100, and the norm behind it."""
    block = small("Swin V2").double().blocks[2]
    module, attention = block.module, block.module.attn
    with torch.no_grad():
        attention.logit_scale.fill_(7.0 if sharp else 0.5)
    x, bias = (torch.randn(size, dtype=torch.float64) for size in ((3, 1, 1, block.width), (block.heads, 3, 3)))
    shift = torch.cat([attention.q_bias, torch.zeros(block.width, dtype=torch.float64), attention.v_bias])
    q, k, v = (x[:, 0, 0] @ attention.qkv.weight.T + shift).view(3, 3, block.heads, -1).unbind(1)
    q, k = (t / t.norm(dim=-1, keepdim=True) for t in (q, k))
    scale = torch.full((block.heads,), 100.0 if sharp else math.exp(0.5), dtype=torch.float64)
    mixed = _softmax_attention(q, k, v, scale, bias)
    expected = module.norm1(mixed @ attention.proj.weight.T + attention.proj.bias)
    torch.testing.assert_close(block.norm1(x), x)
    torch.testing.assert_close(block.attend_time(x, 3, bias)[:, 0, 0], expected)


@each_kind
def test_frames_of_another_size_are_a_clear_error(kind: str) -> None:
    backbone = small(kind)
    free = kind in ("DINOv3", "grouped queries")
    with pytest.raises(FrameSizeError, match=quoting("36x32", *(() if free else ("32x32",)))):
        backbone(_frames(36, 32))


_TALL = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


@pytest.mark.parametrize(
    ("architecture", "shape", "size"),
    [
        ("vit_tiny_patch16_224", _TALL, (32, 48)),
        ("vit_tiny_patch16_224", {**_TALL, "dynamic_img_size": True}, (48, 24)),
        ("vit_tiny_patch16_224", {**_TALL, "dynamic_img_size": True, "dynamic_img_pad": True}, (30, 27)),
        ("eva02_tiny_patch14_224", _TALL, (32, 48)),
        ("vit_small_patch16_dinov3", _TALL, (16, 40)),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": (32, 64), "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
            (32, 64),
        ),
        (
            "swinv2_tiny_window8_256",
            {
                "img_size": 32,
                "embed_dim": 32,
                "depths": (2, 2),
                "num_heads": (2, 4),
                "window_size": 4,
                "strict_img_size": False,
            },
            (32, 64),
        ),
    ],
    ids=str,
)
def test_frames_need_not_be_square_where_the_model_takes_them(architecture: str, shape: dict, size: tuple) -> None:
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=0, **shape).eval()
    frames = _frames(*size)
    with torch.no_grad():
        torch.testing.assert_close(opened(model)(frames), model(frames), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("vit:vit_pwee_patch16_reg1_gap_256", ("ParallelScalingBlock",)),
        ("vit:vit_dpwee_patch16_reg1_gap_256", ("DiffParallelScalingBlock",)),
        ("vit:vit_small_patch16_18x2_224", ("ParallelThingsBlock",)),
        ("clip:convnext_base", ("clip:convnext_base", "ConvNeXt", "timm")),
        ("clip:RN50", ("clip:RN50", "ModifiedResNet")),
        ("clip:vit_relpos_medium_patch16_cls_224", ("VisionTransformerRelPos",)),
    ],
)
def test_what_does_not_fit_is_refused_by_name_with_its_reason(
    name: str, values: tuple[str, ...], wording: Wording
) -> None:
    family, model = name.split(":")
    reason = why_unsupported(family, model)
    assert quotes(reason, *values) and "@" not in str(reason)
    wording([reason])


def test_models_that_do_not_pool_are_refused(wording: Wording) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool="", depth=1)
    with pytest.raises(UnsupportedModel) as refused:
        opened(model)
    wording([refused.value])


@pytest.mark.parametrize(
    "more", [{"pool_type": "none"}, {"attentional_pool": "parallel"}, {"scaled_cosine_attn": True}], ids=str
)
def test_towers_of_open_clips_that_give_no_vector_or_do_not_run_are_refused(more: dict, wording: Wording) -> None:
    tower = VisionTransformer(32, 8, width=48, layers=1, heads=3, mlp_ratio=2.0, **more)
    with pytest.raises(UnsupportedModel, match=quoting("theirs")) as refused:
        opened(tower, "theirs")
    wording([refused.value])


def test_a_text_tower_is_not_needed_and_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are transformers models, whose configuration lies on a hub."""
    import socket

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    assert why_unsupported("clip", "roberta-ViT-B-32") is None


def test_pixels_are_scaled_as_in_pretraining() -> None:
    with torch.device("meta"):
        for model, mean in (("ViT-B-32", 0.48145466), ("ViT-B-32-SigLIP2-256", 0.5), ("ViT-L-14-CLIPA", 0.485)):
            assert FAMILIES.get("clip").build(BackboneName("clip", model, "none")).mean[0] == pytest.approx(mean)


def test_a_trunk_that_open_clip_holds_opens_without_its_projection() -> None:
    with torch.device("meta"):
        backbone = FAMILIES.get("clip").build(BackboneName("clip", "EVA02-B-16", "none"))
    assert type(backbone).__name__ == "Eva"
    assert not [name for name, _ in backbone.named_parameters() if "head" in name]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES.names())
def test_every_model_of_the_libraries_opens_or_is_refused_with_a_reason(family: str) -> None:
    found = {model: why_unsupported(family, model) for model in FAMILIES.get(family).models()}
    assert sum(reason is None for reason in found.values()) > 0.8 * len(found)
    for model, reason in found.items():
        assert reason is None or (model in reason and len(reason) > 40)
