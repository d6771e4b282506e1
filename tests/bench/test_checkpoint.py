"""Checkpoints on disk: what a cell's own holds and loads onto, and what files in the released layout are taken for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adapters.base import STRATEGIES
from adapters.block import TimeBias
from adapters.classifier import VideoClassifier
from backbones.families import build
from backbones.names import BackboneName
from backbones.weights import digest
from bench.errors import UserError
from bench.run.build import classifier
from bench.run.matrix import expand
from bench.run.model_files.adapter_file import AdapterFile, pack
from bench.run.model_files.open import open_model_file
from bench.run.model_files.released import export
from bench.spec import Cell, Matrix
from tests.adapters import released as official
from tests.bench.command import Wording, field_of, quotes
from tests.models import FAMILIES, NAMES, awaken, clips

CLASSES = tuple(f"class {index}" for index in range(10))
JOINT = [("S_Adapter", "T_Adapter", "MLP_Adapter")] * 4
TWO = [("S_Adapter", "T_Adapter", "T_Adapter_in", "MLP_Adapter")] * 4
SWIN = [("S_Adapter2", "T_Adapter", "S_Adapter"), ("S_Adapter2", "S_Adapter")] * 2
SWIN_TWO = [("S_Adapter2", "T_Adapter", "T_Adapter_in", "S_Adapter"), ("S_Adapter2", "S_Adapter")] * 2


def _cell(backbone: str, strategy: str, frames: int = 4, **options: object) -> Cell:
    asked = Matrix(backbones=(backbone,), strategies=(strategy,), frames=(frames,), options=options, device="cpu")
    return expand(asked).cells[0]


def _write(file: Path, cell: Cell) -> VideoClassifier:
    """A cell's checkpoint, as if it had been trained; the model in it."""
    model = classifier(cell, len(CLASSES)).eval()
    before = digest(model.backbone)
    awaken(model)
    file.write_bytes(pack(model, cell, CLASSES, before))
    return model


def _build(file: Path, **asked: Any) -> None:
    found = open_model_file(file, **asked)
    found.build(found.frames or 4)


def _problems(file: Path, **asked: Any) -> list[str]:
    with pytest.raises(UserError) as refused:
        _build(file, **asked)
    for problem in refused.value.problems:
        assert problem.startswith(f"checkpoint {str(file)!r}: ")
    return [problem.removeprefix(f"checkpoint {str(file)!r}: ") for problem in refused.value.problems]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", NAMES)
def test_a_cells_checkpoint_holds_what_was_trained_and_gives_the_model_back(
    family: str, strategy: str, tmp_path: Path
) -> None:
    cell = _cell(f"{family}:tiny@none", strategy)
    model = _write(tmp_path / "adapter.safetensors", cell)
    assert load_file(tmp_path / "adapter.safetensors").keys() == {name for name, _ in model.trained()}
    found = open_model_file(tmp_path / "adapter.safetensors")
    assert (found.strategy, found.options, found.frames) == (strategy, cell.options, 4)
    assert (found.class_names, found.classes, found.dataset) == (CLASSES, 10, "motion")
    assert found.any_frames == (strategy in ("frozen", "full", "spatial"))
    again, notes = found.build(4)
    assert notes == [] and not again.training
    for (name, ours), theirs in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("strategy", ["spatial", "temporal", "joint"])
def test_what_was_added_at_random_and_stays_frozen_is_stored(strategy: str, tmp_path: Path) -> None:
    """The random bias over time is not made anew from the seed, and survives the released layout, too."""
    cell = _cell("swin:tiny@none", strategy, released_freezing=True)
    model = classifier(cell, len(CLASSES)).eval()
    weights = digest(model.backbone)
    awaken(model)
    tables = [module.table for module in model.modules() if isinstance(module, TimeBias)]
    assert len(tables) == (0 if strategy == "spatial" else 2)
    with torch.no_grad():
        for table in tables:
            table.add_(torch.randn(table.shape))  # another seed's
    (tmp_path / "own.safetensors").write_bytes(pack(model, cell, CLASSES, weights))
    own = open_model_file(tmp_path / "own.safetensors")
    assert isinstance(own, AdapterFile)
    assert export(own, tmp_path / "model.pth") == []
    for file in ("own.safetensors", "model.pth"):
        found = open_model_file(tmp_path / file)
        assert found.options["released_freezing"] is True
        again, _ = found.build(4)
        assert {name for name, _ in again.trained()} == {name for name, _ in model.trained()}
        for (name, ours), theirs in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
            assert torch.equal(ours, theirs), (file, name)


def test_a_frozen_table_that_is_missing_is_told(tmp_path: Path) -> None:
    cell = _cell("swin:tiny@none", "joint", released_freezing=True)
    file = tmp_path / "own.safetensors"
    _write(file, cell)
    tensors, name = load_file(file), "body.blocks.2.time.bias.table"
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    save_file({each: value for each, value in tensors.items() if each != name}, file, about)
    (problem,) = _problems(file)
    assert field_of(problem) == "missing" and quotes(problem, name)


def test_a_file_says_what_is_in_it(tmp_path: Path) -> None:
    cell = _cell("vit:tiny@none", "joint", ratio=0.5)
    _write(tmp_path / "one.safetensors", cell)
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        about = file.metadata()
    weights = digest(classifier(cell, 10).backbone)
    assert (
        about.items()
        >= {
            "format_version": "2",
            "backbone": "vit:tiny",
            "weights": "none",
            "weights_sha256": weights,
            "strategy": "joint",
            "frames": "4",
        }.items()
    )
    assert json.loads(about["options"])["ratio"] == 0.5
    assert json.loads(about["classes"]) == list(CLASSES)
    assert Cell.model_validate_json(about["cell"]) == cell


def test_aim_on_vit_b_takes_44_megabytes() -> None:
    """36 adapters of 295,872 parameters, temporal embedding, final norm and head: not the backbone."""
    joint = STRATEGIES.get("joint")
    with torch.device("meta"):
        backbone = build(BackboneName("clip", "ViT-B-16", "none"))
        model = VideoClassifier(backbone, joint, joint.options(), classes=400, frames=32)
    stored = sum(parameter.numel() * parameter.element_size() for _, parameter in model.trained())
    assert stored == 4 * (36 * 295_872 + 32 * 768 + 2 * 768 + 400 * 768 + 400) == 43_940_416


def test_another_backbone_is_refused_by_name_and_by_hash(tmp_path: Path, wording: Wording) -> None:
    file = tmp_path / "one.safetensors"
    cell = _cell("vit:tiny@none", "joint")
    _write(file, cell)
    (name,) = _problems(file, backbone="clip:tiny@none")
    assert quotes(name, "vit:tiny@none", "clip:tiny@none", "vit:tiny")
    wording([name])
    theirs = digest(build(BackboneName("vit", "tiny", "bundled")))
    ours = digest(classifier(cell, 10).backbone)
    (weights,) = _problems(file, backbone="vit:tiny@bundled")
    assert quotes(weights, "vit:tiny@none", ours[:12], "vit:tiny@bundled", theirs[:12], "--backbone")
    assert quotes(_problems(file, backbone="vit:tiny@nosuch")[0], "vit:tiny", "'nosuch'")


def test_the_same_weights_from_another_place_are_taken(tmp_path: Path) -> None:
    file, weights, moved = (tmp_path / name for name in ("one.safetensors", "weights.safetensors", "moved.safetensors"))
    torch.manual_seed(5)
    save_file(build(BackboneName("vit", "tiny", "none")).model.state_dict(), weights)
    model = _write(file, _cell(f"vit:tiny@{weights}", "joint"))
    weights.rename(moved)
    assert quotes(_problems(file)[0], weights)
    found = open_model_file(file, backbone=f"vit:tiny@{moved}")
    assert torch.equal(found.build(4)[0](clips()), model(clips()))


def _changed(file: Path, tensors: dict[str, torch.Tensor] | None = None, **about: str | None) -> None:
    with safe_open(file, "pt") as opened:
        kept = {**opened.metadata(), **about}
        held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    held = {name: value for name, value in {**held, **(tensors or {})}.items() if value is not None}
    save_file(held, file, metadata={name: text for name, text in kept.items() if text is not None})


@pytest.mark.parametrize(
    ("about", "values"),
    [
        ({"cell": None}, ("cell",)),
        ({"weights_sha256": None, "classes": None}, ("classes, weights_sha256",)),
        ({"format_version": "3"}, ("'3'", 1, 2)),
        ({"cell": "{"}, ("JSON",)),
        ({"cell": "{}"}, ("backbone", "weights", "strategy")),
        ({"classes": "["}, ()),
        ({"classes": "[1, 2]"}, ()),
        ({"classes": "[" * 10_000}, ()),
        ({"classes": '["a", "b"]'}, ("misshapen", "head.linear.weight", "torch.float32 (10, 96)", "(2, 96)")),
    ],
    ids=str,
)
def test_damaged_metadata_are_refused(
    about: dict[str, str | None], values: tuple[object, ...], tmp_path: Path, wording: Wording
) -> None:
    file = tmp_path / "one.safetensors"
    _write(file, _cell("vit:tiny@none", "joint"))
    _changed(file, **about)
    problem = _problems(file)[0]
    assert quotes(problem, *values)
    wording([problem.partition(":")[0]])  # what follows may be pydantic's or json's words


def test_a_strategy_that_is_not_known_here_is_told(tmp_path: Path) -> None:
    file = tmp_path / "one.safetensors"
    cell = _cell("vit:tiny@none", "joint")
    _write(file, cell)
    _changed(file, cell=cell.model_copy(update={"strategy": "mine"}).canonical())
    assert quotes(_problems(file)[0], "strategy", "'mine'")
    _changed(file, cell=cell.model_copy(update={"options": {"nosuch": 1}}).canonical())
    assert "nosuch" in _problems(file)[0]


def test_all_of_a_cells_tensors_or_none(tmp_path: Path) -> None:
    file = tmp_path / "one.safetensors"
    _write(file, _cell("vit:tiny@none", "joint"))
    _changed(
        file,
        {
            "head.linear.bias": None,
            "head.linear.extra": torch.zeros(2),
            "head.linear.weight": torch.zeros(3, 3),
            "body.temporal_embedding": torch.zeros(1, 4, 96, dtype=torch.int32),
        },
    )
    missing, surplus, embedding, head = _problems(file)
    assert quotes(missing, "missing", "head.linear.bias") and quotes(surplus, "surplus", "head.linear.extra")
    assert quotes(embedding, "misshapen", "body.temporal_embedding", "torch.int32 (1, 4, 96)", "(1, 4, 96)")
    assert quotes(head, "misshapen", "head.linear.weight", "torch.float32 (3, 3)", "(10, 96)")


def test_a_file_of_version_1_is_read(tmp_path: Path) -> None:
    """Its names of what a strategy adds had no common prefix, and the head was the Linear itself."""
    file = tmp_path / "one.safetensors"
    written = _write(file, _cell("vit:tiny@none", "joint"))
    with safe_open(file, "pt") as opened:
        about = {**opened.metadata(), "format_version": "1"}
    old = {n.removeprefix("body.").replace("head.linear.", "head."): t for n, t in load_file(file).items()}
    assert {"temporal_embedding", "head.bias", "blocks.0.spatial.up.weight"} <= set(old)
    save_file(old, file, metadata=about)
    with torch.no_grad():
        clips = torch.randn(1, 4, 3, 32, 32)
        assert torch.equal(open_model_file(file).build(4)[0](clips), written.eval()(clips))


def test_values_that_are_no_finite_numbers_are_told(tmp_path: Path) -> None:
    file = tmp_path / "one.safetensors"
    _write(file, _cell("vit:tiny@none", "joint"))
    _changed(file, {"head.linear.bias": torch.full((10,), float("nan"))})
    assert "head.linear.bias" in open_model_file(file).build(4)[1][0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("strategy", "options"),
    [("joint", {"scale": 1.3, "temporal_adapters": 2, "ratio": 0.3}), ("temporal", {"blocks": "top"}), ("full", {})],
    ids=str,
)
def test_an_exported_cell_computes_the_same(
    family: str, strategy: str, options: dict[str, object], tmp_path: Path
) -> None:
    cell = _cell(f"{family}:tiny@none", strategy, **options)
    model = _write(tmp_path / "one.safetensors", cell)
    original = open_model_file(tmp_path / "one.safetensors")
    assert isinstance(original, AdapterFile)
    notes = export(original, tmp_path / "one.pth")
    assert any("QuickGELU" in note for note in notes) == (family == "clip")
    assert any("t_relative=False" in note for note in notes) == (family == "swin" and strategy != "full")
    found = open_model_file(tmp_path / "one.pth")
    assert (found.layout, found.strategy, found.dataset, found.class_names) == ("released", strategy, "motion", CLASSES)
    again, notes = found.build(4)
    assert notes == []
    assert not again.training
    assert torch.equal(again(clips()), model.eval()(clips()))
    assert found.weights_sha256_of(again) == digest(model.backbone)
    assert (again.backbone.mean, again.backbone.std) == (model.backbone.mean, model.backbone.std)


def test_an_exported_frozen_model_is_told_from_a_finetuned_one(tmp_path: Path) -> None:
    for strategy in ("frozen", "full"):
        _write(tmp_path / "one.safetensors", _cell("vit:tiny@none", strategy))
        export(open_model_file(tmp_path / "one.safetensors"), tmp_path / "one.pth")
        assert open_model_file(tmp_path / "one.pth").strategy == strategy
    (problem,) = _problems(tmp_path / "one.pth", strategy="frozen")
    assert quotes(problem, "full", "frozen")


def _saved(file: Path, state: Any, nested: bool = True) -> Path:
    torch.save({"state_dict": state} if nested else state, file)
    return file


@pytest.mark.parametrize(
    ("state", "backbone", "scale", "pixels"),
    [
        (lambda: official.vit(JOINT), "vit:tiny", 0.5, "imagenet"),
        (lambda: official.vit(TWO), "vit:tiny", 1.0, "imagenet"),
        (lambda: official.clip(JOINT), "clip:tiny", 0.5, "clip"),
        (lambda: official.swin(SWIN), "swin:tiny", 0.5, "imagenet"),
        (lambda: official.swin(SWIN_TWO), "swin:tiny", 0.5, "imagenet"),
    ],
)
def test_a_released_file_alone_says_what_it_is(
    state: Callable[[], Any], backbone: str, scale: float, pixels: str, tmp_path: Path
) -> None:
    """Pixels: ImageNet's usual mean of each colour to three digits, and CLIP's to four."""
    for nested in (True, False):
        found = open_model_file(_saved(tmp_path / "one.pth", state(), nested))
        assert (found.layout, found.strategy, found.backbone.architecture) == ("released", "joint", backbone)
        assert found.options["scale"] == scale
        assert (found.dataset, found.class_names, found.classes) == (None, None, 10)
        model, notes = found.build(found.frames)
        assert model.body.blocks[0].scale == scale
        assert any(quotes(note, f"scale is {scale:g}") for note in notes)
        mean = {"imagenet": (0.485, 0.456, 0.406), "clip": (0.4815, 0.4578, 0.4082)}[pixels]
        assert model.backbone.mean == pytest.approx(mean, abs=1e-4)
    assert open_model_file(tmp_path / "one.pth", scale=0.25).options["scale"] == 0.25


def test_a_released_clip_has_openais_activation(tmp_path: Path) -> None:
    """Under whichever of open_clip's two names; a model of ours that has another one is told of."""
    file = _saved(tmp_path / "one.pth", official.clip(JOINT))
    for name in ("clip:ViT-B-16", "clip:ViT-B-16-quickgelu", "clip:ViT-B-16@none"):
        assert open_model_file(file, backbone=name).backbone == BackboneName("clip", "ViT-B-16-quickgelu", "none")
    assert any("QuickGELU" in note for note in open_model_file(file).build(3)[1])


def test_a_backbone_of_another_shape_has_to_be_named(tmp_path: Path, wording: Wording) -> None:
    file = _saved(tmp_path / "one.pth", official.vit(JOINT, patch=16, size=224, width=48))
    (shape,) = _problems(file)
    assert quotes(shape, "vit", 48, 4, 16, 224, "--backbone")
    (family,) = _problems(file, backbone="swin:tiny")
    assert quotes(family, "vit", "swin:tiny")
    assert quotes(_problems(file, backbone="vit:tny")[0], "backbone 'vit:tny'", "'tny'")
    (weights,) = _problems(file, backbone="vit:tiny@bundled")
    assert quotes(weights, "backbone 'vit:tiny@bundled'", "vit:tiny")
    misshapen = _problems(file, backbone="vit:tiny")[0]
    assert field_of(misshapen) == "misshapen" and misshapen.endswith("(vit:tiny)")
    wording([shape, family, weights])


def test_what_was_asked_for_must_be_in_the_file(tmp_path: Path, wording: Wording) -> None:
    own = tmp_path / "one.safetensors"
    _write(own, _cell("vit:tiny@none", "joint"))
    strategy, scale = told = _problems(own, strategy="spatial", scale=2.0)
    assert quotes(strategy, "joint", "spatial") and quotes(scale, "scale", 0.5, 2)
    plain = _saved(tmp_path / "one.pth", official.vit([()] * 4, frames=None))
    assert open_model_file(plain).strategy == "full"
    assert open_model_file(plain, strategy="frozen").strategy == "frozen"
    (strategy,) = _problems(plain, strategy="joint")
    (scale,) = _problems(plain, scale=1.0)
    assert quotes(strategy, "full", "joint") and quotes(scale, "full", "scale")
    wording([*told, strategy, scale])


class _Bad:
    """Would run a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.chdir(tmp_path)
    for content in ({"state_dict": official.vit(JOINT), "meta": _Bad()}, _Bad(), {"state_dict": {"a": _Bad()}}):
        for zipped in (True, False):
            torch.save(content, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
            wording(_problems(tmp_path / "bad.pth"))
    assert os.listdir(tmp_path) == ["bad.pth"]


def test_a_best_accuracy_beside_the_weights_is_no_code(tmp_path: Path) -> None:
    """mmcv keeps its hooks' messages there, numpy's numbers among them."""
    meta = {"epoch": 30, "hook_msgs": {"best_score": np.float64(0.84), "last": np.float32(0.5), "n": np.int64(3)}}
    torch.save({"state_dict": official.vit(JOINT), "meta": meta, "optimizer": {}}, tmp_path / "one.pth")
    assert open_model_file(tmp_path / "one.pth").strategy == "joint"


ITSELF: dict[str, Any] = {}
ITSELF["model"] = ITSELF


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ({}, ("'state_dict'",)),
        ([torch.zeros(2)], ("list",)),
        ({"state_dict": {}}, ("'state_dict'",)),
        ({"weights": official.vit(JOINT)}, ("'state_dict'", "'model'", "'weights'")),
        ({"model": {"state_dict": "one.pth"}}, ("'state_dict'", "'model'")),
        (ITSELF, ("'state_dict'", "'model'")),
        ({"state_dict": {"a": 1}}, ("'state_dict'", "'model'", "'a'")),
        ({1: torch.zeros(2)}, ("dict",)),
        ({"state_dict": {"module.conv1": torch.zeros(2)}}, ("AIM",)),
        ({"state_dict": official.vit(JOINT), "meta": {"aim_bench": {"version": 2}}}, ("meta.aim_bench.version is 2",)),
    ],
    ids=[
        "empty",
        "list",
        "no state",
        "elsewhere",
        "text",
        "itself",
        "numbers",
        "whole numbers",
        "other names",
        "about",
    ],
)
def test_another_nesting_is_told(content: Any, values: tuple[str, ...], tmp_path: Path, wording: Wording) -> None:
    torch.save(content, tmp_path / "one.pth")
    problem = _problems(tmp_path / "one.pth")[0]
    assert quotes(problem, *values)
    wording([problem])


def test_what_an_exported_file_says_of_itself_must_be_true(tmp_path: Path) -> None:
    _write(tmp_path / "one.safetensors", _cell("vit:tiny@none", "joint"))
    export(open_model_file(tmp_path / "one.safetensors"), tmp_path / "one.pth")
    content = torch.load(tmp_path / "one.pth", weights_only=True)
    changes: tuple[tuple[dict[str, object], tuple[object, ...]], ...] = (
        ({"strategy": "spatial"}, ("spatial", 10, "joint", 10)),
        ({"classes": ["a", "b"]}, ("joint", 2, "joint", 10)),
        ({"backbone": "clip:tiny"}, ("'clip:tiny'", "vit")),
        ({"backbone": "vit:nosuch"}, ("'vit:nosuch'",)),
        ({"options": {"scale": "much"}}, ("option.scale is 'much'",)),
        ({"options": {"scale": 99}}, ("option.scale is 99",)),
    )
    for change, values in changes:
        about = {**content["meta"]["aim_bench"], **change}
        torch.save({**content, "meta": {"aim_bench": about}}, tmp_path / "changed.pth")
        assert quotes(_problems(tmp_path / "changed.pth")[0], *values)


@pytest.mark.parametrize("name", ["one.pth", "one.safetensors", "released.safetensors"])
def test_files_that_are_cut_off_or_made_up_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if name == "one.pth":
        _saved(file, official.vit(JOINT))
    elif name == "one.safetensors":
        _write(file, _cell("vit:tiny@none", "joint"))
    else:
        save_file(official.vit(JOINT), file)
        assert open_model_file(file).layout == "released"
    whole = file.read_bytes()
    for content in (b"", b"x", whole[:100], whole[: len(whole) // 2], whole[:-9], b"\0" * 4096, b"{}" * 50):
        file.write_bytes(content)
        assert len(_problems(file)) == 1
