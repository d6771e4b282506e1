"""Other papers' methods: outputs and gradients of their equations, what trains, and what merging leaves."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from adapters.heads import HEADS
from bench.measure.counts import macs_by_part
from bench.measure.params import count
from tests.adapters.equations import TINY_WINDOWS, assert_alike, merged, plain, windowed
from tests.models import CLASSES, FAMILIES, FRAMES, awaken, backbone, clips, image_features, model
from tests.reference import methods as equations

FIELD = ("bitfit", "lora", "adaptformer", "vpt", "st-adapter", "zeroi2v", "evl")
REFUSED = {("swin", "vpt"), ("swin", "evl")}
DEFINED = [(family, name) for family in FAMILIES for name in FIELD if (family, name) not in REFUSED]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("bitfit", {}),
    ("lora", {"rank": 3, "alpha": 5.0}),
    ("lora", {"rank": 2, "projections": "query,key,value,output,up,down"}),
    ("adaptformer", {"bottleneck": 5, "side_scale": 0.7}),
    ("vpt", {"tokens": 3}),
    ("vpt", {"tokens": 2, "deep": False}),
    ("st-adapter", {"channels": 5}),
    ("st-adapter", {"channels": 4, "per_block": 2, "kernel": "3,3,1"}),
    ("zeroi2v", {"ratio": 0.1, "scale": 0.7}),
    ("zeroi2v", {"shifts": "1,-1,2", "scale": 1.0, "ratio": 0.05}),
    ("evl", {"layers": 2}),
]


# --- equations ---


def _pair(module: Any) -> tuple[plain.Affine, plain.Affine]:
    return plain.affine(module.down), plain.affine(module.up)


def _adapted_block(name: str, block: Any, own: plain.Weights, x: Tensor, options: Any, around: Any) -> Tensor:
    """One clip (T, ..., D) through a block; `around`: attention of normed tokens, prefix and grid."""
    attend, prefix, grid = around
    if name == "lora":
        updates = {role: (update.down.weight, update.up.weight) for role, update in block.updates.items()}
        own = equations.low_rank(own, updates, options.alpha / options.rank)
    if name == "vpt" and options.deep:
        prompts = block.prompts.expand(len(x), -1, -1)
        x = torch.cat([x[:, :prefix], prompts, x[:, prefix:]], dim=1)

    def adapted(x: Tensor, module: Any) -> Tensor:
        down, up = _pair(module)
        patches = x if x.ndim == 4 else x[:, prefix:].unflatten(1, grid)
        found = equations.space_time(patches, down, module.conv.weight[:, 0], module.conv.bias, up)
        return found if x.ndim == 4 else torch.cat([x[:, :prefix], found.flatten(1, 2)], dim=1)

    if name == "st-adapter" and options.per_block == 2:
        x = adapted(x, block.before_attention)
    normed = plain.norm(x, own.norm1)
    if name == "zeroi2v":
        shifts = [int(shift) for shift in options.shifts.split(",")]
        normed = equations.linear_adapter(normed, *_pair(block.before_attention), options.scale)
        mixing = partial(equations.shifted_attention, shifts=shifts)
        attended = mixing(normed, own) if x.ndim == 3 else attend(normed, own, attend=mixing)
        x = x + equations.linear_adapter(attended, *_pair(block.behind_attention), options.scale)
        normed = equations.linear_adapter(plain.norm(x, own.norm2), *_pair(block.before_mlp), options.scale)
        return x + equations.linear_adapter(plain.mlp(normed, own), *_pair(block.behind_mlp), options.scale)
    x = x + attend(normed, own)
    if name == "st-adapter":
        x = adapted(x, block.before_mlp)
    side = equations.beside(x, *_pair(block), options.side_scale) if name == "adaptformer" else 0
    x = x + plain.mlp(plain.norm(x, own.norm2), own) + side
    if name == "vpt" and options.deep:
        x = torch.cat([x[:, :prefix], x[:, prefix + options.tokens :]], dim=1)
    return x


def _of_vit_or_clip(adapted: VideoClassifier, x: Tensor) -> Tensor:
    """(B, T, 3, H, W) -> (B, classes)."""
    name, options, net, body = adapted.strategy.name, adapted.options, adapted.backbone.model, adapted.body
    embedding = body.temporal_embedding[0] if name == "zeroi2v" else None
    if hasattr(net, "patch_embed"):
        weights, final = plain.of_vit, plain.affine(net.norm)
        clips = [plain.embedded(c, net.patch_embed.proj, net.cls_token[0, 0], net.pos_embed[0], embedding) for c in x]
    else:
        weights, final = plain.of_clip, plain.affine(net.ln_post)
        clips = [plain.embedded(c, net.conv1, net.class_embedding, net.positional_embedding, embedding) for c in x]
        clips = [plain.norm(clip, plain.affine(net.ln_pre)) for clip in clips]
    owns = [weights(block.module) for block in adapted.backbone.blocks]
    head = plain.affine(adapted.head.linear)
    around = (plain.over_space, 1, adapted.backbone.grid)
    found = []
    for tokens in clips:
        if name == "evl":
            found.append(plain.linear(_decoded(adapted, tokens, owns), head))
            continue
        if name == "vpt" and not options.deep:
            tokens = torch.cat([tokens[:, :1], body.prompts.expand(len(tokens), -1, -1), tokens[:, 1:]], dim=1)
        for block, own in zip(body.blocks, owns, strict=True):
            tokens = _adapted_block(name, block, own, tokens, options, around)
        cls = tokens[:, 0]
        feature = plain.norm(cls.mean(0), final) if name == "st-adapter" else plain.norm(cls, final).mean(0)
        found.append(plain.linear(feature, head))
    return torch.stack(found)


def _decoded(adapted: VideoClassifier, tokens: Tensor, owns: list[plain.Weights]) -> Tensor:
    """EVL's feature of one clip (T, N, D)."""
    body, grid = adapted.body, adapted.backbone.grid
    x, first, frames = body.query, len(owns) - len(body.layers), len(tokens)
    for index, own in enumerate(owns):
        projected = plain.linear(plain.norm(tokens, own.norm1), own.qkv)
        tokens = equations.image_block(tokens, own)
        if index < first:
            continue
        layer, conv, cross = (part[index - first] for part in (body.layers, body.convolutions, body.cross))
        query, key, _ = projected.split(tokens.shape[-1], dim=-1)
        y = []
        for t in range(frames):
            total = tokens[t] + body.embeddings[index - first][t] + conv.bias
            for tap in range(3):
                if 0 <= t + tap - 1 < frames:
                    total = total + conv.weight[:, 0, tap] * tokens[t + tap - 1]
            patches = torch.zeros_like(total[1:])
            for other, table in ((t - 1, cross.previous), (t + 1, cross.next)):
                if 0 <= other < frames:
                    patches = patches + equations.cross_frame(query[t, 1:], key[other, 1:], table, grid, own.heads)
            y.append(torch.cat([total[:1], total[1:] + patches]))
        normed = plain.norm(torch.cat(y), plain.affine(layer.norm_tokens))
        parts = [plain.affine(part) for part in (layer.query, layer.key, layer.value)]
        attended = equations.reads(plain.norm(x, plain.affine(layer.norm_query)), normed, *parts, own.heads)
        x = x + plain.linear(attended, plain.affine(layer.output))
        hidden = plain.linear(plain.norm(x, plain.affine(layer.norm_mlp)), plain.affine(layer.up))
        x = x + plain.linear(plain.activate(hidden, "QuickGELU"), plain.affine(layer.down))
    return plain.norm(x, plain.affine(body.norm))


def _of_swin(adapted: VideoClassifier, x: Tensor) -> Tensor:
    """(B, T, 3, H, W) -> (B, classes)."""
    name, net = adapted.strategy.name, adapted.backbone.model
    embed, head = net.patch_embed, plain.affine(adapted.head.linear)
    found = []
    for clip in x:
        tokens = plain.norm(plain.tubelets(clip, embed.proj, 1), plain.affine(embed.norm))
        if name == "zeroi2v":
            tokens = tokens + adapted.body.temporal_embedding[0][:, None, None]
        for index, block in enumerate(adapted.body.blocks):
            stage = net.layers[index // 2]
            module, (window, shift) = stage.blocks[index % 2], TINY_WINDOWS[index // 2]
            if index == 2:
                down = plain.affine(stage.downsample.norm)
                tokens = torch.stack([merged(frame, down, stage.downsample.reduction.weight) for frame in tokens])
            table, moved = module.attn.relative_position_bias_table, shift if index % 2 else (0, 0)

            attend = partial(windowed, table=table, sides=window, shift=moved)
            tokens = _adapted_block(name, block, plain.of_vit(module), tokens, adapted.options, (attend, 0, None))
        final = plain.affine(net.norm)
        if name == "st-adapter":
            feature = plain.norm(tokens.mean(0), final).mean((0, 1))
        else:
            feature = plain.norm(tokens, final).mean((0, 1, 2))
        found.append(plain.linear(feature, head))
    return torch.stack(found)


def _in_double(family: str, name: str, options: dict[str, Any], head: str = "linear") -> VideoClassifier:
    chosen = STRATEGIES.get(name)
    found = VideoClassifier(
        backbone(family), chosen, chosen.options(**options), classes=CLASSES, frames=3, dropout=0.0, head=head
    ).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return found.eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_equations(family: str, name: str, options: dict[str, Any]) -> None:
    if (family, name) in REFUSED:
        assert STRATEGIES.get(name).refuses(backbone(family))
        return
    adapted, x = _in_double(family, name, options), clips(batch=2, frames=3).double()
    assert_alike(adapted, adapted(x), (_of_swin if family == "swin" else _of_vit_or_clip)(adapted, x))


@pytest.mark.parametrize("head", ["attentive", "attentive-time"])
def test_the_attentive_probe_is_that_of_its_equations(head: str) -> None:
    adapted, x = _in_double("vit", "frozen", {}, head), clips(batch=2, frames=3).double()
    probe: Any = adapted.head
    expected = []
    for clip in adapted.features(x):
        if head == "attentive-time":
            angles = torch.arange(3)[:, None] * 10_000.0 ** -(torch.arange(0, 96, 2) / 96)
            clip = clip + torch.cat([angles.sin(), angles.cos()], dim=1).view(3, 1, 96)
        tokens = clip.flatten(0, 1)
        for block in probe.blocks:
            own = plain.Weights(16, *(plain.affine(part) for part in (block.norm, block.qkv, block.output)))
            tokens = tokens + plain.attention(plain.norm(tokens, own.norm1), own)
            tokens = tokens + _probe_mlp(tokens, block.mlp)
        token, normed = probe.token[0, 0], plain.norm(tokens, plain.affine(probe.norm))
        both = plain.affine(probe.key_value)
        key, value = (plain.Affine(both.weight[part], both.bias[part]) for part in (slice(96), slice(96, None)))
        token = token + equations.reads(token, normed, plain.affine(probe.query), key, value, 16)
        expected.append(plain.linear(token + _probe_mlp(token, probe.mlp), plain.affine(probe.linear)))
    assert_alike(adapted, adapted(x), torch.stack(expected))


def _probe_mlp(x: Tensor, module: Any) -> Tensor:
    norm, up, _, down = module
    return plain.linear(plain.activate(plain.linear(plain.norm(x, plain.affine(norm)), plain.affine(up)), "GELU"),
                        plain.affine(down))  # fmt: skip


# --- what they are ---


@pytest.mark.parametrize(("family", "name"), [pair for pair in DEFINED if pair[1] not in ("vpt", "evl")])
def test_at_the_start_they_are_the_image_model_on_a_clip_of_one_frame_repeated(family: str, name: str) -> None:
    adapted = model(family, name).eval()
    still = clips()[:, :1].expand(-1, FRAMES, -1, -1, -1)
    moving = clips()
    with torch.no_grad():
        torch.testing.assert_close(adapted.features(still), image_features(adapted, still), atol=1e-5, rtol=1e-5)
        if name in ("bitfit", "lora", "adaptformer"):
            torch.testing.assert_close(adapted.features(moving), image_features(adapted, moving), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("family", "name"), DEFINED)
def test_exactly_what_they_name_trains(family: str, name: str) -> None:
    adapted = model(family, name)
    awaken(adapted)
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    adapted.train()(clips()).square().sum().backward()
    for parameter_name, parameter in adapted.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name
    trained = {parameter_name for parameter_name, _ in adapted.trained()}
    backbones = {parameter_name for parameter_name in trained if parameter_name.startswith("backbone.")}
    if name == "bitfit":
        assert backbones == {n for n, _ in adapted.backbone.named_parameters(prefix="backbone") if n.endswith("bias")}
    elif name == "zeroi2v":
        assert len(backbones) == 2 and all("norm" in n or "ln_post" in n for n in backbones)
    else:
        assert not backbones
    assert all(torch.equal(before[n], value) for n, value in adapted.state_dict().items() if n not in trained)


@pytest.mark.parametrize(("family", "name"), DEFINED)
def test_the_order_of_the_frames_matters_where_they_say_so(family: str, name: str) -> None:
    adapted = model(family, name).eval()
    awaken(adapted)
    with torch.no_grad():
        given, back = adapted(clips()), adapted(clips().flip(1))
    assert torch.allclose(given, back, atol=1e-4) != STRATEGIES.get(name).order_aware


@pytest.mark.parametrize("head", ["attentive", "attentive-time"])
def test_the_order_matters_to_a_probe_that_knows_the_time(head: str) -> None:
    adapted = _in_double("clip", "frozen", {}, head)
    with torch.no_grad():
        given, back = adapted(clips(frames=3).double()), adapted(clips(frames=3).double().flip(1))
    assert torch.allclose(given, back, atol=1e-9) != HEADS.get(head).order_aware


def test_the_decoder_keeps_nothing_of_the_image_model_for_its_gradients() -> None:
    adapted, kept = model("vit", "evl"), []
    weights = {parameter.data_ptr() for parameter in adapted.backbone.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        adapted(clips()).sum()
    assert kept and not weights & set(kept)


# --- merging ---


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["lora", "zeroi2v"])
def test_a_merged_model_predicts_the_same_and_computes_what_the_image_model_does(family: str, name: str) -> None:
    if (family, name) in REFUSED:
        return
    options = {"projections": "query,key,value,output,up,down"} if name == "lora" else {}
    adapted = model(family, name, **options).eval()
    awaken(adapted)
    deployed = adapted.deployed()
    with torch.no_grad():
        expected = adapted(clips())
        torch.testing.assert_close(deployed(clips()), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(deployed.deployed()(clips()), expected, rtol=1e-4, atol=1e-4)
    image = model(family, "frozen")
    assert sum(macs_by_part(deployed).values()) == sum(macs_by_part(image).values())
    added = FRAMES * adapted.backbone.blocks[0].width if name == "zeroi2v" else 0  # the temporal embedding
    assert count(deployed)[0] == count(image)[0] + added


def test_a_merge_makes_the_biases_that_a_model_lacks() -> None:
    net = backbone("vit")
    for block in net.blocks:
        block.module.attn.qkv.bias = None
    chosen = STRATEGIES.get("zeroi2v")
    adapted = VideoClassifier(net, chosen, chosen.options(), classes=CLASSES, frames=FRAMES, dropout=0.0).eval()
    awaken(adapted)
    with torch.no_grad():
        torch.testing.assert_close(adapted.deployed()(clips()), adapted(clips()), rtol=1e-4, atol=1e-4)
    assert all(block.module.attn.qkv.bias is None for block in net.blocks)


def test_what_does_not_merge_is_deployed_as_it_is() -> None:
    adapted = model("vit", "joint")
    assert adapted.deployed() is adapted


def test_a_copy_of_a_model_has_updates_of_its_own() -> None:
    adapted = model("clip", "zeroi2v").eval()
    awaken(adapted)
    other = copy.deepcopy(adapted)
    with torch.no_grad():
        given = adapted(clips())
        other.body.blocks[0].behind_mlp.up.weight.zero_()
        assert torch.equal(adapted(clips()), given) and not torch.allclose(other(clips()), given)
