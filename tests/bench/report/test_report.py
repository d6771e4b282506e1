"""The comparison table: means and spreads, the best of a column, what tells rows apart, and every format of it."""

from __future__ import annotations

import csv
import io
import os
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from bench.report.formats import RENDERERS
from bench.report.report import Report
from bench.report.runs import Runs
from bench.report.table import NUMBERS, Column, ResultTable, make_table
from bench.report.terminal import TableView, render
from bench.run.columns import COLUMNS, row, to_csv
from bench.run.result import Result, Training
from bench.run.store import Run
from tests.bench import make
from tests.bench.command import Command, Wording, quotes

TOP1 = next(column for column in NUMBERS if column.key == "top1")


TEXTS = tuple(name for name in RENDERERS if name != "html")  # a page has tests of its own


def rendered(format_: str, results: Sequence[Result], missing: int = 0) -> str:
    """The table as the command renders it, in a format that needs no more than the results."""
    return RENDERERS[format_](Report(Runs.__new__(Runs).only(results), make_table(results, missing)))


def results() -> list[Result]:
    """Two seeds of AIM, one of which has a footnote; a frozen model; one that failed, with signs that formats use."""
    return [
        make.done(make.cell(seed=0), top1=61.25, footnotes=("random weights",)),
        make.done(make.cell(seed=1), top1=64.0, footnotes=("random weights", "2 videos skipped")),
        make.done(
            make.cell(strategy="frozen", options={}),
            top1=30.0,
            footnotes=("2 videos skipped",),
            trained_params=1290,
            train_clips_per_s=900.0,
        ),
        make.failed(make.cell(backbone="clip:tiny"), error="bad | [value] <class 'X'>\nin **two** lines"),
    ]


def by_strategy(sheet: ResultTable, strategy: str) -> int:
    return [row.labels["strategy"] for row in sheet.rows].index(strategy)


# --- the sheet ---


def test_how_many_videos_were_evaluated_shows_where_some_were_not() -> None:
    whole = [make.done(make.cell(seed=seed)) for seed in (0, 1)]
    assert "evaluated" not in make_table(whole).labels
    fewer = whole[1].model_copy(update={"metrics": make.metrics(evaluated=398)})
    frozen = make.done(make.cell(strategy="frozen", options={}))
    sheet = make_table([whole[0], fewer, frozen, make.failed(make.cell(strategy="full", options={}))])
    assert sheet.labels[:2] == ["backbone", "strategy"] and sheet.labels[-1] == "evaluated"
    assert [row.labels["evaluated"] for row in sheet.rows] == ["400 / 400, 398 / 400", "400 / 400", "-"]
    for renderer in ("terminal", "markdown"):
        assert "398 / 400" in rendered(renderer, [fewer])


def test_seeds_become_a_mean_and_a_standard_deviation() -> None:
    tops, speeds = [61.25, 64.0, 58.5], [300.0, 330.0, 345.0]
    sheet = make_table(
        [
            make.done(make.cell(seed=seed), top1=top1, train_clips_per_s=speed)
            for seed, (top1, speed) in enumerate(zip(tops, speeds, strict=True))
        ]
    )
    (row,) = sheet.rows
    assert row.seeds == (0, 1, 2)
    assert row.values["top1"] == pytest.approx(statistics.mean(tops))
    assert row.spreads["top1"] == pytest.approx(statistics.stdev(tops))
    assert row.spreads["top1"] == pytest.approx(2.75)  # by hand: sqrt((0 + 2.75^2 + 2.75^2) / 2)
    assert row.values["train_clips_per_s"] == pytest.approx(325.0)
    assert sheet.text(row, TOP1) == "61.2 ± 2.8"
    assert quotes(" ".join(sheet.caption), "±", "0, 1, 2")


def test_speed_with_loading_stands_beside_the_models_own(wording: Wording) -> None:
    sheet = make_table([make.done(), make.done(make.cell(strategy="full", options={}), train_clips_per_s=900.0)])
    keys = [column.key for column in sheet.columns]
    first = keys.index("train_clips_per_s")
    assert keys[first : first + 3] == ["train_clips_per_s", "train_clips_per_s_loaded", "loader_wait"]
    assert [sheet.text(sheet.rows[0], column) for column in sheet.columns[first : first + 3]] == ["321", "205", "3.2"]
    on_gpu = make_table([make.done(make.cell(device="cuda"))])
    assert all(quotes(caption, "loaded clips/s") for caption in (sheet.caption[-1], on_gpu.caption[-1]))
    wording([sheet.caption[-1], on_gpu.caption[-1]])  # on a CPU cells train side by side
    older = make.done().model_copy(update={"training": Training(train_seconds=30.25)})
    assert not {"loader_wait", "train_clips_per_s_loaded"} & {column.key for column in make_table([older]).columns}
    assert "loaded" not in " ".join(make_table([older]).caption)


def test_models_that_were_measured_alone_are_a_table_of_costs() -> None:
    """As `bench profile --all` leaves them: no accuracy, and nothing said of one."""
    cells = [make.cell(strategy=name, options={}, dataset="", stages=("measure",)) for name in ("frozen", "full")]
    found = make_table(
        [make.profiled(cell, params=count) for cell, count in zip(cells, (10**6, 2 * 10**6), strict=True)]
    )
    keys = [column.key for column in found.columns]
    assert keys[:2] == ["params_m", "trained_params_m"] and not {"top1", "top5"} & set(keys)
    assert [row.values["params_m"] for row in found.rows] == [1, 2]
    assert quotes(found.caption[0], "8x1x1") and "epoch" not in found.caption[0]


def test_top_5_of_few_classes_is_a_dash_and_the_caption_says_why() -> None:
    few = make.done_of_few_classes(make.cell(dataset="few"))
    for listed in ([few], [make.done(), few]):
        sheet = make_table(listed)
        column = next(column for column in sheet.columns if column.key == "top5")
        assert sheet.text(sheet.rows[-1], column) == "-"
        assert any("top-5" in line for line in sheet.caption)
        assert "100.0" not in rendered("markdown", listed) + rendered("terminal", listed)
    assert not any("top-5" in line for line in make_table([make.done()]).caption)


def test_small_counts_are_not_shown_as_nothing() -> None:
    few, fewer = make.cell(strategy="frozen", options={}), make.cell(strategy="spatial", options={})
    listed = [
        make.done(few, trained_params=579, train_clips_per_s=0.3125, train_memory_bytes=4_560),
        make.done(fewer, trained_params=578),
        make.done(),
    ]
    sheet = make_table(listed)
    shown = {column.key: [sheet.text(row, column) for row in sheet.rows] for column in sheet.columns}
    assert shown["trained_params_m"] == ["0.000579", "0.000578", "0.0988"]
    assert shown["train_clips_per_s"][0] == "0.312" and shown["train_memory_gb"][0] == "0.00000456"
    assert shown["top1"] == ["61.2"] * 3  # of percents the digits are enough
    trained = next(column for column in sheet.columns if column.key == "trained_params_m")
    assert [sheet.best(row, trained) for row in sheet.rows] == [False, True, False]  # as they are shown


def test_one_epoch_is_one_epoch() -> None:
    one, two = (make.done(make.cell(recipe={"epochs": epochs}), threads=epochs) for epochs in (1, 2))
    for cell, epochs, threads in ((one, "1 epoch", "1 thread"), (two, "2 epochs", "2 threads")):
        caption = make_table([cell]).caption
        assert quotes(caption[0], epochs, 16) and quotes(caption[1], threads)


def test_names_out_of_files_are_harmless_in_every_format() -> None:
    listed = [
        make.done(footnotes=("b\x1b[2J\nc.mp4",)),
        make.failed(make.cell(seed=1), error="d\x1b[2J\ne"),
    ]
    for format_ in TEXTS:
        text = rendered(format_, listed)
        assert "\x1b" not in text
        sign = r"(\\+|\\textbackslash\{\})"
        assert re.search(rf"b{sign}x1b\[2J c\.mp4", text) and re.search(rf"d{sign}x1b\[2J e", text)
    sheet = make_table([make.done(make.cell(weights="/a\x1b[2J\n.pt")), make.done()])
    assert sheet.rows[0].labels["backbone"] == "vit:tiny@a\\x1b[2J .pt"
    assert "\x1b" not in render(sheet)


def test_one_seed_has_no_spread() -> None:
    sheet = make_table([make.done(top1=61.25)])
    assert sheet.text(sheet.rows[0], TOP1) == "61.2"
    assert "±" not in render(sheet)


def test_a_row_of_fewer_seeds_than_the_others_says_so() -> None:
    sheet = make_table(
        [
            *(make.done(make.cell(seed=seed)) for seed in (0, 1)),
            make.done(make.cell(strategy="frozen", options={}, seed=1)),
            make.failed(make.cell(strategy="frozen", options={}, seed=0)),
        ]
    )
    assert sheet.footnotes == ["seed 1 alone"]
    assert [row.notes for row in sheet.rows] == [[], [1], []]


def test_the_best_value_of_each_column_is_marked() -> None:
    sheet = make_table(results())
    joint, frozen = sheet.rows[by_strategy(sheet, "joint")], sheet.rows[by_strategy(sheet, "frozen")]
    best = {column.key: [sheet.best(row, column) for row in (joint, frozen)] for column in sheet.columns}
    assert best["top1"] == [True, False]
    assert best["trained_params_m"] == [False, True]  # fewer are better
    assert best["train_clips_per_s"] == [False, True]
    assert best["infer_clips_per_s"] == [False, False]  # all alike: none is better
    assert best["params_m"] == best["top1_reversed"] == [False, False]  # neither end is a merit
    assert not any(sheet.best(sheet.rows[2], column) for column in sheet.columns)


def test_values_that_look_alike_are_a_tie() -> None:
    alike = [make.done(top1=61.21), make.done(make.cell(strategy="full", options={}), top1=61.24)]
    worse = make.done(make.cell(strategy="frozen", options={}), top1=50.0)
    sheet = make_table([*alike, worse])
    assert [sheet.text(row, TOP1) for row in sheet.rows] == ["61.2", "61.2", "50.0"]
    assert [sheet.best(row, TOP1) for row in sheet.rows] == [True, True, False]
    tied = make_table(alike)
    assert not any(tied.best(row, TOP1) for row in tied.rows)


def test_a_failed_cell_is_neither_best_nor_a_rival() -> None:
    sheet = make_table([make.done(), make.failed(make.cell(seed=1))])
    assert not any(sheet.best(row, column) for row in sheet.rows for column in sheet.columns)


def test_footnotes_are_numbered_once_and_shared() -> None:
    sheet = make_table(results())
    assert sheet.footnotes == ["random weights", "2 videos skipped", "seed 0 alone"]
    assert [row.notes for row in sheet.rows] == [[1, 2], [2, 3], []]


def test_failed_cells_stand_by_themselves_with_their_reason() -> None:
    sheet = make_table([make.done(), make.failed(make.cell(seed=1)), make.failed(make.cell(seed=2), "oom", "no room")])
    assert [(row.status, row.failure) for row in sheet.rows] == [
        ("done", None),
        ("failed", "failed (seed 1): ValueError: no such luck"),
        ("oom", "oom (seed 2): no room"),
    ]
    assert [sheet.text(row, column) for row in sheet.rows[1:] for column in sheet.columns[:2]] == [
        "failed",
        "-",
        "oom",
        "-",
    ]


@pytest.mark.parametrize("format_", ["terminal", "markdown"])
def test_a_run_in_which_all_failed_still_shows_its_cells(format_: str) -> None:
    text = rendered(format_, [make.failed(), make.failed(make.cell(seed=1), "interrupted", "stopped")])
    for word in ("vit:tiny@none", "joint", "failed", "interrupted", "no such luck", "stopped"):
        assert word in text


def test_what_varies_is_a_column_and_what_does_not_is_not() -> None:
    assert make_table(results()).labels == ["backbone", "strategy"]  # options differ by strategy alone
    sheet = make_table(
        [
            make.done(make.cell(frames=frames, recipe={"lr": lr, "head_lr": 2 * lr}))
            for frames in (8, 16)
            for lr in (1e-3, 2e-3)
        ]
    )
    assert sheet.labels == ["backbone", "strategy", "frames", "lr"]  # the head's follows and tells nothing new
    assert [(row.labels["frames"], row.labels["lr"]) for row in sheet.rows] == [
        ("8", "0.001"),
        ("8", "0.002"),
        ("16", "0.001"),
        ("16", "0.002"),
    ]


@pytest.mark.parametrize(
    ("aware", "reversed_", "shown"),
    [
        ((False, False), 61.25, False),
        ((False, True), 61.25, True),
        ((False, None), 61.25, True),
        ((False, False), 60, True),
    ],
)
def test_order_columns_are_there_for_methods_that_look_at_the_order(
    aware: tuple[bool | None, ...], reversed_: float, shown: bool
) -> None:
    results = []
    for seed, each in enumerate(aware):
        done = make.done(make.cell(seed=seed))
        order = {"order_aware": each, "top1_reversed": reversed_, "top1_shuffled": 61.25}
        results.append(done.model_copy(update={"metrics": done.metrics.model_copy(update=order)}))
    columns = {column.key for column in make_table(results).columns}
    assert ({"top1_reversed", "top1_shuffled"} <= columns) is shown and "top1" in columns
    assert [row(result)["order_aware"] for result in results] == list(aware)


@pytest.mark.parametrize(
    ("changes", "header", "text"),
    [
        ({"options": {"ratio": 0.5, "blocks": "all", "temporal_adapters": 1, "scale": 0.5}}, "ratio", "0.5"),
        ({"recipe": {"drop_path": 0.0}}, "drop path", "0"),
        ({"recipe": {"crop_area": (0.5, 1.0)}}, "crop area", "0.5..1"),
        ({"recipe": {"time_lr": 1e-3}}, "time lr", "0.001"),
        ({"recipe": {"batch_size": 8}}, "batch", "8"),
        ({"clips": 4, "crops": 3}, "views", "4x3"),
        ({"precision": "bf16"}, "precision", "bf16"),
        ({"dataset": "other"}, "data set", "other"),
        ({"data": {"root": "/videos"}}, "data root", "/videos"),
        ({"order_test": False}, "order test", "no"),
        ({"train_fraction": 0.05}, "training videos", "5 %"),
        ({"decoder": "pyav"}, "decoder", "pyav"),
        ({"cache_format": "jpeg"}, "cache format", "jpeg"),
        ({"compile": True}, "compiled", "yes"),
        ({"checkpoint_activations": True}, "checkpointed", "yes"),
        ({"kernels": "plain"}, "kernels", "plain"),
    ],
)
def test_no_two_rows_look_alike(changes: dict[str, object], header: str, text: str) -> None:
    sheet = make_table([make.done(), make.done(make.cell(**changes))])
    assert sheet.labels == ["backbone", "strategy", header]
    assert sheet.rows[1].labels[header] == text
    assert sheet.rows[0].labels[header] != text


def test_backbones_that_were_shown_other_frames_are_not_compared_in_silence() -> None:
    sheet = make_table([make.done(), make.done(make.cell(backbone="clip:tiny", frames=16, recipe={"lr": 1e-3}))])
    assert sheet.labels == ["backbone", "strategy", "frames"]  # each backbone and strategy has its own best lr


def test_two_files_of_weights_with_one_name_are_told_apart() -> None:
    sheet = make_table([make.done(make.cell(weights=f"/{folder}/w.pt")) for folder in "ab"])
    assert [row.labels["weights file"] for row in sheet.rows] == ["/a/w.pt", "/b/w.pt"]


def test_cells_without_a_result_are_counted() -> None:
    first, *others = make_table([make.done()], missing=2).caption
    assert quotes(first, 2, "of", 3, "cells") and others == make_table([make.done()]).caption


# --- formats ---


def test_markdown_is_a_valid_table() -> None:
    lines = rendered("markdown", results()).splitlines()
    end = lines.index("")
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[:end]]
    assert {len(row) for row in cells} == {2 + len(NUMBERS)}
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines[:end])
    assert {text.strip() for text in cells[1]} == {":--", "--:"}
    assert [text.strip() for text in cells[2][:3]] == ["vit:tiny@none", "joint <sup>1,2</sup>", "**62.6 ± 1.9**"]
    assert cells[4][2].strip() == "failed"
    assert lines[end + 1] == (
        r"- clip:tiny@none joint: failed (seed 0): bad \| [value] &lt;class 'X'> in \*\*two\*\* lines"
    )
    assert "<sup>1</sup> random weights  " in lines


def test_labels_that_hold_a_pipe_stay_one_cell() -> None:
    text = rendered("markdown", [make.done(make.cell(weights="/a|b.pt"))])
    assert {len(re.split(r"(?<!\\)\|", line)) for line in text.splitlines()[:3]} == {2 + len(NUMBERS) + 2}
    assert r"vit:tiny@a\|b.pt" in text


def test_csv_is_what_the_run_holds(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.open(make.matrix(), [result.cell for result in results()], "bench run", {})
    for result in results():
        run.write(result)
    assert rendered("csv", run.results()) == run.csv.read_text() == to_csv(results())
    read = list(csv.reader(io.StringIO(run.csv.read_text())))
    assert read[0] == list(COLUMNS)
    assert len(read) == 5


@pytest.mark.parametrize("format_", [name for name in TEXTS if name != "json"])
def test_nothing_that_is_missing_leaks_as_a_word(format_: str) -> None:
    without = make.done(make.cell(seed=5, order_test=False))
    assert without.metrics is not None
    metrics = without.metrics.model_copy(update={"top1_reversed": None, "top1_shuffled": None, "val_top1": None})
    text = rendered(format_, [*results(), without.model_copy(update={"metrics": metrics})], 1)
    for name in ("tiny@none", ",none,", "group-digits=none"):
        text = text.replace(name, ",")
    assert not re.search(r"\b(nan|none|null|<na>)\b", text, re.I)


def test_plain_text_is_in_one_piece_and_marks_the_best() -> None:
    text = render(make_table(results()))
    header, first, second, blank, failed = text.splitlines()[:5]
    assert header.split()[:4] == ["backbone", "strategy", "top-1", "%"]
    assert first.split()[:5] == ["vit:tiny@none", "joint¹,²", "62.6", "±", "1.9*"]
    assert second.split()[:3] == ["vit:tiny@none", "frozen²,³", "30.0"]
    assert blank == ""
    assert failed.split()[:4] == ["clip:tiny@none", "joint", "failed", "-"]
    assert "¹ random weights" in text.splitlines()
    assert "* best of its column" in text
    assert "bad | [value] <class 'X'> in **two** lines" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [20, 40, 72, 80, 120, 400])
def test_no_width_cuts_a_text(width: int) -> None:
    long = "vit:vit_base_patch16_224"
    sheet = make_table([*results(), make.done(make.cell(backbone=long, weights="augreg_in21k", frames=16))])
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(TableView(sheet))
    text = capture.get()
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    if width >= 72:  # enough for the labels and one column
        assert all(column.header.split()[0] in text for column in sheet.columns)
        assert f"{long}@augreg_in21k" in text
        assert text.count("62.6 ± 1.9*") == 1
        pieces = sum(line.startswith("backbone") for line in text.splitlines())
        assert (pieces == 1) == (width == 400)


def test_digits_stand_below_each_other_beside_a_star() -> None:
    lines = render(make_table(results())).splitlines()
    assert lines[1].index("62.6 ± 1.9*") + len("62.6 ± 1.9") == lines[2].index("30.0") + len("30.0")
    assert lines[0].index("top-1 %") + len("top-1 %") == lines[1].index("62.6 ± 1.9*") + len("62.6 ± 1.9*")


def test_names_of_wide_letters_keep_the_columns_straight() -> None:
    sheet = make_table([make.done(), make.done(make.cell(weights="/模型.pt"))])
    header, *lines = render(sheet).splitlines()[:4]
    ends = {cell_len(line[: line.index("97.5")]) for line in lines if "97.5" in line}
    assert len(ends) == 1
    assert cell_len(header[: header.index("top-5 %")]) + len("top-5") == ends.pop() + len("97.5") - 1


def test_a_table_in_pieces_repeats_the_labels_and_loses_no_column() -> None:
    sheet = make_table(results())
    console = Console(width=60, color_system=None)
    with console.capture() as capture:
        console.print(TableView(sheet))
    pieces = re.split(r"(?m)^(?=backbone)", capture.get())[1:]
    assert len(pieces) > 1
    for piece in pieces:
        assert piece.count("vit:tiny@none") == 2
        assert "clip:tiny@none" in piece
    shown = [number for piece in pieces for number in re.findall(r"(?m)^vit:tiny@none +frozen\S* +(.*)$", piece)]
    row = sheet.rows[by_strategy(sheet, "frozen")]
    expected = [sheet.text(row, column) + "*" * sheet.best(row, column) for column in sheet.columns]
    assert " ".join(shown).split() == expected


def test_a_sheet_of_other_columns_needs_no_spread() -> None:
    sheet = make_table(results())
    assert sheet.text(sheet.rows[0], Column("nosuch", "x", 1)) == "-"


# --- the verb ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a run results/one of four results and one that is missing."""
    run = Run(tmp_path / "results" / "one")
    run.open(make.matrix(), [*(result.cell for result in results()), make.cell(seed=9)], "bench run", {})
    for result in results():
        run.write(result)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("format_", TEXTS)
def test_the_latest_run_goes_to_the_terminal_or_to_a_file(folder: Path, bench: Command, format_: str) -> None:
    plain = ("--no-intervals", "--format", format_)
    said = bench("report", *plain)
    assert (said.code, said.err) == (0, "")
    assert said.out == rendered(format_, results(), 1)
    assert bench("report", "one", *plain).out == said.out
    assert bench("report", "results/one", *plain).out == said.out
    written = bench("report", *plain, "--output", "table.txt")
    assert (written.code, written.out) == (0, "")
    assert (folder / "table.txt").read_text() == said.out
    assert sorted(os.listdir(folder)) == ["results", "table.txt"]


def test_an_output_that_is_no_file_is_written_to_and_not_replaced(folder: Path, bench: Command) -> None:
    os.mkfifo(folder / "pipe")
    reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert bench("report", "--output", "pipe", "--format", "csv").code == 0
        assert os.read(reader, 100_000).decode() == rendered("csv", results(), 1)
    finally:
        os.close(reader)
    assert (folder / "pipe").is_fifo()


def test_everything_wrong_with_a_report_at_once(folder: Path, bench: Command, wording: Wording) -> None:
    (folder / "tables").mkdir()
    said = bench("report", "oen", "--output", "tabels/x.md")
    assert said.code == 2
    output, run = said.problems
    assert quotes(output, "output is 'tabels/x.md'", "'tabels'", "'tables'") and quotes(run, "'oen'", "'one'")
    (folder_,) = bench("report", "--output", "tables").problems
    assert quotes(folder_, "output is 'tables'")
    (long,) = bench("report", "--output", "x" * 300).problems
    assert quotes(long, f"output is '{'x' * 300}'", "File name too long")
    wording([output, run, folder_, long])
    assert bench("report", "--format", "htm").code == 2
    assert sorted(os.listdir(folder)) == ["results", "tables"]


def test_a_damaged_run_is_told(folder: Path, bench: Command, wording: Wording) -> None:
    for file in folder.rglob("result.json"):
        file.write_bytes(b"\xff")
    (none,) = bench("report").problems
    assert quotes(none, "'results/one'")
    (folder / "results" / "one" / "run.json").write_text("{")
    (sentence,) = bench("report").problems
    assert quotes(sentence, "'results/one/run.json'", "JSON")
    wording([none, sentence])


def test_without_runs_the_way_to_make_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    said = bench("report")
    assert said.code == 2
    assert len(said.problems) == 1 and quotes(said.problems[0], "'results'", "`bench run`")
    assert os.listdir(tmp_path) == []
