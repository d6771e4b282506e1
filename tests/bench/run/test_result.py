"""result.json: what a result must hold follows from the stages of its cell, and files of version 1 are read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from bench.run.result import Result
from tests.bench import make

WHOLE = {
    ("measure", "train", "evaluate"): make.done(),
    ("measure",): make.profiled(make.cell(stages=("measure",))),
    ("evaluate",): make.evaluated(),
}


@pytest.mark.parametrize(
    ("stages", "part"),
    [
        (("measure", "train", "evaluate"), "measured"),
        (("measure", "train", "evaluate"), "metrics"),
        (("measure",), "measured"),
        (("evaluate",), "metrics"),
        (("evaluate",), "counts"),
    ],
)
def test_a_result_lacks_no_part_of_a_stage(stages: Any, part: str) -> None:
    values = WHOLE[stages].model_dump()
    assert Result.model_validate(values) == WHOLE[stages]
    with pytest.raises(ValidationError) as refused:
        Result.model_validate(values | {part: None})
    assert [(error["loc"], error["type"]) for error in refused.value.errors()] == [((), "value_error")]


@pytest.mark.parametrize("name", ["micro_batch", "weights_sha256", "dataset_fingerprint"])
def test_an_evaluation_has_its_provenance(name: str) -> None:
    values = make.evaluated().model_dump()
    values["provenance"][name] = None
    with pytest.raises(ValidationError) as refused:
        Result.model_validate(values)
    assert [(error["loc"], error["type"]) for error in refused.value.errors()] == [((), "value_error")]


def test_a_file_of_version_1_is_read() -> None:
    now = make.done()
    before = json.loads(now.model_dump_json(exclude={"training", "counts", "skipped"})) | {
        "version": 1,
        "train_seconds": 30.25,
        "loaded_clips_per_s": 204.8,
        "loader_wait": 3.25,
    }
    for name in ("stages", "classes", "model_file", "split", "pixels"):
        del before["cell"][name]
    assert Result.model_validate_json(json.dumps(before)) == now


def test_a_file_of_a_later_version_is_not_taken_for_one_of_this() -> None:
    with pytest.raises(ValidationError):
        Result.model_validate(make.done().model_dump() | {"version": 3})
