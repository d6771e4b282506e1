"""`bench profile`: counts part by part, speed and memory, as a table, JSON and CSV; its mistakes."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.run.columns import COLUMNS
from bench.run.profile import plan
from bench.spec import ProfileRequest
from tests.bench import make
from tests.bench.command import Command, quotes
from tests.reference import macs as closed

TINY = ("profile", "vit:tiny@none", "joint", "--classes", "10")
COUNTS = (*TINY, "--no-timing")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_parts_add_up_and_agree_with_the_closed_form(bench: Command) -> None:
    said = bench(*COUNTS, "--frames", "6", "--views", "2x3", "-o", "ratio=0.5", "--format", "json")
    assert (said.code, said.err) == (0, "")
    (found,) = json.loads(said.out)
    expected = closed.vit_parts(
        side=32, patch=8, width=96, depth=4, frames=6, classes=10, spatial=True, joint=True, time="shared", ratio=0.5
    )
    assert {part: numbers["macs_view"] for part, numbers in found["parts"].items()} == expected
    assert found["macs_view"] == sum(expected.values())
    assert found["macs_total"] == 6 * found["macs_view"]
    assert (found["frames"], found["clips"], found["crops"], found["classes"]) == (6, 2, 3, 10)
    for quantity in ("params", "trained_params"):
        assert found[quantity] == sum(numbers[quantity] for numbers in found["parts"].values())
    assert found["options"]["ratio"] == 0.5
    assert found["measured"] is None


def test_the_table_of_one_model_has_a_line_for_each_part(bench: Command) -> None:
    out = bench(*COUNTS).out
    lines = [line.split("  ") for line in out.splitlines() if line]
    names = [line[0] for line in lines]
    head = names.index("part")
    assert names[head + 1 : head + 8] == [
        "embedding",
        "spatial attention",
        "temporal attention",
        "MLP",
        "adapters",
        "head",
        "total",
    ]
    numbers = [[float(text) for text in line[1:] if text.strip()] for line in lines[head + 1 : head + 8]]
    for column in range(5):
        assert sum(row[column] for row in numbers[:-1]) == pytest.approx(numbers[-1][column], abs=0.3)
    assert "8 frames, 3x1 views (clips x crops), 10 classes" in out
    assert "clips/s" not in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_small_head_trains_more_than_nothing(bench: Command) -> None:
    for strategies in ("frozen", "frozen,joint"):  # part by part, and a row a model
        out = bench("profile", "vit:tiny@none", strategies, "--classes", "5", "--frames", "1", "--no-timing").out
        assert "0.000485" in out.split()  # 5 x (96 + 1) parameters
        assert "0.000000480" in out.split()  # 5 x 96 multiply-accumulates
        assert "1 frame, 3x1 views (clips x crops), 5 classes" in out


def test_several_models_are_a_row_each_in_the_order_asked_for(bench: Command) -> None:
    said = bench(
        "profile",
        "swin:tiny@none,vit:tiny@none",
        "all",
        "--frames",
        "4,8",
        "--no-timing",
        "--format",
        "csv",
        "-o",
        "ratio=1",
    )
    rows = _rows(said.out)
    assert said.out.splitlines()[0] == ",".join(COLUMNS)
    strategies = ["frozen", "full", "timesformer", "spatial", "temporal", "joint"]
    assert [(row["backbone"], row["strategy"], row["frames"]) for row in rows] == [
        (f"{family}:tiny", strategy, frames)
        for family in ("swin", "vit")
        for strategy in strategies
        for frames in ("4", "8")
    ]
    for row in rows:
        for quantity in ("params_m", "trained_params_m", "gmacs_view"):
            parts = [float(row[name]) for name in COLUMNS if name.startswith(f"{quantity}_")]
            assert sum(parts) == pytest.approx(float(row[quantity]), rel=1e-9)
        assert float(row["gmacs_total"]) == pytest.approx(3 * float(row["gmacs_view"]), rel=1e-9)
        assert (float(row["gmacs_view_merging"]) > 0) == (row["backbone"] == "swin:tiny")


def test_a_table_of_several_models_shows_the_options_that_tell_them_apart(bench: Command) -> None:
    table = bench("profile", "swin:tiny@none,vit:tiny@none", "frozen,joint", "--no-timing", "-o", "scale=1").out
    rows = [line.split() for line in table.splitlines() if ":tiny@none" in line]
    assert [row[:4] for row in rows] == [
        ["swin:tiny@none", "frozen", "-", "8"],
        ["swin:tiny@none", "joint", "2", "8"],
        ["vit:tiny@none", "frozen", "-", "8"],
        ["vit:tiny@none", "joint", "1", "8"],
    ]
    assert table.split()[:4] == ["backbone", "strategy", "tubelet", "frames"]
    assert "merging" in table
    assert "blocks=all ratio=0.25 released_freezing=False scale=1.0 temporal_adapters=1" in table


def test_a_bare_name_is_the_base_model_and_its_counts_need_no_weights(bench: Command) -> None:
    said = bench("profile", "clip", "joint", "--no-timing")
    assert said.code == 0
    assert "clip = clip:ViT-B-16@openai" in said.out
    (total,) = [line.split() for line in said.out.splitlines() if line.startswith("total")]
    assert total[1:3] == ["202.088", "606.265"]
    assert total[4:] == ["96.765", "10.967"]


def test_speed_and_memory_are_measured_by_what_trains_and_evaluates(bench: Command, tmp_path: Path) -> None:
    said = bench(*TINY, "--frames", "2", "--batch-size", "2", "--device", "cpu", "--format", "json", "--out", "a.csv")
    assert said.code == 0
    (found,) = json.loads(said.out)
    measured = found["measured"]
    assert (measured["batch_size"], measured["micro_batch"], found["precision"]) == (2, 2, "fp32")
    assert (measured["params"], measured["trained_params"], measured["macs_view"]) == (
        found["params"],
        found["trained_params"],
        found["macs_view"],
    )
    assert measured["train_memory_bytes"] > measured["infer_memory_bytes"] > 4 * found["params"]
    assert measured["infer_clips_per_s"] > 0 and measured["train_clips_per_s"] > 0
    assert any(quotes(note, "@none") for note in found["footnotes"])
    (row,) = _rows((tmp_path / "a.csv").read_text())
    assert float(row["train_clips_per_s"]) == pytest.approx(measured["train_clips_per_s"], rel=1e-5)
    assert row["device"] == measured["device"]
    assert os.listdir(tmp_path) == ["a.csv"]


def _instead_of_measuring(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    import bench.measure.model

    def measure(*_: Any, **__: Any) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(bench.measure.model, "measure", measure)


def _batch_size(**asked: Any) -> int:
    (cell,) = plan(ProfileRequest(**asked)).cells
    return cell.recipe.batch_size


def test_a_cpu_is_timed_on_single_clips_unless_told_otherwise() -> None:
    asked = {"backbones": "vit:tiny@none", "strategies": "frozen", "device": "cpu"}
    assert _batch_size(**asked) == 1
    assert _batch_size(**asked, batch_size=3) == 3


def test_what_was_assumed_of_the_weights_is_footnoted(
    bench: Command, monkeypatch: pytest.MonkeyPatch, assumption: str
) -> None:
    _instead_of_measuring(monkeypatch, make.measured(batch_size=8, micro_batch=8, busy_cores=0.0))
    assert assumption in bench(*TINY, "--batch-size", "8", "--device", "cpu").out


def test_a_batch_that_memory_had_no_room_for_is_footnoted(bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    _instead_of_measuring(monkeypatch, make.measured(batch_size=8, micro_batch=2, busy_cores=1.4))
    said = bench(*TINY, "--batch-size", "8", "--device", "cpu")
    assert said.code == 0
    notes = [line for line in said.out.splitlines() if quotes(line, 8, 2) or quotes(line, 1.4)]
    assert len(notes) == 2 and quotes(notes[0], "memory", 8, 2) and quotes(notes[1], 1.4, "cores")
    assert "batch 8" in said.out


def test_a_model_that_memory_has_no_room_for_keeps_its_counts(bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    _instead_of_measuring(monkeypatch, torch.OutOfMemoryError("out of memory"))
    said = bench("profile", "vit:tiny@none", "joint,full", "--device", "cpu")
    assert said.code == 1
    rows = [line for line in said.out.splitlines() if ":tiny@none" in line]
    assert [row.split()[-10:] for row in rows] == [["-"] * 10] * 2
    for row, time in zip(rows, ("shared", None), strict=True):
        aim = {"spatial": time is not None, "joint": time is not None, "time": time}
        parts = closed.vit_parts(side=32, patch=8, width=96, depth=4, frames=8, classes=400, **aim)
        assert float(row.split()[-11]) == pytest.approx(sum(parts.values()) / 1e9, rel=5e-3)
    assert len([line for line in said.out.splitlines() if quotes(line, "2", "memory", "cpu")]) == 1


def test_a_model_that_cannot_be_timed_ends_no_other(bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    _instead_of_measuring(monkeypatch, ValueError("a plugin's\nmistake"))
    said = bench("profile", "vit:tiny@none", "joint", "--device", "cpu", "--format", "json")
    assert said.code == 1
    (found,) = json.loads(said.out)
    assert found["measured"] is None
    assert quotes(found["footnotes"][1], "ValueError: a plugin's mistake")


def test_models_that_cannot_be_counted_are_told_together(bench: Command) -> None:
    from adapters.base import register_strategy
    from adapters.blockwise import BlockwiseStrategy

    def adapt(self: BlockwiseStrategy, *_: Any) -> Any:
        raise KeyError(self.name)

    for name in ("first", "second"):
        register_strategy(type("Broken", (BlockwiseStrategy,), {"name": name, "summary": "raises", "adapt": adapt}))

    said = bench("profile", "vit:tiny@none", "first,joint,second", "--no-timing")
    assert (said.code, said.out) == (2, "")
    for problem, name in zip(said.problems, ("first", "second"), strict=True):
        assert quotes(problem, "vit:tiny@none", name, "8f", f"KeyError: '{name}'")


def test_weights_that_cannot_be_had_are_a_sentence_with_a_way_out(
    bench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    said = bench("profile", "vit:tiny@./a.safetensors", "joint", "--device", "cpu")
    assert said.code == 2
    (sentence,) = said.problems
    assert quotes(sentence, f"{tmp_path}/a.safetensors", "vit:tiny@none", "--no-timing")
    assert bench("profile", "vit:tiny@./a.safetensors", "joint", "--no-timing").code == 0


def test_every_mistake_at_once_and_nothing_on_the_disk(bench: Command, tmp_path: Path) -> None:
    said = bench(
        *("profile", "vitt,clip:ViT-L-14x", "jont,spatial"),
        *("--frames", "0"),
        *("--classes", "none"),
        *("--views", "3"),
        *("-o", "ratio=9"),
        *("-o", "ratoi=1"),
        *("-o", "foo"),
        *("--device", "gpu"),
        *("--precision", "fp8"),
        *("--batch-size", "0"),
        *("--format", "jsno"),
        *("--out", "nosuch/a.txt"),
        *("--plugin", "nosuch.py"),
    )
    assert (said.code, said.out) == (2, "")
    told: list[tuple[object, ...]] = [
        ("format is 'jsno'", "table, json, csv", "'json'"),
        ("out is 'nosuch/a.txt'", "'nosuch'"),
        ("out is 'nosuch/a.txt'", ".csv", ".json"),
        ("--option 'foo'", "name=value"),
        ("frames holds '0'", 1),
        ("classes is 'none'",),
        ("views is '3'", "3x1"),
        ("device is 'gpu'", "auto, cpu, cuda, cuda:N or mps", "'cpu'"),
        ("precision is 'fp8'", "auto, fp32, bf16 or fp16"),
        ("batch_size is 0", 1),
        ("plugin 'nosuch.py'",),
        ("strategy", "'jont'", "'joint'"),
        ("option", "'ratoi'", "'ratio'"),
        ("option.ratio is 9", 4),
        ("backbone", "'vitt'", "'vit'"),
        ("backbone 'clip:ViT-L-14x'", "'ViT-L-14x'", "'ViT-L-14'"),
    ]
    for values in told:
        assert len([sentence for sentence in said.problems if quotes(sentence, *values)]) == 1, values
    assert len(said.problems) == len(told)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("views", ["0x1", "3*1", "x", "-1x3", "1000x1"])
def test_views_are_two_whole_numbers(bench: Command, views: str) -> None:
    (problem,) = bench(*COUNTS, f"--views={views}").problems
    assert quotes(problem, f"views is {views!r}", "3x1")


def test_frames_that_the_patches_do_not_divide_are_told(bench: Command) -> None:
    (sentence,) = bench("profile", "swin:tiny@none", "joint,frozen", "--frames", "3", "--no-timing").problems
    assert quotes(sentence, "frames is 3", "joint", "swin", 2)


def test_the_help_lists_it(bench: Command) -> None:
    assert "profile" in bench("--help").out
