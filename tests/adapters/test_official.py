"""The released layout: what a state dict is a model of, the function it means, the way back, and what is refused.

State dicts are made by name in tests/adapters/released.py, and their logits are computed there from the equations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor

from adapters.aim_checkpoint import ReleasedModel, describe, load, save
from adapters.aim_names import CLIP, SWIN, VIT, BadCheckpoint
from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.families import build
from backbones.names import BackboneName
from tests.adapters import released as official
from tests.bench.command import Wording, quotes
from tests.models import FAMILIES, awaken, backbone, clips, model

State = dict[str, Tensor]
S, T, IN, J = "S_Adapter", "T_Adapter", "T_Adapter_in", "MLP_Adapter"
S2, J2 = "S_Adapter2", "S_Adapter"  # the released Swin's names of the spatial and the joint one
MAKE: dict[str, Callable[..., State]] = {"clip": official.clip, "vit": official.vit, "swin": official.swin}
LOGITS = {"clip": official.logits_clip, "vit": official.logits_vit, "swin": official.logits_swin}


def _model(state: State, *, scale: float = 0.5, frames: int = 6, dtype: torch.dtype = torch.float64) -> VideoClassifier:
    """The tiny model that the state dict is one of, loaded."""
    found = describe(state)
    strategy = STRATEGIES.get(found.strategy)
    options = {**found.options, **({"scale": scale} if strategy.name == "joint" else {})}
    built = VideoClassifier(
        backbone(found.layout.family, seed=7),
        strategy,
        strategy.options(**options),
        classes=found.classes,
        frames=found.frames or frames,
    )
    if found.layout is CLIP:
        for block in built.body.blocks:
            block.block.module.mlp.gelu = QuickGELU()
    built = built.to(dtype).eval()
    assert load(built, state, found) == []
    return built


# what the blocks hold, and the strategy and options that this means
CASES: list[tuple[str, list[tuple[str, ...]], dict[str, Any], str, dict[str, Any]]] = [
    ("clip", [(S, T, J)] * 4, {}, "joint", {"blocks": "all", "temporal_adapters": 1, "ratio": 0.25}),
    ("clip", [()] * 2 + [(S, T, IN, J)] * 2, {}, "joint", {"blocks": "top", "temporal_adapters": 2, "ratio": 0.25}),
    ("clip", [(S, T)] * 4, {"hidden": 28}, "temporal", {"blocks": "all", "temporal_adapters": 1, "ratio": 0.3}),
    ("clip", [(S,)] * 2 + [()] * 2, {"frames": None, "hidden": 9}, "spatial", {"blocks": "bottom", "ratio": 0.1}),
    ("clip", [()] * 4, {"frames": None}, "full", {}),
    ("vit", [(S, T, J)] * 4, {"hidden": 1}, "joint", {"blocks": "all", "temporal_adapters": 1, "ratio": 0.01}),
    ("vit", [(), (S, T, IN)] * 2, {}, "temporal", {"blocks": "second", "temporal_adapters": 2, "ratio": 0.25}),
    ("vit", [(S, T, IN, J)] * 4, {"final": "norm"}, "joint", {"blocks": "all", "temporal_adapters": 2, "ratio": 0.25}),
    ("vit", [(S,)] * 4, {"frames": None, "hidden": 96}, "spatial", {"blocks": "all", "ratio": 1.0}),
    (
        "swin",
        [(S2, T, J2), (S2, J2)] * 2,
        {},
        "joint",
        {"blocks": "all", "temporal_adapters": 1, "tubelet": 2, "ratio": 0.25, "released_freezing": True},
    ),
    (
        "swin",
        [(S2, T, IN), ()] * 2,
        {"tubelet": 1, "ratio": 0.5, "steps": 5},
        "temporal",
        {"blocks": "second", "temporal_adapters": 1 + 1, "tubelet": 1, "ratio": 0.5, "released_freezing": True},
    ),
    ("swin", [(), (), (S2,), (S2,)], {"tubelet": 1}, "spatial", {"blocks": "top", "ratio": 0.25}),
    (
        "swin",
        [(S, T, J), (S, J)] * 2,
        {},
        "joint",
        {"blocks": "all", "temporal_adapters": 1, "tubelet": 2, "ratio": 0.25, "released_freezing": True},
    ),
]


@pytest.mark.parametrize(("family", "adapters", "shape", "strategy", "options"), CASES, ids=str)
def test_a_released_state_dict_means_the_same_function(
    family: str, adapters: list[tuple[str, ...]], shape: dict[str, Any], strategy: str, options: dict[str, Any]
) -> None:
    state = MAKE[family](adapters, **shape)
    found = describe(state)
    assert (found.strategy, found.options) == (strategy, options)
    assert (found.layout.family, found.classes) == (family, 10)
    steps = {"swin": shape.get("steps", 3) * shape.get("tubelet", 2)}.get(family, 3)
    assert found.frames == (steps if strategy in ("temporal", "joint") else None)

    built = _model(state, scale=0.7)
    x = clips(1, found.frames or 2).double()
    names = {"spatial": S, "joint": J} if family == "swin" and (S, J) in adapters else {}
    expected = LOGITS[family](state, x, 0.7, **names)
    torch.testing.assert_close(built(x), expected, atol=1e-10, rtol=0)
    # and it depends on what was read: logits that are all alike would agree with anything
    assert expected.std() > 0.1


def test_swins_temporal_embedding_is_read_where_there_is_one() -> None:
    state = official.swin([(S2, T, J2), (S2, J2)] * 2)
    assert _model(state).body.temporal_embedding is None
    state["backbone.temporal_embedding"] = torch.randn(1, 3, 64, dtype=torch.float64)
    x = clips(1, 6).double()
    torch.testing.assert_close(_model(state)(x), official.logits_swin(state, x, 0.5), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("name", "state", "size", "window"),
    [
        ("clip:ViT-B-16-quickgelu", lambda: _large(official.clip, 12, 768, patch=16), 224, None),
        ("clip:ViT-L-14-quickgelu", lambda: _large(official.clip, 24, 1024, patch=14), 224, None),
        ("vit:vit_base_patch16_224", lambda: _large(official.vit, 12, 768, patch=16), 224, None),
        (
            "swin:swin_base_patch4_window7_224",
            lambda: official.swin(
                [(S2, T, J2), (S2, J2)] * 12,
                depths=(2, 2, 18, 2),
                heads=(4, 8, 16, 32),
                width=128,
                window=7,
                steps=16,
                device="meta",
                classes=400,
            ),
            None,
            7,
        ),
    ],
)
def test_the_published_sizes_have_the_names_and_shapes_of_our_models(
    name: str, state: Callable[[], State], size: int | None, window: int | None
) -> None:
    given = state()
    found = describe(given)
    assert (found.size, found.window, found.frames, found.strategy) == (size, window, 32, "joint")
    assert found.options["ratio"] == 0.25
    family, _, architecture = name.partition(":")
    strategy = STRATEGIES.get("joint")
    with torch.device("meta"):
        built = VideoClassifier(
            build(BackboneName(family, architecture, "none")),
            strategy,
            strategy.options(**found.options),
            classes=400,
            frames=32,
        )
    names = {"clip": CLIP, "vit": VIT, "swin": SWIN}[family].names(found.depths)
    shapes = {names[ours]: tuple(value.shape) for ours, value in built.state_dict().items()}
    expected = {
        theirs: tuple(value.shape)
        for theirs, value in given.items()
        if not theirs.endswith(("relative_position_index", "t_relative_coords", "attn_mask"))
    }
    if family == "swin":
        width, colours, _, *square = expected["backbone.patch_embed.proj.weight"]
        expected["backbone.patch_embed.proj.weight"] = (width, colours, *square)
    assert shapes == expected
    assert ("QuickGELU" in repr(built.backbone)) == (family == "clip")


def _large(make: Callable[..., State], depth: int, width: int, patch: int) -> State:
    return make(
        [(S, T, J)] * depth,
        width=width,
        patch=patch,
        size=224,
        hidden=width // 4,
        frames=32,
        device="meta",
        classes=400,
    )


OPTIONS = [
    ("joint", {}),
    ("joint", {"temporal_adapters": 2, "blocks": "top", "ratio": 0.3}),
    ("temporal", {"blocks": "second"}),
    ("temporal", {"temporal_adapters": 2, "blocks": "bottom", "ratio": 0.01}),
    ("spatial", {"ratio": 2.0}),
    ("frozen", {}),
    ("full", {}),
]


WAYS = [
    *((family, strategy, options) for family in FAMILIES for strategy, options in OPTIONS),
    *(("swin", strategy, {**options, "released_freezing": True}) for strategy, options in OPTIONS[:5]),
]


@pytest.mark.parametrize(("family", "strategy", "options"), WAYS, ids=str)
def test_there_and_back_is_the_same_to_the_bit(family: str, strategy: str, options: dict[str, Any]) -> None:
    original = model(family, strategy, **options).eval()
    awaken(original)
    state = save(original)
    found = describe(state)
    assert found.strategy == ("full" if strategy == "frozen" else strategy)
    over_time = "temporal_adapters" in found.options
    assert found.options.get("released_freezing", False) == (over_time and options.get("released_freezing", False))
    again = model(family, found.strategy, frames=found.frames or 4, seed=8, **found.options).eval()
    assert load(again, state, found) == []
    for (name, ours), (other, theirs) in zip(original.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_has_the_released_names_and_no_others(family: str) -> None:
    adapters = [(S2, T, J2), (S2, J2)] * 2 if family == "swin" else [(S, T, J)] * 4
    buffers = ("relative_position_index", "t_relative_coords", "attn_mask")
    steps = {"steps": 2} if family == "swin" else {"frames": 4}
    expected = {
        name: tuple(value.shape)
        for name, value in MAKE[family](adapters, **steps).items()
        if not name.endswith(buffers)
    }
    released: dict[str, Any] = {"released_freezing": True} if family == "swin" else {}
    found = {name: tuple(value.shape) for name, value in save(model(family, "joint", **released)).items()}
    assert found == expected
    if family == "swin":  # ours has one thing more, which has a place, too
        expected["backbone.temporal_embedding"] = (1, 2, 64)
        assert {name: tuple(value.shape) for name, value in save(model("swin", "joint")).items()} == expected


def test_what_is_written_is_a_copy() -> None:
    original = model("vit", "joint")
    state = save(original)
    for value in state.values():
        value.zero_()
    assert original.head.linear.weight.any()


def _problems(state: State, into: str | None = None) -> str:
    """Return the complaint about a state dict; `into` is a family whose model it is loaded into all the same."""
    with pytest.raises(BadCheckpoint) as refused:
        _model(state) if into is None else load(model(into, "joint", frames=3), state, describe(state))
    return str(refused.value)


def _without(state: State, *ends: str) -> State:
    return {name: value for name, value in state.items() if not name.endswith(ends)}


def test_missing_surplus_and_misshapen_tensors_are_named_together_and_nothing_is_loaded() -> None:
    state = official.clip([(S, T, J)] * 4)
    del state["backbone.ln_pre.bias"], state["backbone.transformer.resblocks.2.S_Adapter.D_fc2.weight"]
    state["backbone.proj"] = torch.zeros(96, 96)
    state["cls_head.fc_cls.bias"] = torch.zeros(3)
    built = model("clip", "joint", frames=3)
    before = {name: value.clone() for name, value in built.state_dict().items()}
    with pytest.raises(BadCheckpoint) as refused:
        load(built, state, describe(state))
    missing, surplus, misshapen = refused.value.problems
    lost = ("backbone.ln_pre.bias", "backbone.transformer.resblocks.2.S_Adapter.D_fc2.weight")
    assert quotes(missing, "missing", *lost) and quotes(surplus, "surplus", "backbone.proj")
    assert quotes(misshapen, "misshapen", "cls_head.fc_cls.bias", "(3,)", "(10,)")
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


@pytest.mark.parametrize("change", ["missing", "surplus"])
def test_nothing_is_loaded_where_one_name_is_wrong(change: str) -> None:
    state = official.vit([(S, T, J)] * 4)
    if change == "missing":
        del state["backbone.ln_post.bias"]
    else:
        state["backbone.norm_pre.bias"] = torch.zeros(96)
    built = model("vit", "joint", frames=3)
    before = {name: value.clone() for name, value in built.state_dict().items()}
    with pytest.raises(BadCheckpoint, match=f"^{change}: backbone"):
        load(built, state, describe(state))
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


REFUSED: list[tuple[str, Callable[[], State], tuple[str | int, ...]]] = [
    ("nothing", dict, ()),
    ("other names", lambda: {"visual.conv1.weight": torch.zeros(1)}, ("'visual.conv1.weight'",)),
    (
        "without the nesting",
        lambda: {name.removeprefix("backbone."): value for name, value in official.clip([(S, T, J)] * 4).items()},
        ("backbone.transformer.resblocks.0, backbone.blocks.0, backbone.layers.0.blocks.0",),
    ),
    (
        "no head",
        lambda: _without(official.vit([(S, T, J)] * 4), "fc_cls.weight"),
        ("missing", "cls_head.fc_cls.weight"),
    ),
    (
        "a block left out",
        lambda: {n: v for n, v in official.vit([(S, T, J)] * 4).items() if "blocks.1." not in n},
        ("blocks.{b}", 1),
    ),
    (
        "kinds that differ from block to block",
        lambda: official.vit([(S, T, J), (S, T), (S, T, J), (S, T, J)]),
        (),
    ),
    ("temporal adapters alone", lambda: official.vit([(T,)] * 4), ()),
    ("no adapter after attention", lambda: official.vit([(S, IN)] * 4), ()),
    (
        "bottlenecks that differ",
        lambda: {
            **official.vit([(S,)] * 4, frames=None),
            "backbone.blocks.1.S_Adapter.D_fc1.weight": torch.zeros(30, 96),
        },
        (),
    ),
    (
        "no temporal embedding",
        lambda: official.clip([(S, T, J)] * 4, frames=None),
        ("missing", "backbone.temporal_embedding"),
    ),
    (
        "positions that are not a square",
        lambda: {**official.vit([()] * 4, frames=None), "backbone.pos_embed": torch.zeros(1, 12, 96)},
        ("11 patches",),
    ),
    (
        "flat patches",
        lambda: {**official.vit([()] * 4), "backbone.patch_embed.proj.weight": torch.zeros(96, 192)},
        ("(96, 192)",),
    ),
    (
        "patches over frames and no attention over them",
        lambda: official.swin([(S2,)] * 4),
        (),
    ),
    ("patches over three frames", lambda: official.swin([(S2, T), (S2,)] * 2, tubelet=3), ("3 frames",)),
    (
        "a Swin without its tables",
        lambda: _without(official.swin([(S2, T), (S2,)] * 2), "temporal_position_bias_table"),
        ("missing", "backbone.layers.0.blocks.0.attn.temporal_position_bias_table"),
    ),
    (
        "a Swin without one of its tables",
        lambda: _without(official.swin([(S2, T), (S2,)] * 2), "layers.0.blocks.0.attn.temporal_position_bias_table"),
        ("missing", "backbone.layers.0.blocks.0.attn.temporal_position_bias_table"),
    ),
    (
        "numbers that are whole",
        lambda: {**official.vit([()] * 4, frames=None), "cls_head.fc_cls.bias": torch.zeros(10, dtype=torch.int64)},
        ("cls_head.fc_cls.bias", "torch.int64"),
    ),
    (
        "tensors that are sparse",
        lambda: {**official.vit([()] * 4, frames=None), "cls_head.fc_cls.bias": torch.zeros(10).to_sparse()},
        ("torch.sparse_coo",),
    ),
]


@pytest.mark.parametrize(("what", "state", "values"), REFUSED, ids=[what for what, *_ in REFUSED])
def test_what_is_no_aim_model_is_refused(
    what: str, state: Callable[[], State], values: tuple[str | int, ...], wording: Wording
) -> None:
    problem = _problems(state())
    assert quotes(problem, *values)
    wording([problem])


def test_video_patches_that_were_trained_are_refused() -> None:
    state = official.swin([(S2, T, J2), (S2, J2)] * 2)
    state["backbone.patch_embed.proj.weight"][5, 1, 1, 2, 3] += 1e-6
    assert quotes(_problems(state), "backbone.patch_embed.proj.weight")


def test_values_that_are_no_finite_numbers_are_told() -> None:
    state = official.vit([(S, T, J)] * 4)
    state["cls_head.fc_cls.bias"][3] = float("nan")
    state["backbone.pos_embed"][0, 0, 0] = float("inf")
    told = load(model("vit", "joint", frames=3), state, describe(state))
    assert len(told) == 1
    assert "cls_head.fc_cls.bias" in told[0] and "backbone.pos_embed" in told[0]


def test_half_precision_is_read() -> None:
    state = {name: value.half() for name, value in official.vit([(S, T, J)] * 4).items()}
    built = _model(state, dtype=torch.float32)
    assert built.head.linear.bias.dtype == torch.float32
    assert torch.equal(built.head.linear.bias, state["cls_head.fc_cls.bias"].float())


def test_what_the_released_code_has_no_place_for_is_not_written() -> None:
    with pytest.raises(BadCheckpoint, match=r"blocks\.0\.time"):
        save(model("vit", "timesformer"))


def test_a_described_state_tells_its_shape() -> None:
    found = describe(official.vit([(S, T, J)] * 4))
    assert isinstance(found, ReleasedModel)
    assert (found.width, found.depths, found.patch, found.size, found.window) == (96, (4,), 8, 32, None)
    found = describe(official.swin([(S2, T, J2), (S2, J2)] * 2))
    assert (found.width, found.depths, found.patch, found.size, found.window) == (64, (2, 2), 4, None, 4)
