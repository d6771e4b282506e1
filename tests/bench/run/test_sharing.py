"""The key of the cells that can train from one frozen forward pass."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from adapters.base import register_strategy
from adapters.baselines import Frozen
from bench.run.sharing import pass_key
from bench.spec import Cell
from bench.spec.cell import ModelFile
from bench.spec.tuning import Trial
from tests.bench import make


def _cell(**changes: Any) -> Cell:
    values: dict[str, Any] = {"strategy": "frozen", "options": {}, **changes}
    return make.cell(**values)


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"lr": 0.1, "head_lr": 0.2, "weight_decay": 0.3, "betas": (0.5, 0.5)}},
        {"recipe": {"epochs": 5, "warmup_epochs": 0.0, "schedule": "step", "warmup_start": 0.5}},
        {"recipe": {"dropout": 0.0, "drop_path": 0.0, "label_smoothing": 0.1}},
        {"head": "attentive", "head_options": {"depth": 1, "heads": 4}},
        {"head": "attentive-time"},
        {"strategy": "evl", "options": {"layers": 1, "decoder_dropout": 0.5}},
        {"strategy": "evl", "options": {"layers": 2, "decoder_dropout": 0.0}},
        {"order_test": False, "stages": ("train", "evaluate")},
        {"sources": {"strategy": "0123"}},
    ],
)
def test_cells_that_differ_behind_the_backbone_share_its_pass(changes: dict[str, Any]) -> None:
    key = pass_key(_cell())
    assert key is not None
    assert pass_key(_cell(**changes)) == key


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "clip:tiny"},
        {"weights": "bundled"},
        {"seed": 1},
        {"dataset": "hmdb51"},
        {"frames": 4},
        {"input_size": 64},
        {"train_fraction": 0.5},
        {"clips": 2},
        {"crops": 3},
        {"split": "val"},
        {"device": "cuda"},
        {"precision": "bf16"},
        {"kernels": "plain"},
        {"cache_format": "jpeg"},
        {"sources": {"weights": "0123"}},
        {"trial": Trial(number=0, untuned={})},
        *({"recipe": change} for change in ({"batch_size": 8}, {"flip": True}, {"colour": 0.4}, {"mixup": 0.8})),
        *({"recipe": change} for change in ({"crop_area": (0.5, 1.0)}, {"erase": 0.25}, {"augment_on": "device"})),
    ],
)
def test_cells_with_other_clips_or_another_pass_have_another_key(changes: dict[str, Any]) -> None:
    key = pass_key(_cell(**changes))
    assert key is not None
    assert key != pass_key(_cell())


@pytest.mark.parametrize(
    "changes",
    [
        *({"strategy": name} for name in ("full", "timesformer", "spatial", "temporal", "joint", "bitfit", "lora")),
        *({"strategy": name} for name in ("adaptformer", "vpt", "st-adapter", "zeroi2v")),
        {"compile": True},
        {"stages": ("measure",)},
        {"stages": ("evaluate",)},
        {"model_file": ModelFile(path="/model", sha256="0", layout="aim-bench")},
    ],
)
def test_cells_that_train_by_themselves_have_no_key(changes: dict[str, Any]) -> None:
    assert pass_key(_cell(**changes)) is None


def test_a_strategy_of_ones_own_shares_nothing_before_it_says_so() -> None:
    @register_strategy
    class Quiet(Frozen):
        name: ClassVar[str] = "quiet"

    @register_strategy
    class Sharing(Frozen):
        name: ClassVar[str] = "sharing"
        frozen_backbone = True

    assert pass_key(_cell(strategy="quiet")) is None
    assert pass_key(_cell(strategy="sharing")) == pass_key(_cell())
