"""Cells and recipes: equal where they mean the same, different where anything differs, and never half valid."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from bench.run.result import Result
from bench.spec import Cell, Matrix, Recipe, Request, problems_of
from bench.spec.source import EXPECTED_VIEWS
from tests.bench import make

# another valid value for every field
OTHER_CELL: dict[str, Any] = {
    "backbone": "clip:tiny",
    "weights": "/somewhere/w.safetensors",
    "strategy": "temporal",
    "head": "attentive",
    "options": {"ratio": 0.5},
    "dataset": "kinetics",
    "data": {"root": "/videos"},
    "frames": 16,
    "input_size": 64,
    "clips": 3,
    "crops": 3,
    "view_side": 256,
    "seed": 1,
    "device": "cuda",
    "precision": "bf16",
    "decoder": "pyav",
    "order_test": False,
    "cache_format": "jpeg",
    "compile": True,
    "checkpoint_activations": True,
    "kernels": "plain",
    "sources": {"weights": "00" * 8},
    "stages": ("measure",),
    "classes": 7,
    "model_file": {"path": "/somewhere/a.pth", "sha256": "00" * 32, "layout": "released"},
    "split": "val",
    "pixels": "released",
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
        {"recipe": {"epochs": 9, "lr": 1e-5}},
    ]
    other: list[dict[str, Any]] = [
        {"backbone": "clip:tiny"},
        {"strategy": "spatial"},
        {"head": "attentive"},
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


SENTENCES: list[tuple[dict[str, Any], str]] = [
    ({"seeds": "foo"}, "seeds holds 'foo': expected a whole number"),
    ({"seeds": "1.5"}, "seeds holds '1.5': expected a whole number"),
    ({"seeds": 1.5}, "seeds holds 1.5: expected a whole number"),
    ({"seeds": "-1"}, "seeds holds '-1': expected at least 0"),
    ({"seeds": 2**31}, "seeds holds 2147483648: expected less than 2147483648"),
    ({"seeds": ""}, "seeds is '': expected at least one"),
    ({"seeds": []}, "seeds is []: expected at least one"),
    ({"seeds": {"a": 1}}, "seeds is {'a': 1}: expected a comma list or a list"),
    ({"seeds": [True]}, "seeds is [True]: expected no true or false in it"),
    ({"seeds": [[1], 2]}, "seeds holds [1]: expected a whole number"),
    ({"frames": "0"}, "frames holds '0': expected at least 1"),
    ({"frames": ","}, "frames is ',': expected at least one"),
    ({"input_size": "wide"}, "input_size is 'wide': expected a whole number"),
    ({"input_size": "224,336"}, "input_size is '224,336': expected a whole number"),
    ({"input_size": 224.5}, "input_size is 224.5: expected a whole number"),
    ({"input_size": True}, "input_size is True: expected a whole number"),
    ({"input_size": [224, 336]}, "input_size is [224, 336]: expected a whole number"),
    ({"input_size": 0}, "input_size is 0: expected at least 1"),
    ({"input_size": 10**9}, "input_size is 1000000000: expected at most 8192"),
    ({"backbones": [{"vit": "tiny"}]}, "backbones holds {'vit': 'tiny'}: expected a text"),
    ({"strategies": 3}, "strategies holds 3: expected a text"),
    ({"views": 3}, f"views is 3: {EXPECTED_VIEWS}"),
    ({"views": "3"}, f"views is '3': {EXPECTED_VIEWS}"),
    ({"views": "0x1"}, f"views is '0x1': {EXPECTED_VIEWS}"),
    ({"views": "1x1@"}, f"views is '1x1@': {EXPECTED_VIEWS}"),
    ({"views": "1x2"}, "views is '1x2': expected 1 crop (the centre) or 3 (left, centre, right)"),
    ({"views": "1x1@5000"}, "views is '1x1@5000': expected a short side of 1 to 4096 pixels"),
    ({"workers": 0}, "workers is 0: expected auto or a whole number from 1 to 256"),
    ({"workers": "many"}, "workers is 'many': expected auto or a whole number from 1 to 256"),
    ({"workers": 1.5}, "workers is 1.5: expected auto or a whole number from 1 to 256"),
    ({"workers": True}, "workers is True: expected auto or a whole number from 1 to 256"),
    ({"loader_workers": -1}, "loader_workers is -1: expected auto or a whole number from 0 to 256"),
    ({"decode_timeout": 0}, "decode_timeout is 0: expected more than 0"),
    ({"strict": "perhaps"}, "strict is 'perhaps': expected true or false"),
    ({"device": "cdua"}, "device is 'cdua': expected auto, cpu, cuda, cuda:N or mps (did you mean 'cuda'?)"),
    ({"device": 0}, "device is 0: expected a text"),
    ({"precision": "fp61"}, "precision is 'fp61': expected auto, fp32, bf16 or fp16 (did you mean 'fp16'?)"),
    ({"recipe": 3}, "recipe is 3: expected names and values"),
    ({"decoder": "decrod"}, "decoder is 'decrod': expected auto, decord, pyav or torchcodec (did you mean 'decord'?)"),
    ({"order_test": "maybe"}, "order_test is 'maybe': expected true or false"),
    ({"cache": "dsk"}, "cache is 'dsk': expected auto, ram, disk or off (did you mean 'disk'?)"),
    ({"cache": True}, "cache is True: expected auto, ram, disk or off"),
    ({"cache_format": "jpg"}, "cache_format is 'jpg': expected raw or jpeg (did you mean 'jpeg'?)"),
    (
        {"cache": "off", "cache_format": "jpeg"},
        "cache is 'off': cache_format jpeg needs a cache, expected auto, disk or ram",
    ),
    ({"cache_limit": "much"}, "cache_limit is 'much': expected a size, such as 500MB, 20GB or 1.5GiB"),
    (
        {"cache_limit": "2GBB"},
        "cache_limit is '2GBB': expected one of the units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB (did you mean 'GB'?)",
    ),
    ({"cache_limit": 0}, "cache_limit is 0: expected more than 0"),
    ({"out": 7}, "out is 7: expected a path"),
    ({"out": "a\0b"}, "out is 'a\\x00b': expected no null character in it"),
    ({"seeds": ["x" * 200]}, f"seeds holds {repr('x' * 200)[:76]} ...: expected a whole number"),
]


@pytest.mark.parametrize(("fields", "sentence"), SENTENCES, ids=[sentence[:40] for _, sentence in SENTENCES])
def test_what_is_wrong_is_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as error:
        Request(**fields)
    assert problems_of(error.value, known=tuple(Request.model_fields)) == [sentence]


RECIPE_SENTENCES: list[tuple[dict[str, Any], str]] = [
    ({"epochs": -1}, "recipe.epochs is -1: expected at least 0"),
    ({"epochs": True}, "recipe.epochs is True: expected no true or false"),
    ({"epochs": None}, "recipe.epochs is None: expected a whole number"),
    ({"epochs": 1.5}, "recipe.epochs is 1.5: expected a whole number"),
    ({"lr": float("nan")}, "recipe.lr is nan: expected a finite number"),
    ({"lr": "fast"}, "recipe.lr is 'fast': expected a number"),
    ({"lr": 0}, "recipe.lr is 0: expected more than 0"),
    ({"lr": 11}, "recipe.lr is 11: expected at most 10"),
    ({"drop_path": 1}, "recipe.drop_path is 1: expected less than 1"),
    ({"schedule": "setp"}, "recipe.schedule is 'setp': expected epoch or step (did you mean 'step'?)"),
    ({"flip": 3}, "recipe.flip is 3: expected true or false"),
    ({"betas": [0.9]}, "recipe.betas is [0.9]: expected one value more"),
    ({"betas": [0.9, 0.99, 0.999]}, "recipe.betas is [0.9, 0.99, 0.999]: expected at most 2 values"),
    ({"betas": [0.9, "x"]}, "recipe.betas holds 'x': expected a number"),
    ({"betas": [0.9, 1]}, "recipe.betas is [0.9, 1.0]: expected two numbers from 0 to below 1"),
    ({"crop_area": [0.9, 0.1]}, "recipe.crop_area is [0.9, 0.1]: expected 0 < low <= high <= 1"),
    ({"betas": [True, 0.9]}, "recipe.betas is [True, 0.9]: expected no true or false"),
    ({"rand_augment": True}, "recipe.rand_augment is True: expected no true or false"),
    ({"rand_augment": 4}, "recipe.rand_augment is 4: expected a list"),
    ({"rand_augment": [4]}, "recipe.rand_augment is [4]: expected one value more"),
    ({"rand_augment": [4, 7.5]}, "recipe.rand_augment holds 7.5: expected a whole number"),
    ({"rand_augment": [4, 31]}, "recipe.rand_augment holds 31: expected at most 30"),
    ({"rand_augment": [0, 7]}, "recipe.rand_augment holds 0: expected at least 1"),
    ({"colour": 1.5}, "recipe.colour is 1.5: expected at most 1"),
    ({"erase": -0.1}, "recipe.erase is -0.1: expected at least 0"),
    ({"erase": True}, "recipe.erase is True: expected no true or false"),
    ({"mixup": -1}, "recipe.mixup is -1: expected at least 0"),
    ({"cutmix": 11}, "recipe.cutmix is 11: expected at most 10"),
    (
        {"mixup": 0.8, "batch_size": 1},
        "recipe.mixup is 0.8: expected 0 beside a batch_size of 1, which has nothing to mix",
    ),
    ({"augment_on": "devise"}, "recipe.augment_on is 'devise': expected cpu or device (did you mean 'device'?)"),
]


@pytest.mark.parametrize(("fields", "sentence"), RECIPE_SENTENCES, ids=[s for _, s in RECIPE_SENTENCES])
def test_what_is_wrong_with_a_recipe_is_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as error:
        Recipe(**fields)
    assert problems_of(error.value, "recipe", tuple(Recipe.model_fields)) == [sentence]


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
