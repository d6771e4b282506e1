"""Cells and recipes: equal where they mean the same, different where anything differs, and never half valid."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from bench.run.result import Result
from bench.spec import Cell, Matrix, Recipe, Request, problems_of
from tests.bench import make
from tests.bench.command import Wording, field_of

# another valid value for every field
OTHER_CELL: dict[str, Any] = {
    "backbone": "clip:tiny",
    "weights": "/somewhere/w.safetensors",
    "strategy": "temporal",
    "head": "attentive",
    "head_options": {"depth": 2},
    "options": {"ratio": 0.5},
    "dataset": "kinetics",
    "data": {"root": "/videos"},
    "frames": 16,
    "input_size": 64,
    "clips": 3,
    "crops": 3,
    "view_side": 256,
    "seed": 1,
    "train_fraction": 0.05,
    "device": "cuda",
    "precision": "bf16",
    "decoder": "pyav",
    "order_test": False,
    "cache_format": "jpeg",
    "cache_features": True,
    "compile": True,
    "checkpoint_activations": True,
    "kernels": "plain",
    "sources": {"weights": "00" * 8},
    "stages": ("measure",),
    "classes": 7,
    "model_file": {"path": "/somewhere/a.pth", "sha256": "00" * 32, "layout": "released"},
    "split": "val",
    "pixels": "released",
    "trial": {"number": 0, "untuned": {"lr": 3e-4}},
    "tuning": {
        "trials": 1,
        "epochs": 1,
        "sampler": "none",
        "sampler_seed": 0,
        "seed": 9,
        "space": {"lr": {"scale": "log", "low": 1e-4, "high": 1e-2}},
        "untuned": {"lr": 3e-4},
        "chosen": 0,
        "values": {"lr": 3e-4},
    },
}
OTHER_RECIPE: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 17,
    "lr": 1e-3,
    "head_lr": 1e-3,
    "time_lr": 1e-3,
    "time_init": 0.3,
    "weight_decay": 0.1,
    "betas": (0.8, 0.999),
    "warmup_epochs": 1.0,
    "warmup_start": 0.2,
    "schedule": "step",
    "drop_path": 0.3,
    "drop_path_mode": "released",
    "adapter_init": "torch",
    "dropout": 0.3,
    "label_smoothing": 0.1,
    "crop_area": (0.5, 1.0),
    "flip": True,
    "colour": 0.5,
    "pca_noise": 0.1,
    "rand_augment": (4, 7),
    "erase": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
    "augment_on": "device",
}


def test_the_lists_above_name_every_field() -> None:
    assert OTHER_CELL.keys() | {"recipe"} == Cell.model_fields.keys()
    assert OTHER_RECIPE.keys() == Recipe.model_fields.keys()


def test_key_does_not_depend_on_the_order_of_names_or_on_the_spelling_of_numbers() -> None:
    one = make.cell(options={"ratio": 0.25, "scale": 0.5}, recipe={"warmup_epochs": 2})
    other = make.cell(options={"scale": 0.5, "ratio": 0.25}, recipe={"warmup_epochs": 2.0})
    assert one.canonical() == other.canonical()
    assert (one.key, hash(one)) == (other.key, hash(other))
    assert one == other
    assert {one: "found"}[other] == "found"


def test_key_survives_a_round_trip_through_json() -> None:
    cell = make.cell(recipe={"lr": 0.1 + 0.2})
    assert Cell.model_validate_json(cell.model_dump_json()).key == cell.key
    assert Cell(**json.loads(cell.canonical())).key == cell.key


@pytest.mark.parametrize("field", OTHER_CELL)
def test_key_changes_with_every_field_of_the_cell(field: str) -> None:
    assert make.cell(**{field: OTHER_CELL[field]}).key != make.cell().key


@pytest.mark.parametrize("field", OTHER_RECIPE)
def test_key_changes_with_every_field_of_the_recipe(field: str) -> None:
    assert make.cell(recipe={field: OTHER_RECIPE[field]}).key != make.cell().key


@pytest.mark.parametrize("deep", [False, True])
def test_a_copy_of_other_values_has_another_key(deep: bool) -> None:
    cell = make.cell()
    assert cell.key == make.cell().key
    assert cell.model_copy(update={"seed": 3}, deep=deep).key == make.cell(seed=3).key != cell.key
    assert cell == make.cell() and cell.model_dump_json() == make.cell().model_dump_json()


def test_key_stays_what_it_was() -> None:
    """A run of yesterday is gone on with today: whoever changes the canonical form must know that they do."""
    assert make.cell().key == "c94bf867d4"


def test_model_key_is_the_same_for_what_does_not_change_the_model() -> None:
    key = make.cell().model_key()
    same: list[dict[str, Any]] = [
        {"seed": 7},
        {"clips": 4, "crops": 3},
        {"view_side": 256},
        {"order_test": False},
        {"decoder": "pyav"},
        {"cache_format": "jpeg"},
        {"cache_features": True},
        {"train_fraction": 0.1},
        {"recipe": {"epochs": 9, "lr": 1e-5}},
    ]
    other: list[dict[str, Any]] = [
        {"backbone": "clip:tiny"},
        {"strategy": "spatial"},
        {"head": "attentive"},
        {"head_options": {"depth": 2}},
        {"frames": 16},
        {"input_size": 64},
        {"precision": "bf16"},
        {"options": {"ratio": 0.5}},
        {"recipe": {"batch_size": 8}},
        {"recipe": {"drop_path": 0.0}},
        {"recipe": {"drop_path_mode": "released"}},
        {"compile": True},
        {"checkpoint_activations": True},
        {"kernels": "plain"},
    ]
    assert {make.cell(**changes).model_key() for changes in same} == {key}
    assert len({make.cell(**changes).model_key() for changes in other} | {key}) == len(other) + 1


@pytest.mark.parametrize(
    "weights", ["none", "/a/b c/wéights|.safetensors", "../x.pt", "~/" + "long" * 60 + ".pth", "C:\\w:1.bin"]
)
def test_folder_is_a_plain_name_on_every_file_system(weights: str) -> None:
    folder = make.cell(weights=weights).folder
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", folder)
    assert len(folder) <= 100
    assert folder.endswith(f"-{make.cell(weights=weights).key}")


def test_label_shows_a_file_without_its_folders() -> None:
    assert make.cell(weights="/a/b/own.safetensors").label == "vit:tiny@own.safetensors joint 8f seed 0"


def test_cells_recipes_and_matrices_are_frozen_and_hashable() -> None:
    for spec in (make.cell(), make.recipe(), make.matrix(options={"ratio": 0.5}), Request(options={"ratio": 0.5})):
        assert hash(spec) == hash(spec.model_copy(deep=True))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(spec, next(iter(type(spec).model_fields)), 3)


def test_a_result_is_not_done_without_its_provenance() -> None:
    whole = make.done().model_dump()
    partly = {**whole["provenance"], "weights_sha256": None}
    for changes in ({"metrics": None}, {"measured": None}, {"provenance": partly}):
        with pytest.raises(ValidationError, match="without its measurements and its provenance"):
            Result(**{**whole, **changes})
    with pytest.raises(ValidationError, match="needs its reason"):
        Result(cell=make.cell(), status="oom", provenance=make.provenance())


def test_a_failure_has_its_provenance_too() -> None:
    with pytest.raises(ValidationError, match="provenance"):
        Result(cell=make.cell(), status="failed", error="ValueError: no such luck")


def test_a_result_holds_no_nan() -> None:
    with pytest.raises(ValidationError, match="finite"):
        make.metrics(top1=float("nan"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0,1,2", (0, 1, 2)), (3, (3,)), ([0, "1", 1.0, 1], (0, 1)), (" 4 , 4,04 ", (4,)), ((5,), (5,))],
)
def test_lists_are_read_from_what_people_write_and_repeat_nothing(value: Any, expected: tuple[int, ...]) -> None:
    assert Matrix(seeds=value).seeds == expected


@pytest.mark.parametrize("value", ["auto", "3", " 3", 3])
def test_workers_are_a_number_or_auto(value: Any) -> None:
    assert Request(workers=value).workers == ("auto" if value == "auto" else 3)


def test_paths_know_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    request = Request(out="~/runs/x", data_root="~/videos")
    assert (str(request.out), str(request.data_root)) == ("/home/someone/runs/x", "/home/someone/videos")


WRONG: list[dict[str, Any]] = [
    {"seeds": "foo"},
    {"seeds": "1.5"},
    {"seeds": 1.5},
    {"seeds": "-1"},
    {"seeds": 2**31},
    {"seeds": ""},
    {"seeds": []},
    {"seeds": {"a": 1}},
    {"seeds": [True]},
    {"seeds": [[1], 2]},
    {"frames": "0"},
    {"frames": ","},
    {"input_size": "wide"},
    {"input_size": "224,336"},
    {"input_size": 224.5},
    {"input_size": True},
    {"input_size": [224, 336]},
    {"input_size": 0},
    {"input_size": 10**9},
    {"backbones": [{"vit": "tiny"}]},
    {"strategies": 3},
    {"views": 3},
    {"views": "3"},
    {"views": "0x1"},
    {"views": "1x1@"},
    {"views": "1x2"},
    {"views": "1x1@5000"},
    {"workers": 0},
    {"workers": "many"},
    {"workers": 1.5},
    {"workers": True},
    {"loader_workers": -1},
    {"decode_timeout": 0},
    {"strict": "perhaps"},
    {"device": "cdua"},
    {"device": 0},
    {"precision": "fp61"},
    {"recipe": 3},
    {"decoder": "decrod"},
    {"order_test": "maybe"},
    {"cache": "dsk"},
    {"cache": True},
    {"cache_format": "jpg"},
    {"cache": "off", "cache_format": "jpeg"},
    {"cache_limit": "much"},
    {"cache_limit": "2GBB"},
    {"cache_limit": 0},
    {"out": 7},
    {"out": "a\x00b"},
    {"seeds": ["x" * 200]},
    {"train_fractions": 0},
    {"train_fractions": "0.1,2"},
    {"train_fractions": "abc"},
    {"train_fractions": "nan"},
    {"train_fractions": ""},
    {"train_fractions": "1,0.5,1"},
    {"train_fractions": [0.1, 0.10, 1, 1.0]},
    {"train_fractions": True},
]


def test_what_is_wrong_is_one_sentence(wording: Wording) -> None:
    found = []
    for fields in WRONG:
        with pytest.raises(ValidationError) as error:
            Request(**fields)
        (sentence,) = problems_of(error.value, known=tuple(Request.model_fields))
        assert field_of(sentence) == next(iter(fields))
        found.append(sentence)
    wording(found)


WRONG_RECIPES: list[dict[str, Any]] = [
    {"epochs": -1},
    {"epochs": True},
    {"epochs": None},
    {"epochs": 1.5},
    {"lr": float("nan")},
    {"lr": "fast"},
    {"lr": 0},
    {"lr": 11},
    {"drop_path": 1},
    {"schedule": "setp"},
    {"flip": 3},
    {"betas": [0.9]},
    {"betas": [0.9, 0.99, 0.999]},
    {"betas": [0.9, "x"]},
    {"betas": [0.9, 1]},
    {"crop_area": [0.9, 0.1]},
    {"betas": [True, 0.9]},
    {"rand_augment": True},
    {"rand_augment": 4},
    {"rand_augment": [4]},
    {"rand_augment": [4, 7.5]},
    {"rand_augment": [4, 31]},
    {"rand_augment": [0, 7]},
    {"colour": 1.5},
    {"erase": -0.1},
    {"erase": True},
    {"mixup": -1},
    {"cutmix": 11},
    {"mixup": 0.8, "batch_size": 1},
    {"augment_on": "devise"},
]


def test_what_is_wrong_with_a_recipe_is_one_sentence(wording: Wording) -> None:
    found = []
    for fields in WRONG_RECIPES:
        with pytest.raises(ValidationError) as error:
            Recipe(**fields)
        (sentence,) = problems_of(error.value, "recipe", tuple(Recipe.model_fields))
        assert field_of(sentence) == f"recipe.{next(iter(fields))}"
        found.append(sentence)
    wording(found)


def test_unknown_names_come_with_the_nearest_known_one() -> None:
    with pytest.raises(ValidationError) as error:
        Recipe(drp_path=0.1, epoch=3)  # type: ignore[call-arg]
    first, second = problems_of(error.value, "recipe", tuple(Recipe.model_fields))
    assert first.startswith("unknown name 'recipe.drp_path': expected one of epochs, batch_size, lr, ")
    assert first.endswith("(did you mean 'drop_path'?)")
    assert second.endswith("(did you mean 'epochs'?)")


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GB", 20 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("7", 7), ("2tib", 2**41), ("3KB", 3000)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert Request(cache_limit=text).cache_limit == size


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("much", "such as 500MB"),
        ("20GB-30GB", "such as 500MB"),
        (True, "such as 500MB"),
        ("-1GB", "such as 500MB"),
        ("20GBB", "did you mean 'GB'"),
        ("20Gigs", "one of the units B, KB"),
        ("0GB", "more than 0"),
        ("", "such as"),
    ],
)
def test_what_is_not_a_size_is_told(text: str, told: str) -> None:
    with pytest.raises(ValidationError) as error:
        Request(cache_limit=text)
    (problem,) = problems_of(error.value)
    assert problem.startswith(f"cache_limit is {text!r}: expected ") and told in problem
