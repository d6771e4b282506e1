"""A checkpoint's account of its model: the cell's facts, the architecture of a released shape, an export's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from adapters.aim_names import CLIP, SWIN, VIT
from backbones.families import build
from backbones.names import BackboneName
from backbones.settings import Settings
from backbones.weights import digest
from bench.run.build import classifier
from bench.run.matrix import expand
from bench.run.model_files.adapter_file import AdapterFile, pack
from bench.run.model_files.open import open_model_file
from bench.run.model_files.released import _ARCHITECTURES, _rebuilt_as, export
from bench.spec import Matrix
from bench.spec.source import DataSource
from tests.bench.command import Wording, quotes
from tests.models import clips

CLASSES = tuple(f"class {index}" for index in range(10))


def _written(file: Path, strategy: str, *, spoilt: bool = False) -> AdapterFile:
    """A cell's checkpoint; `spoilt`: with a value in the head that is not a number."""
    cell = expand(Matrix(backbones=("vit:tiny@none",), strategies=(strategy,), frames=(4,), device="cpu")).cells[0]
    recipe = cell.recipe.model_copy(update={"batch_size": 7})
    cell = cell.model_copy(update={"data": DataSource(root=file.parent), "recipe": recipe})
    model = classifier(cell, len(CLASSES))
    if spoilt:
        with torch.no_grad():
            model.head.linear.bias[3] = float("nan")
    file.write_bytes(pack(model, cell, CLASSES, digest(model.backbone)))
    found = open_model_file(file)
    assert isinstance(found, AdapterFile)
    return found


def test_a_cells_batch_and_folder_are_told(tmp_path: Path) -> None:
    found = _written(tmp_path / "one.safetensors", "joint")
    assert (found.batch, found.data) == (7, DataSource(root=tmp_path))
    # a bare name means the size that the cell had
    moved = open_model_file(tmp_path / "one.safetensors", backbone="vit")
    assert moved.backbone == BackboneName("vit", "tiny", "bundled")


def test_without_attention_over_time_a_model_takes_clips_of_another_length(tmp_path: Path) -> None:
    original = _written(tmp_path / "one.safetensors", "spatial")
    export(original, tmp_path / "one.pth")
    exported = open_model_file(tmp_path / "one.pth")
    assert (exported.frames, exported.any_frames) == (4, True)
    for found in (original, exported):
        model, _ = found.build(6)
        assert model.frames == 6 and model(clips(1, 6)).shape == (1, 10)


def test_values_that_are_no_finite_numbers_are_told_of_an_export(tmp_path: Path) -> None:
    notes = export(_written(tmp_path / "one.safetensors", "joint", spoilt=True), tmp_path / "one.pth")
    assert len(notes) == 1 and quotes(notes[0], "head.linear.bias")


@pytest.mark.parametrize(("shape", "model"), _ARCHITECTURES.items(), ids=str)
def test_a_released_shape_is_that_of_the_architecture_it_is_taken_for(
    shape: tuple[str, int, tuple[int, ...], int, int], model: str
) -> None:
    family, width, depths, patch, side = shape
    with torch.device("meta"):
        backbone = build(BackboneName(family, model, "none"))
    image_model = backbone.model
    assert backbone.blocks[0].width == width
    layout = {"clip": CLIP, "vit": VIT, "swin": SWIN}[family]
    assert layout.depths(image_model.state_dict()) == depths
    assert image_model.state_dict()[layout.patches].shape[-1] == patch
    assert side == (image_model.layers[0].blocks[0].window_size[0] if family == "swin" else backbone.input_size)


def test_an_export_names_the_model_that_computes_the_same_without_its_tag() -> None:
    """Tags of OpenAI's make QuickGELU of a model whose name alone means GELU."""
    notes: list[str] = []
    with torch.device("meta"):
        quick, plain = (build(BackboneName("clip", f"ViT-B-32{end}", "none")) for end in ("-quickgelu", ""))
    for backbone, end in ((quick, "-quickgelu"), (plain, "")):
        named = BackboneName("clip", "ViT-B-32", "openai")
        assert _rebuilt_as(named, SimpleNamespace(backbone=backbone), notes) == f"clip:ViT-B-32{end}"
    assert notes == []
    assert _rebuilt_as(BackboneName("clip", "tiny", "none"), SimpleNamespace(backbone=quick), notes) == "clip:tiny"
    assert len(notes) == 1 and quotes(notes[0], "clip:tiny", "`bench eval`", "--backbone")


@pytest.mark.parametrize(("epsilon", "notes"), [(1e-12, 0), (1e-6, 0), (1e-5, 0), (1e-3, 1)])
def test_an_export_heeds_the_epsilon_of_norms_where_it_makes_a_difference(epsilon: float, notes: int) -> None:
    """transformers' ViTs have 1e-12, timm's 1e-6."""
    name = BackboneName("vit", "tiny", "none")
    with torch.device("meta"):
        backbone = Settings(epsilon=epsilon).apply(build(name))
    told: list[str] = []
    assert _rebuilt_as(name, SimpleNamespace(backbone=backbone), told) == "vit:tiny"
    assert len(told) == notes


def test_what_was_assumed_of_the_weights_is_told_of_an_export(tmp_path: Path, assumption: str) -> None:
    notes = export(_written(tmp_path / "one.safetensors", "frozen"), tmp_path / "one.pth")
    assert notes == [assumption]


def test_a_plugin_that_was_changed_since_is_told(tmp_path: Path, wording: Wording) -> None:
    found = _written(tmp_path / "one.safetensors", "joint")
    assert found.build(4)[1] == []
    other = found.cell.model_copy(update={"sources": {"strategy": "0123456789abcdef"}})
    (note,) = replace(found, cell=other).build(4)[1]
    assert quotes(note, "strategy")
    wording([note])
