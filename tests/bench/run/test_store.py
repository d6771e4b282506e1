"""The run directory: whole files, one owner a cell, and a table that follows the cells."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.run.columns import COLUMNS
from bench.run.find import find, latest
from bench.run.result import Result
from bench.run.store import Run
from bench.spec import Cell
from tests.bench import make
from tests.bench.command import Wording, quotes, quoting

MACHINE = {"cpu": "Some CPU"}
CELLS = tuple(make.cell(seed=seed) for seed in (2, 0, 1))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = Run(tmp_path / "results" / "run")
    found.open(make.matrix(seeds=[2, 0, 1]), CELLS, "bench run --seeds 2,0,1", MACHINE)
    return found


def rows(run: Run) -> list[dict[str, str]]:
    with run.csv.open(newline="") as file:
        return list(csv.DictReader(file))


def result_file(run: Run, cell: Cell) -> Path:
    return run.cell_folder(cell) / "result.json"


def python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Another process that has the cells at hand."""
    begin = "import sys\nfrom pathlib import Path\nfrom bench.run.store import Run\nfrom tests.bench import make\n"
    return subprocess.Popen([sys.executable, "-c", begin + code, *map(str, arguments)], text=True, **options)


# --- opening ---


def test_opening_describes_the_matrix_and_its_cells(run: Run) -> None:
    described = json.loads((run.folder / "run.json").read_text())
    assert described["matrix"] == make.matrix(seeds=[2, 0, 1]).model_dump(mode="json")
    assert (described["command"], described["machine"]) == ("bench run --seeds 2,0,1", MACHINE)
    assert described["cells"] == [cell.folder for cell in CELLS]
    for cell in CELLS:
        text = (run.folder / "cells" / cell.folder / "cell.json").read_text()
        assert Cell.model_validate_json(text) == cell
    assert run.results() == []
    assert run.missing() == tuple(cell.folder for cell in CELLS)


def test_opening_again_adds_and_forgets_nothing(run: Run) -> None:
    run.write(make.done(CELLS[0]))
    more = make.cell(strategy="full", options={})
    run.open(make.matrix(strategies=["full"]), iter([CELLS[1], more]), "bench run again", MACHINE)
    described = run.description()
    assert described["cells"] == [*(cell.folder for cell in CELLS), more.folder]
    assert described["commands"] == ["bench run --seeds 2,0,1", "bench run again"]
    assert run.result(CELLS[0]) == make.done(CELLS[0])
    assert (run.cell_folder(more) / "cell.json").is_file()


def test_two_processes_may_open_one_run_at_once(tmp_path: Path) -> None:
    code = (
        "seed = int(sys.argv[2])\n"
        "cells = [make.cell(seed=s) for s in range(seed, 40, 2)]\n"
        "Run(Path(sys.argv[1])).open(make.matrix(), cells, sys.argv[2], {})"
    )
    processes = [python(code, tmp_path / "run", seed) for seed in (0, 1)]
    assert [process.wait(600) for process in processes] == [0, 0]
    described = Run(tmp_path / "run").description()
    assert set(described["cells"]) == {make.cell(seed=seed).folder for seed in range(40)}
    assert sorted(described["commands"]) == ["0", "1"]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, wording: Wording) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for call in (Run(tmp_path).check, lambda: Run(tmp_path).open(make.matrix(), CELLS, "", {})):
        with pytest.raises(UserError, match=quoting(f"out is '{tmp_path}'")) as caught:
            call()
        wording([caught.value])
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=quoting(f"out is '{tmp_path / name}'")):
        Run(tmp_path / name).open(make.matrix(), CELLS, "", {})
    assert os.listdir(tmp_path) == ["file"]


def test_checking_a_folder_leaves_nothing(tmp_path: Path, run: Run) -> None:
    before = sorted(tmp_path.rglob("*"))
    run.check()
    Run(tmp_path / "new" / "run").check()
    (tmp_path / "empty").mkdir()
    Run(tmp_path / "empty").check()
    (tmp_path / "empty").rmdir()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "json"),
    [
        (b"{", False),
        (b"\xff\xfe", False),
        (b"[]", True),
        (b"{}", True),
        (b'{"cells": [3], "commands": []}', True),
        (b'{"cells": [], "commands": 3}', True),
        (b"[" * 100_000, False),
    ],
)
def test_a_damaged_description_is_told_and_kept(run: Run, text: bytes, json: bool) -> None:
    file = run.folder / "run.json"
    file.write_bytes(text)
    for call in (run.description, run.results, run.check, lambda: run.open(make.matrix(), CELLS, "", {})):
        with pytest.raises(UserError, match=quoting(f"'{file}'")) as caught:
            call()
        assert quotes(caught.value, "JSON") is not json
    assert file.read_bytes() == text


# --- results ---


@pytest.mark.parametrize(
    "result",
    [
        make.done(CELLS[0], footnotes=("random weights", "one \"more\" ± with 'quotes'")),
        make.failed(CELLS[0]),
        make.failed(CELLS[0], "oom", "CUDA out of memory"),
        make.failed(CELLS[0], "interrupted", "stopped"),
    ],
)
def test_results_read_back_as_they_were_written(run: Run, result: Result) -> None:
    run.write(result)
    assert run.result(CELLS[0]) == result
    assert run.results() == [result]
    assert run.missing() == tuple(cell.folder for cell in CELLS[1:])


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe\x00", b"{}", b"[]", b'{"version": 2}', b"null"])
def test_a_damaged_result_counts_as_none(run: Run, damage: bytes) -> None:
    run.write(make.done(CELLS[0]))
    run.write(make.done(CELLS[1]))
    result_file(run, CELLS[0]).write_bytes(damage)
    assert run.result(CELLS[0]) is None
    assert run.results() == [make.done(CELLS[1])]
    assert run.missing() == (CELLS[0].folder, CELLS[2].folder)
    run.write(make.failed(CELLS[0]))
    assert run.result(CELLS[0]) == make.failed(CELLS[0])


def test_a_result_with_a_field_too_many_or_too_few_counts_as_none(run: Run) -> None:
    run.write(make.done(CELLS[0]))
    whole = json.loads(result_file(run, CELLS[0]).read_text())
    for changed in ({**whole, "extra": 1}, {**whole, "provenance": None}, {**whole, "status": "maybe"}):
        result_file(run, CELLS[0]).write_text(json.dumps(changed))
        assert run.result(CELLS[0]) is None


def test_measurements_are_shared_by_the_seeds_of_a_model_and_belong_to_a_device(run: Run) -> None:
    measured = make.measured()
    assert run.measured(CELLS[0], measured.device) is None
    run.write_measured(CELLS[0], measured)
    assert run.measured(CELLS[1], measured.device) == measured
    assert run.measured(CELLS[1], "Another CPU") is None
    assert run.measured(make.cell(strategy="full"), measured.device) is None
    for damage in (b"\xff", b"{}", b""):
        next((run.folder / "measured").iterdir()).write_bytes(damage)
        assert run.measured(CELLS[0], measured.device) is None


# --- results.csv ---


def test_the_table_has_the_order_of_the_run_whatever_ends_first(run: Run) -> None:
    for cell in (CELLS[1], CELLS[2], CELLS[0]):
        run.write(make.done(cell))
    assert [row["seed"] for row in rows(run)] == ["2", "0", "1"]
    assert [row["cell"] for row in rows(run)] == [cell.key for cell in CELLS]


def test_the_table_follows_the_cells(run: Run) -> None:
    run.write(make.failed(CELLS[0]))
    assert [(row["status"], row["top1"]) for row in rows(run)] == [("failed", "")]
    run.write(make.done(CELLS[0], top1=50.5))
    assert [(row["status"], row["top1"]) for row in rows(run)] == [("done", "50.5")]
    run.csv.write_text("edited by hand")
    run.write_csv()
    assert [row["top1"] for row in rows(run)] == ["50.5"]
    result_file(run, CELLS[0]).unlink()
    run.write_csv()
    assert run.csv.read_text() == ",".join(COLUMNS) + "\n"


def test_two_processes_that_write_results_leave_a_whole_table(run: Run) -> None:
    code = (
        "run = Run(Path(sys.argv[1]))\n"
        "for seed in map(int, sys.argv[2:]):\n"
        "    for top1 in range(10): run.write(make.done(make.cell(seed=seed), top1=top1))\n"
    )
    processes = [python(code, run.folder, *seeds) for seeds in ((2,), (0, 1))]
    while any(process.poll() is None for process in processes):
        if run.csv.exists():
            text = run.csv.read_text()  # at any moment: a header and whole rows
            assert text.startswith(",".join(COLUMNS) + "\n")
            assert all(len(row) == len(COLUMNS) for row in csv.reader(text.splitlines()))
    assert [process.returncode for process in processes] == [0, 0]
    assert [(row["seed"], row["top1"]) for row in rows(run)] == [("2", "9"), ("0", "9"), ("1", "9")]
    assert not list(run.folder.rglob("*.tmp"))


def test_one_table_is_written_at_a_time(run: Run) -> None:
    """Else a slow process that read the cells early could put its old table over a newer one."""
    with run.locked("run"):
        writer = threading.Thread(target=run.write, args=(make.done(CELLS[0]),))
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
        assert not run.csv.exists()
    writer.join(60)
    assert [row["seed"] for row in rows(run)] == ["2"]


# --- who runs a cell ---


def test_a_cell_is_claimed_once(run: Run) -> None:
    held = run.claim(CELLS[0])
    assert held is not None
    assert Run(run.folder).claim(CELLS[0]) is None
    other = run.claim(CELLS[1])
    assert other is not None
    held.release()
    again = run.claim(CELLS[0])
    assert again is not None
    again.release()
    other.release()


HOLD = (
    "lock = Run(Path(sys.argv[1])).claim(make.cell(seed=2))\n"
    "print('held' if lock else 'taken', flush=True)\n"
    "sys.stdin.read()\n"
)


def test_no_two_processes_hold_a_cell_and_a_dead_one_holds_none(run: Run) -> None:
    with python(HOLD, run.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert run.claim(CELLS[0]) is None
            with python(HOLD, run.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as second:
                assert second.communicate(timeout=240)[0] == "taken\n"
            assert run.claim(CELLS[0]) is None  # the second one's end has not set it free
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait(60)
    lock = run.claim(CELLS[0])
    assert lock is not None
    lock.release()


# --- finding runs ---


def test_the_latest_run_is_the_one_written_to_last(tmp_path: Path) -> None:
    for index, name in enumerate(("b", "a", "c")):
        Run(tmp_path / name).open(make.matrix(), CELLS, "", {})
        os.utime(tmp_path / name / "run.json", (1000 + index, 1000 + index))
    (tmp_path / "no-run").mkdir()
    assert latest(tmp_path).folder == tmp_path / "c"
    Run(tmp_path / "b").write(make.done(CELLS[0]))
    assert latest(tmp_path).folder == tmp_path / "b"
    assert find(None, tmp_path).folder == tmp_path / "b"


def test_runs_are_found_by_folder_and_by_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    root = run.folder.parent
    assert find("run", root).folder == run.folder
    assert find(str(run.folder), Path("elsewhere")).folder == run.folder
    monkeypatch.chdir(run.folder)
    assert find(".", root).csv.resolve() == run.csv.resolve()


@pytest.mark.parametrize("name", ["rnu", "x" * 300, "", "run/cells", "run/run.json", "~nosuchuser/x"])
def test_a_run_that_is_not_there_is_told(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.folder / "cells")
    with pytest.raises(UserError) as error:
        find(name, run.folder.parent)
    (sentence,) = error.value.problems
    assert repr(name) in sentence and quotes(sentence, "'run'") == (name == "rnu")


def test_where_there_are_no_runs_that_is_told(tmp_path: Path, wording: Wording) -> None:
    for root in (tmp_path, tmp_path / "nosuch"):
        with pytest.raises(UserError, match=quoting(f"'{root}'")) as none:
            latest(root)
        with pytest.raises(UserError, match=quoting("'x'")) as other:
            find("x", root)
        wording([none.value, other.value])
