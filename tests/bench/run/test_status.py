"""`bench status` tells every cell's state from the run directory alone; `bench cancel` stops what runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.run.engines.jobs import JOB, JobFile, ask_to_stop, asked_to_stop
from bench.run.engines.jobs import read as read_job
from bench.run.status import CellStatus, status
from bench.run.store import Run
from tests.bench import make
from tests.bench.command import Command, Wording

CELLS = tuple(make.cell(seed=seed) for seed in range(8))
ROOT = Path(__file__).parents[3]
PLUGINS = Path(__file__).parents[1] / "plugins"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = Run(tmp_path / "results" / "run")
    found.open(make.matrix(seeds=list(range(8))), CELLS, "bench run", {})
    return found


def _checkpoint(run: Run, index: int, step: int) -> None:
    folder = run.cell_folder(CELLS[index]) / "checkpoint"
    folder.mkdir()
    (folder / "checkpoint.json").write_text(json.dumps({"step": step}))


def _by_seed(run: Run) -> list[CellStatus]:
    found = {cell.folder: cell for cell in status(run)}
    return [found[cell.folder] for cell in CELLS]


def test_every_state(run: Run) -> None:
    run.put(make.done(CELLS[0], top1=61.5))
    run.put(make.failed(CELLS[1]))
    run.put(make.failed(CELLS[2], status="oom"))
    run.put(make.failed(CELLS[3], status="interrupted"))
    _checkpoint(run, 3, 40)
    JobFile(run.cell_folder(CELLS[4]), "slurm", "17_4").write({"stage": "queued"})
    JobFile(run.cell_folder(CELLS[5]), "local").write({"stage": "training", "done": 0.5, "epoch": 2.5, "loss": 0.7})
    _checkpoint(run, 5, 12)
    lock = run.claim(CELLS[6])
    JobFile(run.cell_folder(CELLS[6]), "local").write({"stage": "evaluating", "done": 0.25, "clips_per_s": 8.0})
    found = _by_seed(run)
    assert [cell.state for cell in found] == [
        "done", "failed", "oom", "interrupted", "queued", "stopped", "running", "waiting"
    ]  # fmt: skip
    assert found[0].top1 == 61.5
    assert found[1].error == "ValueError: no such luck"
    assert (found[3].step, found[5].step, found[7].step) == (40, 12, None)
    assert found[4].job is not None and (found[4].job.engine, found[4].job.id) == ("slurm", "17_4")
    job = found[6].job
    assert job is not None and (job.stage, job.done, job.clips_per_s, job.pid) == ("evaluating", 0.25, 8.0, os.getpid())
    assert lock is not None
    lock.release()
    assert _by_seed(run)[6].state == "stopped"


def test_what_a_dead_or_half_written_file_says_is_no_error(run: Run) -> None:
    for index, text in enumerate(("", "{", "[]", '{"engine": 3}')):
        (run.cell_folder(CELLS[index]) / JOB).write_text(text)
        (run.cell_folder(CELLS[index]) / "result.json").write_text(text)
    assert [cell.state for cell in _by_seed(run)] == ["waiting"] * 8


def test_progress_reaches_the_disk_now_and_then_and_a_new_stage_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("bench.run.engines.jobs.time.monotonic", lambda: now[0])
    job = JobFile(tmp_path, "local")
    job.write({"stage": "training", "done": 0.0})
    now[0] += 4
    job.write({"stage": "training", "done": 0.2, "loss": 1.0})
    assert (found := read_job(tmp_path)) is not None and (found.done, found.loss) == (0.0, None)
    now[0] += 4
    job.write({"stage": "training", "done": 0.4, "loss": 0.5, "host": "node7", "id": "9"})
    found = read_job(tmp_path)
    assert found is not None and (found.done, found.loss, found.host, found.id) == (0.4, 0.5, "node7", "9")
    assert found.seconds_left == pytest.approx(8 * 0.6 / 0.4)
    job.write({"stage": "evaluating", "done": 0.0})
    assert (found := read_job(tmp_path)) is not None and found.stage == "evaluating"
    job.clear()
    assert read_job(tmp_path) is None


def test_a_request_to_stop_is_for_those_that_run(run: Run) -> None:
    since = run.changed()
    assert since > 0 and not asked_to_stop(run.folder, since)
    ask_to_stop(run.folder)
    assert asked_to_stop(run.folder, since)
    later = time.time() + 60
    os.utime(run.folder / "run.json", (later, later))  # a command that opens the run afterwards
    assert not asked_to_stop(run.folder, run.changed())


def test_the_command_tells_and_counts(run: Run, bench: Command, wording: Wording) -> None:
    run.put(make.done(CELLS[0]))
    run.put(make.failed(CELLS[1]))
    said = bench("status", run.folder)
    assert said.code == 0
    assert "8 cells: 6 waiting, 1 failed, 1 done" in said.out
    assert CELLS[0].label not in said.out and CELLS[1].label in said.out
    assert CELLS[0].label in bench("status", run.folder, "--all").out
    records = json.loads(bench("status", run.folder, "--format", "json").out)
    assert [record["state"] for record in records].count("waiting") == 6 and len(records) == 8
    assert bench("status", run.folder.parent / "runn").code == 2
    assert bench("status", run.folder, "--format", "tabel").code == 2
    wording([bench("cancel", run.folder).out])


@pytest.mark.slow
def test_a_cancelled_run_leaves_checkpoints_and_goes_on(tmp_path: Path, bench: Command) -> None:
    out = tmp_path / "run"
    plugins: list[Any] = [part for name in ("small", "hasty") for part in ("--plugin", PLUGINS / f"{name}.py")]
    arguments = ["run", "--dataset", "small", "--backbones", "vit", "--strategies", "joint", "--no-order-test"]
    arguments = [*arguments, "--epochs", "60", "--out", str(out), *map(str, plugins)]
    program = "from bench.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    until = time.monotonic() + 600
    while not any(file.stat().st_size for file in out.glob("cells/*/log.jsonl")):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    (cell,) = status(Run(out))
    assert cell.state == "running" and cell.job is not None and cell.job.pid == process.pid
    assert "1 cell" in bench("cancel", out).out
    rest, _ = process.communicate(timeout=240)
    assert process.returncode == 130, rest
    (cell,) = status(Run(out))
    assert cell.state == "interrupted" and cell.step is not None and cell.job is None
