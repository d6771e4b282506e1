"""`bench plot`: which files it writes, what it leaves out, and every mistake at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.cli import plot
from bench.report.plots import FORMATS, KINDS
from bench.run.store import Run
from tests.bench import make
from tests.bench.command import Command, Wording, field_of, quotes
from tests.bench.report import plotted

PLUGIN = """
from bench.data.dataset import VideoDataset, register_dataset

@register_dataset("ten-letters")
class Letters(VideoDataset):
    name = "ten-letters"
    summary = "a class a letter"
    size = "tiny"
    frames = 4
    classes = tuple(f"class-{letter}" for letter in "abcdefghij")

    def prepare(self, progress=None):
        raise AssertionError("a plot prepares nothing")

    def videos(self, split):
        raise AssertionError("a plot reads no list")
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two rows that have neither logs nor several fractions."""
    cells = [make.cell(), make.cell(strategy="frozen", options={})]
    found = plotted.opened(tmp_path / "run", cells)
    for cell, count in zip(cells, (50, 30), strict=True):
        plotted.add(found, cell, [count, 12, 30])
    return found


def test_the_command_knows_the_kinds_and_formats() -> None:
    assert (plot.KINDS, plot.FORMATS) == (KINDS, FORMATS)


def test_what_is_asked_for_is_written(bench: Command, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "plots"
    said = bench("plot", run.folder, "--kind", "order,time", "--format", "svg,pdf", "--output", folder)
    assert said.code == 0 and said.err == ""
    names = ["order.svg", "order.pdf", "time.svg", "time.pdf"]
    assert said.out.split() == [str(folder / name) for name in names]
    assert sorted(os.listdir(folder)) == sorted(names)
    assert (folder / "order.pdf").read_bytes().startswith(b"%PDF-")
    assert (folder / "time.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_all_leaves_out_what_the_run_lacks(bench: Command, run: Run, wording: Wording) -> None:
    said = bench("plot", run.folder, "--size", "column")
    assert said.code == 0
    assert sorted(os.listdir(run.folder / "plots")) == ["confusion.png", "order.png", "pareto.png", "time.png"]
    left_out = said.err.splitlines()
    assert [line.split(": ")[1] for line in left_out] == ["fraction", "learning"]
    wording(left_out)


def test_a_kind_that_the_run_lacks_is_a_mistake(bench: Command, run: Run) -> None:
    said = bench("plot", run.folder, "--kind", "order,fraction,learning")
    assert said.code == 2 and not (run.folder / "plots").exists()
    assert [quotes(line, name) for line, name in zip(said.problems, ("fraction", "learning"), strict=True)] == [
        True
    ] * 2


def test_cells_are_chosen_as_in_a_report(bench: Command, run: Run) -> None:
    said = bench("plot", run.folder, "--kind", "order", "--format", "svg", "--where", "strategy=joint")
    assert said.code == 0
    text = (run.folder / "plots" / "order.svg").read_text(encoding="utf-8")
    assert (">vit:tiny@none joint<" in text, "frozen" in text) == (True, False)
    told = bench("plot", run.folder, "--where", "strategy=jont", "--size", "9", "--plugin", "gone.py").problems
    assert [value in each for each, value in zip(told, ("gone.py", "'9'", "'jont'"), strict=True)] == [True] * 3


def test_a_plugin_tells_the_classes_of_its_data_set(bench: Command, tmp_path: Path) -> None:
    (tmp_path / "ten.py").write_text(PLUGIN, encoding="utf-8")
    cell = make.cell(dataset="ten-letters")
    run = plotted.opened(tmp_path / "run", [cell])
    plotted.add(run, cell, [50])
    said = bench("plot", run.folder, "--kind", "confusion", "--format", "svg", "--plugin", tmp_path / "ten.py")
    assert said.code == 0, said.err
    text = (run.folder / "plots" / "confusion.svg").read_text(encoding="utf-8")
    assert all(f">class-{letter}<" in text for letter in "abcdefghij")


def test_all_mistakes_are_told_at_once(bench: Command, run: Run, tmp_path: Path, wording: Wording) -> None:
    file = tmp_path / "file"
    file.touch()
    told = bench(
        *("plot", tmp_path / "gone", "--kind", "paretto", "--metric", "top2", "--size", "9", "--format", "gif"),
        *("--cells", "a", "--against", "gmacs", "--output", file),
    )
    assert told.code == 2
    fields = ["kind", "format", "metric", "against", "cells", "output", "size"]
    assert [field_of(line) for line in told.problems[:-1]] == fields
    for line, value in zip(told.problems, ("paretto", "gif", "top2", "gmacs", "a", str(file), "9"), strict=False):
        assert quotes(line, repr(value))
    assert quotes(told.problems[-1], repr(str(tmp_path / "gone")))
    wording(told.problems)


def test_costs_and_rows_are_the_run_s_or_told(bench: Command, run: Run) -> None:
    said = bench("plot", run.folder, "--against", "trained_param_m", "--rows", "lora")
    assert said.code == 2 and not (run.folder / "plots").exists()
    against, rows = said.problems
    assert quotes(against, "'trained_param_m'", "did you mean", "'trained_params_m'") and quotes(rows, "'lora'")
    more = bench(
        "plot", run.folder, "--against", "trained_param_m", "--rows", "lora", "--size", "9", "--metric", "top2"
    )
    assert more.code == 2 and [field_of(line) for line in more.problems[:2]] == ["metric", "size"]
    assert more.problems[2:] == said.problems and not (run.folder / "plots").exists()


def test_matplotlib_that_is_not_installed_is_told(
    bench: Command, run: Run, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = bench("plot", run.folder)
    assert said.code == 2 and quotes(said.problems[0], "pip install 'aim-bench[plots]'")
    assert len(said.problems) == 1 and not (run.folder / "plots").exists()
    wording(said.problems)


def test_rows_of_several_runs(bench: Command, run: Run, tmp_path: Path) -> None:
    other = plotted.opened(tmp_path / "other", [make.cell(strategy="full", options={})])
    plotted.add(other, make.cell(strategy="full", options={}), [40, 12, 30])
    said = bench("plot", run.folder, other.folder, "--kind", "order", "--format", "svg")
    assert said.code == 0
    text = (run.folder / "plots" / "order.svg").read_text(encoding="utf-8")
    assert all(f">vit:tiny@none {strategy}<" in text for strategy in ("joint", "frozen", "full"))
