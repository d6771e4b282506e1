"""Released files as trainings leave them: nested, wrapped, and without the scale that no tensor tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bench.run.model_files.open import open_model_file
from tests.adapters import released as official
from tests.bench.command import quotes
from tests.bench.test_checkpoint import JOINT, SWIN, TWO, _saved
from tests.models import clips


@pytest.mark.parametrize(
    ("state", "scale", "named"),
    [
        (lambda: official.clip(JOINT, classes=174), 1.0, True),  # ViT-L on Something-Something V2, as released
        (lambda: official.clip(TWO, classes=174), 1.0, False),
        (lambda: official.clip(JOINT, classes=173), 0.5, False),
        (lambda: official.swin(SWIN, classes=174), 0.5, False),  # as released for every data set
    ],
    ids=["one adapter", "two adapters", "another data set", "swin"],
)
def test_the_scale_of_something_something_is_known_by_its_classes(
    state: Callable[[], Any], scale: float, named: bool, tmp_path: Path
) -> None:
    found = open_model_file(_saved(tmp_path / "one.pth", state()))
    (note,) = [note for note in found.build(found.frames)[1] if note.startswith("scale is ")]
    assert found.options["scale"] == scale and quotes(note, f"scale is {scale:g}", "--scale")
    assert ("174 classes" in note and "ViT-L" in note) == named
    # who knows better says so, and nothing is assumed
    asked = open_model_file(tmp_path / "one.pth", scale=0.7)
    assert asked.options["scale"] == 0.7 and not any(quotes(note, "scale") for note in asked.build(found.frames)[1])


@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "_orig_mod.module."])
@pytest.mark.parametrize(
    "nest",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"model": state, "optimizer": {"state": {}}, "epoch": 3},
        lambda state: {"state_dict": {"model": state}},
        lambda state: {"model": {"state_dict": state}, "meta": {"epoch": 30}},
    ],
    ids=["plain", "state_dict", "model", "model in state_dict", "state_dict in model"],
)
def test_what_a_training_wraps_and_nests_is_read_alike(nest: Callable[[Any], Any], prefix: str, tmp_path: Path) -> None:
    """DistributedDataParallel and torch.compile put a name before all others."""
    state = official.vit(JOINT)
    torch.save(nest({f"{prefix}{name}": value for name, value in state.items()}), tmp_path / "one.pth")
    found = open_model_file(tmp_path / "one.pth")
    assert (found.layout, found.strategy, found.classes) == ("released", "joint", 10)
    expected = open_model_file(_saved(tmp_path / "plain.pth", state))
    assert torch.equal(found.build(3)[0](clips(frames=3)), expected.build(3)[0](clips(frames=3)))


def test_a_wrapped_model_in_safetensors_is_read_too(tmp_path: Path) -> None:
    save_file({f"module.{name}": value for name, value in official.vit(JOINT).items()}, tmp_path / "one.safetensors")
    assert open_model_file(tmp_path / "one.safetensors").strategy == "joint"
