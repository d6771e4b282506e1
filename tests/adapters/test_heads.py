"""Heads: the text head against CLIP's own zero-shot classifier, what heads know of order, options, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from adapters.heads import HEADS, order_aware
from adapters.text import as_words, templates_of
from backbones.base import Backbone
from backbones.families import build, resolve
from backbones.names import BackboneName, WeightsError
from bench.measure.counts import macs_by_part
from bench.measure.params import count, count_by_part
from bench.run.build import without_weights
from tests.adapters.equations import assert_alike
from tests.models import FRAMES, awaken, backbone, clips, without_numbers
from tests.reference import methods as equations

NAMES = ("pouring water", "brush_hair", "ApplyEyeMakeup")
TEMPLATES = "a video of {}.|{}, seen from above|the {}"
# open_clip's two classes of models
SMALL = {"plain": {}, "custom": {"custom_text": True, "quick_gelu": True}}


@pytest.fixture(params=SMALL)
def stored(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, BackboneName]:
    """A small CLIP with random weights, as open_clip builds it, and the name that opens its file here."""
    config = {
        "embed_dim": 20,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 16, "layers": 2},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
        **SMALL[request.param],
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, f"small-{request.param}", config)
    torch.manual_seed(4)
    whole = open_clip.create_model(f"small-{request.param}", pretrained=None).eval()
    with torch.no_grad():
        whole.logit_scale.fill_(3.0)
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    return whole, resolve(f"clip:small-{request.param}@{tmp_path / 'whole.pt'}", "base")


def _headed(net: Backbone, head: str, strategy: str = "frozen", **options: Any) -> VideoClassifier:
    chosen, kind = STRATEGIES.get(strategy), HEADS.get(head)
    return VideoClassifier(
        net,
        chosen,
        chosen.options(),
        classes=len(NAMES),
        class_names=NAMES,
        frames=FRAMES,
        head=head,
        head_options=kind.options(**options),
        dropout=0.0,
    ).eval()


# --- text ---


def test_the_start_is_open_clips_zero_shot_classifier_on_equal_weights(stored: tuple[Any, BackboneName]) -> None:
    whole, name = stored
    found = _headed(build(name), "text", templates=TEMPLATES, words=False)
    tokenise = open_clip.SimpleTokenizer(context_length=24)
    expected = open_clip.build_zero_shot_classifier(whole, tokenise, NAMES, TEMPLATES.split("|"))
    x = clips()
    with torch.no_grad():
        torch.testing.assert_close(found.head.linear.weight.T, whole.logit_scale.exp() * expected)
        single = whole.logit_scale.exp() * whole.encode_image(x[:, 0], normalize=True) @ expected
        torch.testing.assert_close(found(x[:, :1].expand(-1, FRAMES, -1, -1, -1)), single)
        frames = torch.stack([whole.encode_image(clip, normalize=True).mean(dim=0) for clip in x])
        cosine = torch.cosine_similarity(frames[:, None], expected.T[None], dim=-1)
        torch.testing.assert_close(found(x), whole.logit_scale.exp() * cosine)


@pytest.mark.parametrize("strategy", ["frozen", "joint", "st-adapter"])
def test_outputs_and_gradients_are_those_of_the_equations(strategy: str) -> None:
    adapted = _headed(backbone("clip"), "text", strategy).double()
    awaken(adapted)
    x, head = clips().double(), adapted.head
    projection = adapted.backbone.text.projection.double()
    assert torch.equal(head.projection.weight.T, projection)
    expected = []
    for each in adapted.body.frame_features(x):
        assert each.shape == (1 if strategy == "st-adapter" else FRAMES, 96)
        expected.append(equations.zero_shot(each, projection, head.linear.weight, 1.0))
    assert_alike(adapted, adapted(x), torch.stack(expected))


def test_class_vectors_have_the_length_of_the_scale_and_follow_from_seed_names_and_templates() -> None:
    def start(names: tuple[str, ...] = NAMES, seed: int = 0, **options: Any) -> Tensor:
        chosen = HEADS.get("text").options(**options)
        net, frozen = backbone("clip", seed), STRATEGIES.get("frozen")
        found = VideoClassifier(
            net, frozen, frozen.options(), classes=3, frames=2, head="text", head_options=chosen, class_names=names
        )
        return found.head.linear.weight.detach()

    given = start()
    torch.testing.assert_close(given.norm(dim=1), torch.full((3,), 1 / 0.07))
    assert torch.equal(given, start())
    for other in (start(seed=1), start(templates="{}"), start(names=("x", "y", "z")), start(words=False)):
        assert not torch.allclose(given, other)
    torch.testing.assert_close(start(templates="{}|{}"), start(templates="{}"))


def test_counts_are_those_of_closed_forms() -> None:
    found, linear = _headed(backbone("clip"), "text"), _headed(backbone("clip"), "linear")
    assert [name for name, _ in found.trained()] == ["head.linear.weight"]
    assert count(found) == (count(linear)[0] - (96 + 1) * 3 + 96 * 96 + 96 * 3, 96 * 3)
    assert {name for name, _ in found.stored()} == {"head.linear.weight", "head.projection.weight"}
    with torch.device("meta"):
        frozen = STRATEGIES.get("frozen")
        large = VideoClassifier(
            build(resolve("clip:ViT-B-16@none", "base")), frozen, frozen.options(), classes=400, frames=8, head="text"
        )
    final_norm = 2 * 768
    assert count_by_part(large)["head"] == (final_norm + 768 * 512 + 512 * 400, 512 * 400)
    assert macs_by_part(large)["head"] == 8 * 768 * 512 + 512 * 400


def test_it_trains_from_its_start_and_the_towers_stay() -> None:
    adapted = _headed(backbone("clip"), "text", "lora").train()
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    optimiser = torch.optim.SGD([parameter for _, parameter in adapted.trained()], lr=0.1)
    nn.functional.cross_entropy(adapted(clips()), torch.tensor([0, 1])).backward()
    optimiser.step()
    moved = {name for name, value in adapted.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name for name, _ in adapted.trained()}
    assert moved <= trained and "head.linear.weight" in moved and "head.projection.weight" not in trained


def test_templates_and_words() -> None:
    kinetics = templates_of("kinetics")
    assert len(set(kinetics)) == 28 and {"a photo of {}.", "a demonstration of a person practicing {}."} < set(kinetics)
    assert len(templates_of("openai")) == 80 and all(each.count("{}") == 1 for each in templates_of("openai"))
    words = {"brush_hair": "brush hair", "ApplyEyeMakeup": "apply eye makeup", "move-right": "move-right"}
    words |= {"playing Ultimate_X": "playing Ultimate_X", "TV": "TV", "7": "7"}
    assert {name: as_words(name) for name in words} == words
    options = HEADS.get("text").options
    assert options(templates=["a {}", " the {} "]).templates == "a {}|the {}"
    for wrong in ("", "kinetcs", "a {} and {}", "{0}", "a {|{}", True, 3, []):
        with pytest.raises(ValidationError):
            options(templates=wrong)
    assert HEADS.get("text").about(_headed(backbone("clip"), "text", templates="the {}").head) == {
        "templates": ["the {}"],
        "classes": ["pouring water", "brush hair", "apply eye makeup"],
    }


@pytest.mark.parametrize("name", ["vit:tiny@none", "swin:tiny@none", "clip:tiny@bundled", "clip:ViT-B-16-SigLIP@none"])
def test_a_backbone_without_a_text_tower_of_its_own_is_refused(name: str) -> None:
    assert HEADS.get("text").refuses(without_weights(resolve(name, "base"), None))


@pytest.mark.parametrize("name", ["clip:tiny@none", "clip:ViT-L-14@openai", "clip:ViT-B-32@laion2b_s34b_b79k"])
def test_a_clip_with_one_is_taken(name: str) -> None:
    assert HEADS.get("text").refuses(without_weights(resolve(name, "base"), None)) is None


def test_a_file_of_the_image_tower_alone_is_refused(stored: tuple[Any, BackboneName], tmp_path: Path) -> None:
    whole, name = stored
    text = HEADS.get("text")
    text.prepare(build(name))
    state = whole.state_dict()
    for lost in ("token_embedding", "visual.proj"):
        torch.save({key: value for key, value in state.items() if lost not in key}, tmp_path / f"{lost}.pt")
        with pytest.raises(WeightsError):
            text.prepare(build(resolve(f"{name.architecture}@{tmp_path / lost}.pt", "base")))


def test_a_feature_that_is_not_the_image_models_is_refused() -> None:
    for head in ("text", "attentive"):
        with pytest.raises(ValueError, match="evl"):
            _headed(backbone("clip"), head, "evl")


# --- order, options, what is kept ---


@pytest.mark.parametrize("head", ["linear", "attentive", "attentive-time", "text"])
@pytest.mark.parametrize("strategy", ["frozen", "spatial", "joint", "lora", "st-adapter", "evl"])
def test_order_awareness_is_of_strategy_and_head_together(strategy: str, head: str) -> None:
    chosen, kind = STRATEGIES.get(strategy), HEADS.get(head)
    if strategy == "evl" and head != "linear":
        return
    adapted = _headed(backbone("clip"), head, strategy).double()
    awaken(adapted)
    with torch.no_grad():
        given, back = adapted(clips().double()), adapted(clips().flip(1).double())
    known = strategy in ("joint", "st-adapter", "evl") or head == "attentive-time"
    assert adapted.order_aware == order_aware(chosen, kind) == known
    assert torch.allclose(given, back, rtol=0, atol=1e-9) != known


def test_options_of_the_probe_are_settled_and_published_by_default() -> None:
    published = without_numbers("vit:vit_base_patch16_224@none", "frozen", 2, 5)
    assert HEADS.get("attentive").options().model_dump() == {"depth": 4, "heads": 16}
    found = _headed(backbone("vit"), "attentive", depth=2, heads=3).head
    assert len(found.blocks) == 1 and found.heads == found.blocks[0].heads == 3
    d = 96
    assert sum(p.numel() for p in found.parameters()) == 11 * d**2 + 13 * d + (12 * d**2 + 13 * d) + (d + 1) * len(
        NAMES
    )
    for head in ("attentive", "attentive-time"):
        kind = HEADS.get(head)
        assert kind.refuses(published.backbone) is None
        assert kind.refuses(published.backbone, kind.options(heads=12)) is None
        assert kind.refuses(published.backbone, kind.options(heads=7))


@pytest.fixture
def kept() -> Iterator[set[int]]:
    """Storages of the tensors that are kept for gradients meanwhile."""
    found: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        found.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


@pytest.mark.parametrize(
    ("strategy", "head"),
    [
        ("frozen", "linear"),
        ("frozen", "attentive"),
        ("frozen", "attentive-time"),
        ("frozen", "text"),
        ("evl", "linear"),
    ],
)
def test_a_frozen_body_runs_without_gradients_and_keeps_nothing(strategy: str, head: str, kept: set[int]) -> None:
    adapted = _headed(backbone("clip"), head, strategy).train()
    graded: list[bool] = []

    def seen(module: nn.Module, inputs: Any, output: Any) -> None:
        graded.append(torch.is_grad_enabled())

    for block in adapted.backbone.blocks:
        for part in (block.module.ln_1, block.module.mlp, block.module.attn.out_proj):
            part.register_forward_hook(seen)
    weights = {parameter.untyped_storage().data_ptr() for parameter in adapted.backbone.parameters()}
    x = clips()
    logits = adapted(x)
    assert logits.requires_grad and kept
    assert not kept & (weights | {x.untyped_storage().data_ptr()})
    assert not any(graded)
    if strategy == "frozen":
        read = adapted.features(x)
        assert not read.requires_grad and read.grad_fn is None


def test_a_body_that_trains_keeps_what_its_gradients_need(kept: set[int]) -> None:
    adapted = _headed(backbone("clip"), "text", "spatial").train()
    adapted(clips())
    assert kept & {parameter.untyped_storage().data_ptr() for parameter in adapted.backbone.parameters()}
