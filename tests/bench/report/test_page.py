"""The page of a run: what it embeds, against results.csv and the predictions; names that are text and nothing else."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data.dataset import DATASETS, Split, Video, VideoDataset, register_dataset
from bench.report.page.curves import curves_of
from bench.report.page.data import page_data, to_script
from bench.report.page.plots import embedded, plots_of
from bench.report.page.render import render_page
from bench.report.page.thumbnails import thumbnails
from bench.report.pivot import pivot
from bench.report.runs import Runs
from bench.report.table import make_table
from bench.run.store import LOG, PREDICTIONS, Run
from bench.text import one_line
from tests.bench import make
from tests.bench.command import Command
from tests.bench.report.pages import (
    HOSTILE,
    LABELS,
    NAMES,
    SKIPPED,
    VIDEOS,
    Page,
    data_of,
    guessed,
    page_of,
    seen,
    write_bare_run,
    write_log,
    write_run,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("page") / "run <1>")


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    """The page, with one plot: each takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.page.plots._KINDS", {"order": "Order of the frames"})
        return page_of(run)


@pytest.fixture(scope="module")
def data(text: str) -> dict[str, Any]:
    return Page(text).data


def decoded(field: Sequence[Any], count: int) -> list[str]:
    """A field's text of each cell."""
    return [field[0][field[1][index]] if len(field) > 1 else field[0][0] for index in range(count)]


def outcomes(data: dict[str, Any], cell: int) -> list[int | None]:
    """The class that a cell took each video of its list for, read bit by bit; None of those that it did not predict."""
    found = data["outcomes"][cell]
    bits = {name: base64.b64decode(found[name]) for name in ("right", "seen", "guesses") if name in found}
    mistaken = iter(np.frombuffer(bits["guesses"], f"<u{found['bytes']}").tolist())
    taken: list[int | None] = []
    for index, label in enumerate(data["tests"][found["test"]]["labels"]):
        right, predicted = (
            bits[name][index // 8] >> index % 8 & 1 if name in bits else 1 for name in ("right", "seen")
        )
        taken.append((label if right else next(mistaken)) if predicted else None)
    assert next(mistaken, None) is None
    return taken


# --- data ---


def test_the_fields_of_cells_are_results_csv(run: Run, data: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(run.csv.read_text())))
    fields = data["cells"]["fields"]
    order = [decoded(fields["cell"], data["cells"]["count"]).index(row["cell"]) for row in rows]
    assert sorted(order) == list(range(6))
    for column in rows[0]:
        found = decoded(fields[column], 6) if column in fields else [""] * 6
        assert [found[index] for index in order] == [row[column] for row in rows], column
    assert {name for name in rows[0] if any(row[name] for row in rows)} <= set(fields)
    known = {result.cell.key: result.provenance for result in run.results()}
    assert [known[row["cell"]].command for row in rows] == decoded(fields["command line"], 6)


def test_rows_hold_the_means_of_their_cells(run: Run, data: dict[str, Any]) -> None:
    rows = {row["cell"]: row for row in csv.DictReader(io.StringIO(run.csv.read_text()))}
    keys = decoded(data["cells"]["fields"]["cell"], 6)
    assert [len(row["cells"]) for row in data["rows"]] == [2, 2, 1, 1]
    for row in data["rows"]:
        for column, value in zip(data["columns"], row["values"], strict=True):
            numbers = [float(rows[keys[cell]][column["key"]] or "nan") for cell in row["cells"]]
            assert value == (None if np.isnan(numbers).any() else pytest.approx(np.mean(numbers), rel=1e-4))
    best = [row["best"] for row in data["rows"]]
    speed = [column["key"] for column in data["columns"]].index("train_clips_per_s")
    assert [speed in each for each in best] == [False, False, True, False]  # the fifth cell is the fastest
    assert data["rows"][-1]["failure"] is not None and "<b>no luck</b>" in data["rows"][-1]["failure"]


def test_a_number_of_a_pivot_has_cells_of_its_own(tmp_path: Path) -> None:
    run = Run(tmp_path)
    made = [make.cell(dataset=name, seed=seed) for name in ("few", "motion") for seed in (0, 1)]
    made += [make.cell(strategy="frozen", options={}, dataset=name) for name in ("few", "motion")]
    run.open(make.matrix(), made, "bench run", {})
    for index, cell in enumerate(made):
        run.put(make.failed(cell) if index in (1, 5) else make.done(cell, top1=10.0 * (index + 1)))
    runs = Runs([run])
    found = page_data(runs, pivot(runs.results, "dataset"))
    keys = decoded(found["cells"]["fields"]["cell"], 6)
    of_data = [column["header"] for column in found["columns"]]
    assert [column["quantity"] for column in found["columns"]] == ["top1", "top1"]
    for row, strategy in zip(found["rows"], ("joint", "frozen"), strict=True):
        for name, cells in zip(of_data, row["parts"], strict=True):
            behind = {cell.key for cell in made if (cell.strategy, cell.dataset) == (strategy, name)}
            # of seeds that failed beside one that did not, no number was made
            assert {keys[cell] for cell in cells} == behind - {made[1].key}
    assert [row["parts"] for row in page_data(runs, make_table(runs.results))["rows"]] == [None] * 5


def test_outcomes_are_the_predictions(data: dict[str, Any]) -> None:
    (videos,) = data["tests"]
    assert videos["names"] == [one_line(name) for name in NAMES] and videos["labels"] == LABELS.tolist()
    for cell in range(5):
        expected: list[int | None] = [None] * VIDEOS
        for video in seen(cell):
            expected[video] = int(guessed(cell)[video])
        assert outcomes(data, cell) == expected
    assert data["outcomes"][5] is None  # it failed


def test_cells_of_other_labels_have_a_list_of_their_own(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (first, second, third, *_) = run.results()
    values = {"names": NAMES[:3], "labels": LABELS[1:4], "probabilities": np.eye(300)[[299, 1, 2]]}
    np.savez(run.cell_folder(second.cell) / PREDICTIONS, **values)
    (run.cell_folder(third.cell) / PREDICTIONS).write_bytes(b"PK")
    (run.cell_folder(first.cell) / "adapter.safetensors").unlink()  # the data set tells its classes
    data = data_of(run)
    assert [found and found["test"] for found in data["outcomes"]] == [0, 1, None, 0, 0, None]
    assert [len(each["names"]) for each in data["tests"]] == [VIDEOS, 3]
    assert outcomes(data, 1) == [299, 1, 2] and outcomes(data, 0) == guessed(0).tolist()
    motion, own = (each["classes"] for each in data["tests"])
    assert motion[0] == "move-right" and own[:6] == [one_line(name) for name in HOSTILE]
    assert (len(motion), len(own), own[299]) == (10, 300, "class 299")


def test_without_room_for_the_mistaken_classes_right_and_wrong_are_kept(
    run: Run, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.report.page.videos._GUESSES", 10)
    found = data_of(run)["outcomes"]
    assert [each and each["right"] for each in found] == [each and each["right"] for each in data["outcomes"]]
    assert not any("guesses" in each for each in found if each)


def test_curves_are_the_log_thinned(run: Run, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for cell in range(5):
        loss, top1, val = (data["curves"][cell][name] for name in ("loss", "train_top1", "val_top1"))
        assert (loss[0][0], loss[0][-1], loss[1][0]) == (0.04, 10.0, pytest.approx(2.0 + cell))
        assert loss[1] == pytest.approx([2 / round(epoch * 25) + cell for epoch in loss[0]], rel=1e-3)
        assert top1[1] == pytest.approx([epoch * 25 / 3 for epoch in top1[0]], rel=1e-3)
        assert val == [[8.0], [50.0 + cell]]
        assert len(top1[0]) == 100
        assert set(top1[0]) - set(loss[0]) <= {4.04}  # where it diverged
        assert "lr" not in data["curves"][cell]
    assert data["curves"][5] == {}
    monkeypatch.setattr("bench.report.page.curves._POINTS", 101)
    folders = [run.cell_folder(run.results()[0].cell)] * 5
    assert {len(curves["train_top1"][0]) for curves in curves_of(folders)} == {20}
    monkeypatch.setattr("bench.report.page.curves._MOST", 1000)
    monkeypatch.setattr("bench.report.page.curves._POINTS", 5000)
    (whole, *_) = curves_of(folders)
    assert len(whole["train_top1"][0]) == 250 and set(whole["train_top1"][0]) - set(whole["loss"][0]) == {4.04}


def test_skipped_videos_are_there_with_their_reason(data: dict[str, Any]) -> None:
    assert data["skipped"] == [["motion", SKIPPED.split, SKIPPED.name, SKIPPED.reason, 1]]


# --- names ---


@pytest.mark.parametrize("name", [*HOSTILE, "\ud800", "<!--<script>", "]]>", "&lt;"])
def test_no_name_ends_the_script_that_it_is_in(name: str) -> None:
    text = to_script({name: [name]})
    assert json.loads(text) == {name: [name]}
    assert text.isascii() and not re.search(r"[<>&]", text)


def test_hostile_names_are_text(text: str, data: dict[str, Any]) -> None:
    page = Page(text)
    assert (page.tags["script"], page.tags["style"]) == (2, 1)
    assert not {"img", "b", "u", "i"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert data["tests"][0]["classes"] == [one_line(name) for name in HOSTILE]
    for told in ("run <1>", "<u>a footnote</u> & more", "<b>no luck</b>", "bench run --out '<b>'"):
        assert told in page.text
    assert "{{" not in page.text + "".join(page.styles)


def test_nothing_is_fetched_and_only_the_page_s_own_script_runs(text: str) -> None:
    page = Page(text)
    (policy,) = [
        value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "src" in value
    ]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for rule, content in (("script-src", page.scripts[1]), ("style-src-elem", page.styles[0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    linked = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert linked and all(value.startswith(("#", "data:")) for value in linked)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|fetch\(|import\(", page.scripts[1]
    )


# --- plots and pictures ---


def test_a_plot_gets_ids_of_its_own_and_the_page_s_colours() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">'
        "<metadata>x</metadata><style>*{fill: red}</style><script>alert(1)</script>"
        '<defs><path id="m1" d="M0 0" style="stroke: #000000; fill: #ffffff"/></defs>'
        '<path stroke="#dddddd" fill="#777777" d="M1 1"/>'
        '<g clip-path="url(#p1)" onclick="alert(2)"><use xlink:href="#m1" style="fill: #0000ff"/>'
        "<text>&lt;b&gt; &amp; c</text></g></svg>"
    )
    page = Page(embedded(svg, "pareto"))
    assert set(page.tags) == {"svg", "defs", "path", "g", "use", "text"} and "<b> & c" in page.text
    found = {(tag, name.rpartition(":")[2]): value for tag, name, value in page.attributes}
    assert found["path", "id"] == "pareto-m1" and found["use", "href"] == "#pareto-m1"
    assert found["g", "clip-path"] == "url(#pareto-p1)" and ("g", "onclick") not in found
    assert (found["path", "stroke"], found["path", "fill"]) == ("var(--line)", "var(--faint)")
    assert found["path", "style"] == "stroke: currentColor; fill: var(--paper)"
    assert found["use", "style"] == "fill: #0000ff"


def test_without_matplotlib_the_page_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.util.find_spec
    without = "bench.report.page.plots.find_spec"
    monkeypatch.setattr(without, lambda name: None if name == "matplotlib" else original(name))
    assert plots_of(Runs([run]), 4) == ([], [notes := plots_of(Runs([run]), 4)[1][0]])
    assert "pip install" in notes
    page = Page(page_of(run))
    assert notes in page.text and "figure" not in page.tags
    (many,) = plots_of(Runs([run]), 1001)[1]
    assert "1,001" in many


COLOURS = ((200, 30, 30), (30, 180, 30), (30, 30, 200))


@pytest.fixture
def pictured(tmp_path: Path) -> Path:
    """The data set `pictured`: a video of 90 pictures in three colours, one without any, and one that is gone."""
    for name, count in (("whole", 90), ("empty", 0)):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("RGB", (120, 96), COLOURS[index // 30]).save(tmp_path / name / f"{index:03}.png")

    @register_dataset("pictured")
    class Pictured(VideoDataset):
        name, summary, classes = "pictured", "three videos", ("a",)

        def prepare(self, progress: object = None) -> None:
            raise AssertionError("a page fetches nothing")

        def videos(self, split: Split) -> tuple[Video, ...]:
            return tuple(Video(tmp_path / name, 0, name) for name in ("whole", "empty", "gone"))

    return tmp_path


def test_a_picture_has_three_frames_of_its_video(pictured: Path) -> None:
    found, why = thumbnails(make.cell(dataset="pictured"), ["empty", "whole", "gone", "never listed"])
    assert (list(found), why) == (["whole"], "")
    picture = Image.open(io.BytesIO(base64.b64decode(found["whole"])))
    assert (picture.format, picture.size) == ("JPEG", (3 * 60, 48))
    for index, colour in enumerate(COLOURS):
        assert picture.getpixel((60 * index + 30, 24)) == pytest.approx(colour, abs=6)
    assert thumbnails(make.cell(dataset="pictured"), ["gone"])[1]
    found, why = thumbnails(make.cell(dataset="never heard of"), ["whole"])
    assert not found and "never heard of" in why
    assert "never heard of" not in DATASETS.names()


# --- the verb ---


def test_the_verb_writes_a_page(
    run: Run, data: dict[str, Any], bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.report.page.render.plots_of", lambda *_: ([], ["plots take their time"]))
    said = bench("report", run.folder, "--format", "html", "--output", tmp_path / "page.html")
    assert (said.code, said.out) == (0, ""), said.err
    written = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert (written.data["tests"], len(written.data["rows"])) == (data["tests"], 4)
    assert "plots take their time" in written.text


def test_parts_that_a_run_has_nothing_for_are_left_out(tmp_path: Path) -> None:
    page = Page(page_of(write_bare_run(tmp_path)))
    assert not {"cell-a", "learning", "skipped"} & {value for _, name, value in page.attributes if name == "id"}
    assert page.data["tests"] == [] and page.data["outcomes"] == [None, None]
    assert [row["failure"] is None for row in page.data["rows"]] == [True, False]


@pytest.mark.slow  # a thousand cells
def test_a_hundred_cells_are_small_and_a_thousand_are_quick(tmp_path: Path) -> None:
    sizes = {}
    for count, videos in ((100, 4000), (1000, 400)):
        run = Run(tmp_path / str(count))
        made = [make.cell(strategy="joint", options={}, recipe={"lr": 1e-5 * (index + 1)}) for index in range(count)]
        run.open(make.matrix(), made, "bench run", {})
        names = [f"some class/video number {index:06}.mp4" for index in range(videos)]
        labels = np.arange(videos) % 20
        right = np.random.default_rng(0).random((count, videos)) < 0.75
        for index, cell in enumerate(made):
            run.put(make.done(cell, top1=100 * float(right[index].mean())))
            taken = np.where(right[index], labels, (labels + 1) % 20)
            p = np.eye(20, dtype=np.float32)[taken]
            np.savez(run.cell_folder(cell) / PREDICTIONS, names=names, labels=labels, probabilities=p)
            write_log(run.cell_folder(cell) / LOG, index)
        runs = Runs([run])
        table = make_table(runs.results)
        begun = time.process_time()
        sizes[count] = len(render_page(runs, table))
        assert time.process_time() - begun < 60
    print(sizes)
    assert sizes[100] < 5_000_000 and sizes[1000] < 10_000_000
