"""results.csv: the same columns in the same order whatever the cells hold, and numbers that read back."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from bench.run.columns import COLUMNS, row, to_csv
from bench.run.result import Result
from tests.bench import make

RESULTS = Path(__file__).parents[3] / "results"
FIRST = [
    "cell",
    "backbone",
    "weights",
    "strategy",
    "dataset",
    "frames",
    "views",
    "seed",
    "status",
    "top1",
    "top5",
    "mean_class",
    "top1_reversed",
    "top1_shuffled",
    "params_m",
    "trained_params_m",
    "gmacs_view",
    "gmacs_total",
    "train_clips_per_s",
    "infer_clips_per_s",
    "train_memory_gb",
    "infer_memory_gb",
    "train_seconds",
    "epochs",
    "batch_size",
    "precision",
    "device",
    "footnotes",
]


def read(results: list[Result]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(results))))


def test_the_fixed_columns_come_first() -> None:
    assert list(COLUMNS[: len(FIRST)]) == FIRST
    assert len(set(COLUMNS)) == len(COLUMNS)


@pytest.mark.parametrize("name", ["motion", "cpu-amd-epyc-2-cores"])
def test_the_tables_that_are_kept_have_these_columns(name: str) -> None:
    with (RESULTS / f"{name}.csv").open(newline="") as stream:
        assert tuple(next(csv.reader(stream))) == COLUMNS


@pytest.mark.parametrize("results", [[], [make.failed()], [make.done()], [make.failed(), make.done()]])
def test_the_header_does_not_depend_on_the_rows(results: list[Result]) -> None:
    assert to_csv(results).splitlines()[0] == ",".join(COLUMNS)
    assert len(read(results)) == len(results)


def test_numbers_are_in_the_units_that_the_columns_name() -> None:
    found = row(make.done(make.cell(clips=4, crops=3), footnotes=("one", "two")))
    assert list(found) == list(COLUMNS)
    expected: dict[str, Any] = {
        "views": "4x3",
        "params_m": 1.234567,
        "trained_params_m": 0.098765,
        "gmacs_view": 0.123456789,
        "gmacs_total": 0.123456789 * 12,
        "train_memory_gb": 0.512,
        "infer_memory_gb": 0.128,
        "top1": 61.25,
        "device": "Some CPU",
        "footnotes": "one; two",
        "options": "blocks=all ratio=0.25 scale=0.5 temporal_adapters=1",
        "torch": "2.6.0",
        "dirty": False,
        "error": None,
        "train_clips_per_s_loaded": 204.8,
        "loader_wait": 3.25,
        "train_ms": 49.8,
        "infer_ms": 16.2,
        "batch_size": 16,
        "warmup_seconds": 1.5,
        "compile_seconds": 0.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_file_of_weights_is_named_without_its_folder() -> None:
    assert row(make.done(make.cell(weights="/home/someone/w.safetensors")))["weights"] == "w.safetensors"


def test_what_is_missing_is_empty_and_whole_numbers_stay_whole() -> None:
    seed = 2**31 - 1
    bad, good = read([make.failed(make.cell(seed=seed)), make.done(make.cell(seed=1))])
    assert (bad["seed"], bad["status"], bad["error"]) == (str(seed), "failed", "ValueError: no such luck")
    assert {bad[name] for name in ("top1", "params_m", "train_seconds", "micro_batch", "weights_sha256")} == {""}
    assert (bad["commit"], bad["batch_size"]) == (good["commit"], "16")
    assert (good["evaluated"], good["listed"], good["threads"], good["micro_batch"]) == ("400", "400", "2", "16")
    assert (good["top1"], good["params_m"], good["dirty"]) == ("61.25", "1.234567", "False")
    for values in (bad, good):
        assert not {"nan", "None", "<NA>", "NaN", "inf"} & set(values.values())


def test_results_of_runs_before_speed_with_loading_was_measured_can_still_be_read() -> None:
    older = make.done().model_dump(exclude={"training", "version"}) | {"version": 1, "train_seconds": 30.25}
    (found,) = read([Result.model_validate(older)])
    assert (found["train_clips_per_s_loaded"], found["loader_wait"], found["train_clips_per_s"]) == ("", "", "321.4")
    assert found["train_seconds"] == "30.25"
    loaded = older | {"loaded_clips_per_s": 204.8, "loader_wait": 3.25}
    (found,) = read([Result.model_validate(loaded)])
    assert (found["train_clips_per_s_loaded"], found["loader_wait"]) == ("204.8", "3.25")


def test_large_whole_numbers_keep_their_digits_beside_a_failed_cell() -> None:
    big = make.done()
    assert big.metrics is not None
    metrics = big.metrics.model_copy(update={"listed": 12_345_678})
    good = big.model_copy(update={"metrics": metrics})
    assert read([make.failed(make.cell(seed=1)), good])[1]["listed"] == "12345678"


def test_texts_that_csv_must_quote_read_back_in_one_line() -> None:
    error = 'a, "b" and | c'
    assert read([make.failed(error=error)])[0]["error"] == error
    results = [make.failed(error="one\n  two\x1b[2J"), make.done(make.cell(seed=1), footnotes=("a\nb", "c"))]
    assert len(to_csv(results).splitlines()) == 3
    failed, done = read(results)
    assert (failed["error"], done["footnotes"]) == ("one two\\x1b[2J", "a b; c")


def test_top_5_of_few_classes_is_empty_and_a_number_of_older_runs_stays() -> None:
    (found,) = read([make.done_of_few_classes()])
    assert (found["top1"], found["top5"]) == ("61.25", "")
    (older,) = read([Result.model_validate_json(make.done().model_dump_json().replace("97.5", "100.0"))])
    assert older["top5"] == "100"


def test_the_size_of_an_adapter_file_is_in_megabytes() -> None:
    assert row(make.done().model_copy(update={"adapter_bytes": 2_500_000}))["adapter_mb"] == 2.5
    assert row(make.done())["adapter_mb"] is None
