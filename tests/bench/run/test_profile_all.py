"""`bench profile --all`: the whole table of a device, row by row, taken up where it was left, never of two kinds."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.measure.model
import bench.run.provenance
from adapters.base import register_strategy
from adapters.blockwise import BlockwiseStrategy
from backbones.families import FAMILIES
from bench.measure.machine import device_name, slug
from bench.run.columns import COLUMNS
from bench.run.columns import row as row_of
from bench.run.matrix import Plan
from bench.run.profile import incompatibility, plan, without_weights
from bench.run.result import Result
from bench.run.store import Run
from bench.spec import ProfileRequest
from tests.bench import make
from tests.bench.command import Command, Wording, field_of, quotes
from tests.models import NAMES

ALL = ("profile", "--all", "--device", "cpu")
SMALL = (*ALL, "vit:tiny,swin:tiny", "frozen,joint")


class Measuring:
    """Stands in for the measurement: what it measured, and what comes of it."""

    def __init__(self) -> None:
        self.models: list[tuple[str, int]] = []
        self.how: list[dict[str, bool]] = []
        self.raises: dict[int, BaseException] = {}  # number of the call -> what it raises

    def __call__(self, model: Any, recipe: Any, device: Any, precision: Any, **how: bool) -> Any:
        self.models.append((type(model.backbone).__name__, model.frames))
        self.how.append(how)
        if (error := self.raises.get(len(self.models))) is not None:
            raise error
        number = len(self.models)
        batch = recipe.batch_size
        return make.measured(train_clips_per_s=10.0 + number, batch_size=batch, micro_batch=batch, busy_cores=0.0)


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measuring:
    monkeypatch.chdir(tmp_path)
    found = Measuring()
    monkeypatch.setattr(bench.measure.model, "measure", found)
    _code(monkeypatch, "abc", False)
    return found


def _code(monkeypatch: pytest.MonkeyPatch, commit: str, dirty: bool) -> None:
    monkeypatch.setattr(bench.run.provenance, "commit", lambda: (commit, dirty))


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _plan(**fields: Any) -> Plan:
    return plan(ProfileRequest(device="cpu", whole=True, **fields))


def _file() -> Path:
    return Path("results") / f"{slug(device_name('cpu'))}.csv"


def _stored() -> list[Path]:
    return sorted(_file().with_suffix("").glob("cells/*/result.json"))


# --- what is measured ---


def test_all_is_every_familys_base_model_with_every_strategy_as_published() -> None:
    chosen = _plan(backbones="all", strategies="all")
    expected = {
        (FAMILIES.get(family).base.partition("@")[0].partition(".")[0], strategy)
        for family in FAMILIES.names()
        for strategy in NAMES
    }
    assert {(cell.backbone_name.model, cell.strategy) for cell in chosen.cells} == expected
    assert len(chosen.cells) == len(expected)
    for cell in chosen.cells:
        assert cell.backbone_name.random and quotes(chosen.notes[cell.key], "@none")
        swin = cell.backbone_name.family == "swin"
        assert (cell.frames, cell.clips, cell.crops) == ((32, 4, 3) if swin else (8, 3, 1))
        assert (cell.stages, cell.recipe.batch_size, cell.classes) == (("measure",), 1, 400)


def test_what_is_given_wins_over_what_was_published() -> None:
    given = {"frames": "4", "views": "1x1", "batch_size": 2, "options": {"ratio": 0.5}}
    (cell,) = _plan(backbones="swin:tiny", strategies="joint", **given).cells
    assert (cell.frames, str(cell.views), cell.options["ratio"], cell.recipe.batch_size) == (4, "1x1", 0.5, 2)


def test_names_without_weights_have_random_ones() -> None:
    asked = ["clip", "vit:tiny", "vit:vit_base_patch16_224.mae", "clip:ViT-B-16@openai", "nosuch", "@"]
    assert without_weights(asked) == ["clip@none", "vit:tiny@none", *asked[2:]]
    assert without_weights(["all"]) == [f"{family}@none" for family in FAMILIES.names()]


def test_weights_that_cannot_be_had_are_replaced_and_said_to_be(bench: Command, measuring: Measuring) -> None:
    Path("a.safetensors").write_bytes(b"nothing")
    said = bench(*ALL, "vit:tiny@./a.safetensors,clip:tiny@bundled", "frozen")
    assert said.code == 0
    vit, clip = _read(_file())
    assert (vit["weights"], clip["weights"]) == ("none", "bundled")
    assert quotes(vit["footnotes"], "@none", "a.safetensors")
    assert clip["footnotes"] == ""


# --- the file ---


def test_the_file_is_named_after_the_device_and_says_where_its_numbers_come_from(
    bench: Command, measuring: Measuring
) -> None:
    said = bench(*SMALL, "--batch-size", "2")
    assert said.code == 0
    rows = _read(_file())
    assert _file().read_text().splitlines()[0] == ",".join(COLUMNS)
    assert [(row["backbone"], row["strategy"], row["frames"]) for row in rows] == [
        ("vit:tiny", "frozen", "8"),
        ("vit:tiny", "joint", "8"),
        ("swin:tiny", "frozen", "32"),
        ("swin:tiny", "joint", "32"),
    ]
    for row in rows:
        for name in ("device", "threads", "precision", "torch", "versions", "started"):
            assert row[name], name
        assert (row["batch_size"], row["micro_batch"], row["commit"], row["dirty"]) == ("2", "2", "abc", "False")
        assert (row["train_ms"], row["train_spread"], row["train_repeats"]) == ("49.8", "0.02", "20")
        assert (row["compiled"], row["compile_seconds"], row["warmup_seconds"]) == ("False", "0", "1.5")
        assert quotes(row["footnotes"], "@none") and ";" not in row["footnotes"]
    assert quotes(said.err, 4, "of", 4, "swin:tiny@none joint 32f", "14 clips/s", 988)
    assert sum("tiny@none" in line for line in said.out.splitlines()) == 4


def test_a_device_is_a_files_name() -> None:
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert slug("CPU: AMD EPYC (x), 2 cores") == "cpu-amd-epyc-x-2-cores"


def test_it_is_taken_up_where_it_was_stopped(bench: Command, measuring: Measuring, wording: Wording) -> None:
    measuring.raises[3] = KeyboardInterrupt()
    said = bench(*SMALL)
    assert said.code == 130
    assert quotes(said.err.splitlines()[-1], 2, "of", 4)
    wording(said.err.splitlines()[-1:])
    assert [row["train_clips_per_s"] for row in _read(_file())] == ["11", "12"]
    before = _file().read_text().splitlines()

    said = bench(*SMALL)
    assert said.code == 0
    assert quotes(said.err, "4 models", 2)
    assert [row["train_clips_per_s"] for row in _read(_file())] == ["11", "12", "14", "15"]
    assert _file().read_text().splitlines()[: len(before)] == before
    # the table shows what was measured before as it was
    shown = [line.split() for line in said.out.splitlines() if "tiny@none" in line]
    rates = [float(line[line.index("32" if "swin" in line[0] else "8") + 5]) for line in shown]
    assert rates == [11, 12, 14, 15]
    assert len(measuring.models) == 5
    assert set(os.listdir("results")) == {_file().name, _file().stem}


def test_other_models_measured_alike_stay_in_the_file(bench: Command, measuring: Measuring) -> None:
    bench(*ALL, "swin:tiny", "frozen")
    bench(*ALL, "vit:tiny", "frozen")
    assert [row["backbone"] for row in _read(_file())] == ["vit:tiny", "swin:tiny"]
    bench(*SMALL)
    assert [row["train_clips_per_s"] for row in _read(_file())] == ["12", "13", "11", "14"]


def test_two_commands_that_write_one_file_keep_each_others_rows(tmp_path: Path) -> None:
    runs, cells = [], [_plan(backbones=name, strategies="frozen").cells[0] for name in ("vit:tiny", "swin:tiny")]
    for cell in cells:  # both begin before either writes
        runs.append(Run(tmp_path / "a", tmp_path / "a.csv"))
        runs[-1].open(make.matrix(), [cell], "bench profile", {}, "last")
    for run, cell in zip(runs, cells, strict=True):
        run.write(make.profiled(cell))
    assert {row["backbone"] for row in _read(tmp_path / "a.csv")} == {"vit:tiny", "swin:tiny"}


@pytest.mark.parametrize(
    ("again", "code", "values"),
    [
        ((), ("def", False), ("commit", "abc", "def")),
        ((), ("abc", True), ("dirty", False, True)),
        (("--precision", "bf16"), ("abc", False), ("precision", "fp32", "bf16")),
        (("--batch-size", "2"), ("abc", False), ("batch size", 1, 2)),
        (("--compile",), ("abc", False), ("compile", False, True)),
        (("--checkpoint-activations",), ("abc", False), ("checkpoint activations", False, True)),
        (("--frames", "4"), ("abc", False), ("vit:tiny frozen", "frames", 8, 4)),
        (("--classes", "10"), ("abc", False), ("vit:tiny frozen", "classes", 400, 10)),
    ],
    ids=str,
)
def test_rows_of_two_kinds_never_stand_together(
    bench: Command,
    measuring: Measuring,
    monkeypatch: pytest.MonkeyPatch,
    again: tuple[str, ...],
    code: tuple[str, bool],
    values: tuple[object, ...],
) -> None:
    bench(*ALL, "vit:tiny", "frozen,full")
    _code(monkeypatch, *code)
    said = bench(*ALL, "vit:tiny", "frozen", *again)
    assert said.code == 0
    assert quotes(said.err, f"{_file()}", *values)
    (row,) = _read(_file())
    assert row["train_clips_per_s"] == "13"


def test_how_the_step_is_computed_reaches_the_measurement(bench: Command, measuring: Measuring) -> None:
    bench(*ALL, "vit:tiny", "frozen", "--compile")
    bench("profile", "vit:tiny", "frozen", "--device", "cpu", "--checkpoint-activations")
    assert measuring.how == [
        {"compile": True, "checkpoint_activations": False},
        {"compile": False, "checkpoint_activations": True},
    ]


def test_changed_code_is_not_taken_for_the_same(
    bench: Command, measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    _code(monkeypatch, "abc", True)
    for _ in range(2):
        said = bench(*ALL, "vit:tiny", "frozen")
    assert quotes(said.err, _file(), "commit")
    assert len(measuring.models) == 2


def test_other_versions_make_it_anew(bench: Command, measuring: Measuring) -> None:
    bench(*ALL, "vit:tiny", "frozen")
    (stored,) = _stored()
    stored.write_text(stored.read_text().replace('"timm": "', '"timm": "0.'))
    assert quotes(bench(*ALL, "vit:tiny", "frozen").err, _file(), "versions")
    assert len(measuring.models) == 2


@pytest.mark.parametrize("damage", ["", "\n", "backbone"])
def test_a_file_without_rows_begins_anew(bench: Command, measuring: Measuring, tmp_path: Path, damage: str) -> None:
    (tmp_path / "a.csv").write_text(damage.replace("backbone", ",".join(COLUMNS)))
    assert bench(*ALL, "vit:tiny", "frozen", "--out", "a.csv").code == 0
    assert len(_read(tmp_path / "a.csv")) == 1


def test_a_file_whose_results_are_gone_is_made_anew(bench: Command, measuring: Measuring) -> None:
    bench(*ALL, "vit:tiny", "frozen,full")
    shutil.rmtree(_file().with_suffix(""))
    assert quotes(bench(*ALL, "vit:tiny", "frozen").err, _file(), _file().with_suffix(""))
    assert [row["train_clips_per_s"] for row in _read(_file())] == ["13"]


def test_a_damaged_result_is_measured_again(bench: Command, measuring: Measuring) -> None:
    bench(*ALL, "vit:tiny", "frozen")
    (stored,) = _stored()
    stored.write_text(stored.read_text().replace("49.8", "x"))
    assert bench(*ALL, "vit:tiny", "frozen").code == 0
    assert _read(_file())[0]["train_ms"] == "49.8"
    assert len(measuring.models) == 2


def test_a_result_reads_back_as_it_was_written(bench: Command, measuring: Measuring) -> None:
    said = bench(*ALL, "vit:tiny", "joint", "--compile", "--format", "csv")
    (stored,) = _stored()
    result = Result.model_validate_json(stored.read_text())
    assert Result.model_validate_json(result.model_dump_json()) == result
    assert {name: str(value) for name, value in row_of(result).items() if isinstance(value, int | str)}.items() <= (
        _read(_file())[0].items()
    )
    assert said.out == _file().read_text()
    assert incompatibility([result], _plan(backbones="vit:tiny", strategies="joint", compile=True)) == ""


# --- what goes wrong ---


def test_one_model_that_fails_ends_no_other_and_is_tried_again(bench: Command, measuring: Measuring) -> None:
    measuring.raises = {1: torch.OutOfMemoryError("out of memory"), 3: ValueError("a plugin's\nmistake")}
    said = bench(*SMALL)
    assert said.code == 1
    rows = _read(_file())
    assert [bool(row["train_clips_per_s"]) for row in rows] == [False, True, False, True]
    assert quotes(rows[0]["footnotes"].split("; ")[-1], "memory", "cpu")
    assert quotes(rows[2]["footnotes"].split("; ")[-1], "ValueError: a plugin's mistake")
    assert all(row["gmacs_view"] and row["device"] and row["started"] for row in rows)

    assert bench(*SMALL).code == 0
    assert [row["train_clips_per_s"] for row in _read(_file())] == ["15", "12", "16", "14"]


def test_a_model_that_cannot_be_counted_is_a_row_with_its_reason(bench: Command, measuring: Measuring) -> None:
    def adapt(self: BlockwiseStrategy, *_: Any) -> Any:
        raise KeyError(self.name)

    broken = {"name": "broken", "summary": "raises", "adapt": adapt}
    register_strategy(type("Broken", (BlockwiseStrategy,), broken))
    register_strategy(
        type(
            "Refusing",
            (BlockwiseStrategy,),
            {"name": "refusing", "summary": "no", "refuses": lambda self, backbone: "never"},
        )
    )
    said = bench(*ALL, "vit:tiny", "broken,refusing,frozen", "--format", "table")
    assert said.code == 1
    assert quotes(said.out, "vit:tiny", "refusing", "never")
    first, second = _read(_file())
    assert (first["strategy"], first["gmacs_view"], first["train_clips_per_s"]) == ("broken", "", "")
    assert quotes(first["footnotes"], "vit:tiny@none broken 8f", "KeyError: 'broken'")
    assert second["train_clips_per_s"] == "11"
    assert bench(*ALL, "vit:tiny", "broken,frozen", "--format", "json").code == 1


def test_every_mistake_at_once_and_nothing_on_the_disk(bench: Command, measuring: Measuring, tmp_path: Path) -> None:
    said = bench(*ALL, "vitt", "jont", "--no-timing", "--out", "a.json", "--frames", "0", "--format", "jsno")
    assert said.code == 2
    told: list[tuple[object, ...]] = [
        ("format is 'jsno'",),
        ("out is 'a.json'", ".csv", "--all"),
        ("--no-timing", "--all"),
        ("frames holds '0'",),
        ("backbone", "'vitt'"),
        ("strategy", "'jont'"),
    ]
    for values in told:
        assert len([sentence for sentence in said.problems if quotes(sentence, *values)]) == 1, values
    assert len(said.problems) == len(told)
    assert os.listdir(tmp_path) == []


def test_a_file_of_something_else_is_not_replaced(
    bench: Command, measuring: Measuring, tmp_path: Path, wording: Wording
) -> None:
    (tmp_path / "results.csv").write_text("cell,backbone,strategy,train_clips_per_s\n1,2,3,4\n")
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe")
    (other,) = bench(*ALL, "vit:tiny", "frozen", "--out", "results.csv").problems
    assert quotes(other, "out is 'results.csv'")
    (no_text,) = bench(*ALL, "vit:tiny", "frozen", "--out", "bad.csv").problems
    assert quotes(no_text, "out is 'bad.csv'", "UTF-8")
    wording([other, no_text])
    assert measuring.models == []
    assert (tmp_path / "results.csv").read_text().endswith("1,2,3,4\n")


def test_without_all_a_backbone_and_a_strategy_are_needed(bench: Command) -> None:
    problems = bench("profile", "--no-timing").problems
    problems += bench("profile", "clip", "--frames", "0").problems[:1]
    for problem, name in zip(problems, ("BACKBONE", "STRATEGY", "STRATEGY"), strict=True):
        assert field_of(problem) == name and quotes(problem, "BACKBONE STRATEGY", "clip joint", "--all")


def test_a_model_that_is_only_counted_has_no_device() -> None:
    asked = {"backbones": "vit:tiny@none", "strategies": "joint", "timing": False}
    (cell,) = plan(ProfileRequest(**asked)).cells
    found = row_of(make.failed(cell))
    assert [found[name] for name in ("gmacs_view", "device", "precision", "sources", "dataset")] == [
        *(None, None, None, "", None)
    ]
    assert found["options"] == "blocks=all ratio=0.25 scale=0.5 temporal_adapters=1 tubelet=1"


def test_a_table_of_a_run_is_not_replaced(bench: Command, measuring: Measuring, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.open(make.matrix(), [make.cell()], "bench run", {})
    run.write(make.done())
    before = run.csv.read_text()
    (sentence,) = bench(*ALL, "vit:tiny", "frozen", "--out", run.csv).problems
    assert quotes(sentence, f"out is '{run.csv}'")
    assert run.csv.read_text() == before
