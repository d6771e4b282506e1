"""Each data set brings what AIM's released configurations say of it: the table is written from those."""

from __future__ import annotations

from typing import Any

import pytest

from backbones.names import BackboneName
from bench.data.dataset import DATASETS
from bench.spec import Recipe
from bench.spec.recipe_entries import is_large

B = BackboneName("clip", "ViT-B-16", "openai")
L = BackboneName("clip", "ViT-L-14", "openai")
VIT = BackboneName("vit", "vit_base_patch16_224", "augreg_in21k")
SWIN = BackboneName("swin", "swin_base_patch4_window7_224", "ms_in22k")

PLAIN = {"colour": 0, "pca_noise": 0}
KINETICS: dict[str, Any] = {
    **PLAIN, "epochs": 30, "drop_path": 0.2, "flip": True, "rand_augment": None, "erase": 0, "label_smoothing": 0
}  # fmt: skip
SSV2: dict[str, Any] = {**PLAIN, "flip": False, "rand_augment": (4, 7), "erase": 0.25, "label_smoothing": 0.1}
TWO = {"temporal_adapters": 2, "scale": 1}

# data set, backbone, frames a user gets, lrs, the recipe's rest, options, {frames: stride} or uniform, clips x crops
ROWS: list[tuple[str, BackboneName, int, tuple[float, float], dict[str, Any], dict[str, Any], Any, tuple[int, int]]] = [
    ("k400", B, 8, (3e-4, 3e-4), KINETICS, {}, {8: 16, 16: 8, 32: 4}, (3, 1)),
    ("k400", L, 8, (3e-5, 3e-4), {**KINETICS, "pca_noise": 0.1}, {}, {8: 16, 16: 8, 32: 4}, (3, 1)),
    ("k700", B, 32, (3e-4, 3e-4), KINETICS, {}, {32: 4}, (3, 3)),
    ("k700", L, 32, (3e-4, 3e-4), KINETICS, {}, {32: 4}, (3, 3)),
    ("ssv2", B, 8, (3e-4, 3e-4), {**SSV2, "epochs": 50, "drop_path": 0.2}, TWO, "uniform", (1, 3)),
    ("ssv2", L, 8, (3e-5, 3e-4), {**SSV2, "epochs": 50, "drop_path": 0.2}, TWO, "uniform", (1, 3)),
    ("diving48", B, 32, (3e-4, 3e-4), {**KINETICS, "epochs": 50}, {}, "uniform", (1, 1)),
    ("diving48", L, 32, (3e-4, 3e-4), {**KINETICS, "epochs": 50}, {}, "uniform", (1, 1)),
    ("k400", VIT, 8, (3e-4, 3e-4), KINETICS, {}, {8: 16}, (3, 1)),
    ("ssv2", VIT, 8, (3e-4, 3e-4), {**SSV2, "epochs": 50, "drop_path": 0.2}, TWO, "uniform", (1, 3)),
    ("k400", SWIN, 32, (1e-4, 1e-3), KINETICS, {}, {32: 2}, (4, 3)),
    ("ssv2", SWIN, 32, (3e-5, 3e-4), {**SSV2, "epochs": 60, "drop_path": 0.4}, {}, "uniform", (1, 3)),
]


@pytest.mark.parametrize(
    ("name", "backbone", "frames", "lrs", "recipe", "options", "sampling", "views"),
    ROWS,
    ids=[f"{row[0]} {row[1].architecture}" for row in ROWS],
)
def test_what_was_published(
    name: str,
    backbone: BackboneName,
    frames: int,
    lrs: tuple[float, float],
    recipe: dict[str, Any],
    options: dict[str, Any],
    sampling: Any,
    views: tuple[int, int],
) -> None:
    dataset = DATASETS.get(name)()
    own = dataset.defaults(backbone, "joint")
    found = Recipe(**own.recipe)
    assert (found.lr, found.head_lr) == lrs
    assert {field: getattr(found, field) for field in recipe} == recipe
    assert dataset.flip is recipe["flip"]
    assert (found.batch_size, found.weight_decay, found.warmup_epochs, found.schedule) == (64, 0.05, 2.5, "epoch")
    assert own.options == options
    assert own.frames == frames
    assert (own.views.clips, own.views.crops, own.views.short_side) == (*views, None)
    if sampling == "uniform":
        assert dataset.sampling == "uniform"
    else:
        assert dataset.sampling == "dense"
        assert {count: own.stride(count) for count in sampling} == sampling


@pytest.mark.parametrize("name", ["k600", "ucf101", "hmdb51"])
@pytest.mark.parametrize("backbone", [B, L, VIT, SWIN], ids=str)
def test_what_was_not_published_is_as_on_k400(name: str, backbone: BackboneName) -> None:
    one, other = DATASETS.get(name)(), DATASETS.get("k400")()
    assert one.defaults(backbone, "joint") == other.defaults(backbone, "joint")
    assert (one.sampling, one.flip) == (other.sampling, other.flip)


def test_the_counts_of_classes() -> None:
    counts = {"k400": 400, "k600": 600, "k700": 700, "ssv2": 174, "diving48": 48, "ucf101": 101, "hmdb51": 51}
    assert {name: len(DATASETS.get(name)().classes) for name in counts} == counts


@pytest.mark.parametrize(
    "model", ["ViT-L-14", "ViT-L-14-336", "vit_large_patch14_dinov2", "ViT-H-14", "eva02_large_p14"]
)
def test_large_models_are_told_by_name(model: str) -> None:
    assert is_large(BackboneName("vit", model, "none"))


@pytest.mark.parametrize(
    "model", ["tiny", "ViT-B-16", "vit_base_patch16_224", "vit_small_patch16_224", "deit3_small", "vit_little_patch16"]
)
def test_others_are_not_large(model: str) -> None:
    assert not is_large(BackboneName("vit", model, "none"))
