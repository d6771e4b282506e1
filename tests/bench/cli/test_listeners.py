"""The live view: a mark a cell where there are few, counts where there are many, never more than a screenful."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.cli.listeners import LiveListener
from bench.spec import Cell
from tests.bench import make


def cells(backbones: int, seeds: int) -> list[Cell]:
    return [make.cell(backbone=f"vit:m{index}", seed=seed) for index in range(backbones) for seed in range(seeds)]


@pytest.fixture
def console() -> Console:
    return Console(width=100, height=30, file=io.StringIO(), color_system=None)


def drawn(live: LiveListener, console: Console) -> list[str]:
    with console.capture() as capture:
        console.print(live._draw())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_few_cells_have_a_mark_each(console: Console) -> None:
    live, asked = LiveListener(console), cells(2, 3)
    live.begun(asked, 0, 1)
    live.ended(make.done(asked[0]))
    live.ended(make.failed(asked[1]))
    live.progress(asked[2], {"stage": "training", "done": 0.5, "loss": 1.25, "clips_per_s": 90.0})
    lines = drawn(live, console)
    assert "2/6" in lines[0]
    assert [line.split() for line in lines[1:4]] == [["joint"], ["vit:m0", "●✗◐"], ["vit:m1", "···"]]
    assert lines[-1].split()[-6:] == ["training", "50%", "loss", "1.250", "90", "clips/s"]


def test_a_cell_with_a_chosen_recipe_takes_the_place_of_the_planned_one(console: Console) -> None:
    live, asked = LiveListener(console), cells(1, 3)
    chosen = [cell.model_copy(update={"recipe": make.recipe(lr=0.5)}) for cell in asked]
    live.chosen(asked[0], chosen[0])  # before the view has begun
    live.begun([chosen[0], *asked[1:]], 0, 1)
    live.chosen(asked[1], chosen[1])
    live.ended(make.done(chosen[1]))
    lines = drawn(live, console)
    assert "1/3" in lines[0] and sorted(lines[2].split()[-1]) == sorted("··●")


def test_many_cells_are_counted(console: Console) -> None:
    live, asked = LiveListener(console), cells(1, 1500)
    live.begun(asked, 0, 1)
    for cell in asked[:7]:
        live.progress(cell, {"stage": "starting", "done": 0.0})
        live.ended(make.done(cell))
    live.ended(make.failed(asked[7]))
    live.ended(make.failed(asked[8], "oom", "no room"))
    live.progress(asked[9], {"stage": "starting", "done": 0.0})
    lines = drawn(live, console)
    assert "9/1500" in lines[0]
    assert lines[2].split() == ["vit:m0", "●7", "✗2", "◐1", "·1,490"]


def test_more_backbones_than_lines_leave_the_running_one_in_sight(console: Console) -> None:
    live, asked = LiveListener(console), cells(500, 2)
    live.begun(asked, 0, 1)
    for running in (0, 123, 499):
        live.progress(asked[2 * running], {"stage": "starting", "done": 0.0})
        lines = drawn(live, console)
        assert len(lines) <= 30
        assert any(line.split() == [f"vit:m{running}", "◐·"] for line in lines)
        shown = sum(line.startswith("vit:m") and "@" not in line for line in lines)
        assert f"and {500 - shown} other backbones" in lines
        live.ended(make.done(asked[2 * running]))


def test_a_run_of_which_nothing_is_left_to_do_shows(console: Console) -> None:
    live = LiveListener(console)
    live.begun([], 4, 2)
    assert "starting 2 workers (4 done before)" in drawn(live, console)[0]
