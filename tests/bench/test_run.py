"""`bench run` as a user types it: broken cells, resuming, interrupts, two at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

PLUGIN = Path(__file__).parent / "plugins" / "small.py"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("surroundings")
    return {**os.environ, "AIM_BENCH_CACHE": str(folder), "COLUMNS": "200"}


@pytest.fixture
def own(environment, tmp_path: Path) -> dict[str, str]:
    """The environment, with a folder of this test's for the strategies that misbehave the second time."""
    return {**environment, "BENCH_TEST_MARKER": str(tmp_path / "marker-")}


def _command(out: Path, *arguments: str) -> list[str]:
    program = "from bench.cli.main import main; main()"
    common = ["run", "--dataset", "small", "--plugin", str(PLUGIN), "--out", str(out)]
    return [sys.executable, "-W", "ignore", "-c", program, *common, *arguments]


def _run(out: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(out, *arguments), env=environment, capture_output=True, text=True, timeout=240, cwd=ROOT
    )


def _table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "results.csv")


def _result(out: Path, strategy: str) -> dict:
    (file,) = out.glob(f"cells/*-{strategy}-*/result.json")
    return json.loads(file.read_text())


def test_one_broken_cell_never_ends_the_others_and_what_is_done_stays_done(tmp_path: Path, own) -> None:
    out = tmp_path / "run"
    arguments = ("--backbones", "vit", "--strategies", "frozen,raises,dies,joint", "--seeds", "0,1")
    first = _run(out, own, *arguments)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "Traceback" not in first.stdout + first.stderr
    table = _table(out)
    assert len(table) == 8
    status = table.set_index(["strategy", "seed"])["status"]
    assert all(status[strategy, seed] == "done" for strategy in ("frozen", "joint") for seed in (0, 1))
    assert all(status["raises", seed] == "failed" for seed in (0, 1))
    assert set(status["dies"]) == {"oom"}
    broken = json.loads(next(out.glob("cells/*-raises-*-s0-*/result.json")).read_text())
    assert broken["error"] == "ZeroDivisionError: this strategy is broken"
    assert "small.py" in broken["traceback"]
    assert "killed by SIGKILL" in json.loads(next(out.glob("cells/*-dies-*-s0-*/result.json")).read_text())["error"]
    assert not list(out.rglob("*.tmp"))

    times = {file: file.stat().st_mtime_ns for file in out.glob("cells/*/predictions.npz")}
    assert len(times) == 4
    Path(own["BENCH_TEST_MARKER"] + "dies").unlink()
    own["BENCH_TEST_MARKER"] += "healed-"  # its model is measured, and now it may end
    again = _run(out, own, *arguments, "--workers", "1")
    assert "4 done before" in again.stdout
    assert again.returncode == 1
    assert set(_table(out).set_index("strategy")["status"]["dies"]) == {"done", "oom"}
    assert {file: file.stat().st_mtime_ns for file in times} == times


def _start(out: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(out, *arguments),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        # a suite that runs in the background of a shell ignores Ctrl-C, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _wait_for(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came: {seen}")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_recorded_and_the_same_command_goes_on(tmp_path: Path, own, kind: signal.Signals) -> None:
    out = tmp_path / "run"
    arguments = ("--backbones", "vit", "--strategies", "frozen,hangs", "--no-order-test")
    process = _start(out, own, *arguments)
    _wait_for(process, "done 1 of 2")
    if kind is signal.SIGINT:
        os.killpg(process.pid, kind)  # as a terminal does: the workers get it too
    else:
        os.kill(process.pid, kind)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert _result(out, "hangs")["status"] == "interrupted"
    assert _result(out, "frozen")["status"] == "done"
    assert "interrupted" in set(_table(out)["status"])
    _nothing_left_of(process.pid)

    own["BENCH_TEST_MARKER"] += "healed-"
    again = _run(out, own, *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 done before" in again.stdout
    assert _result(out, "hangs")["status"] == "done"


def _nothing_left_of(session: int) -> None:
    """No process of the session lives on."""
    import psutil

    for _ in range(50):
        alive = [p for p in psutil.process_iter() if _session(p.pid) == session and p.status() != psutil.STATUS_ZOMBIE]
        if not alive:
            return
        time.sleep(0.2)
    raise AssertionError(f"still running: {[p.cmdline() for p in alive]}")


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def test_workers_end_when_their_parent_is_killed(tmp_path: Path, own) -> None:
    out = tmp_path / "run"
    process = _start(out, own, "--backbones", "vit", "--strategies", "frozen,hangs", "--no-order-test")
    _wait_for(process, "done 1 of 2")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    _nothing_left_of(process.pid)
    (file,) = out.glob("cells/*-hangs-*/cell.json")
    assert not (file.parent / "result.json").exists()


def test_two_runs_at_once_share_the_cells(tmp_path: Path, own) -> None:
    out = tmp_path / "run"
    arguments = ("--backbones", "vit", "--strategies", "frozen,spatial", "--seeds", "0,1,2", "--workers", "1")
    processes = [_start(out, own, *arguments) for _ in range(2)]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    table = _table(out)
    assert len(table) == 6
    assert set(table["status"]) == {"done"}
    started = sum(output.count("started vit") for output in outputs)
    assert started == 6, outputs


def test_a_run_without_arguments_for_what_is_done_prints_the_table(tmp_path: Path, own) -> None:
    out = tmp_path / "run"
    arguments = ("--backbones", "swin:tiny@none", "--strategies", "joint")
    assert _run(out, own, *arguments).returncode == 0
    begun = time.monotonic()
    again = _run(out, own, *arguments)
    assert again.returncode == 0
    assert "1 cell was done before" in again.stdout
    assert "swin:tiny@none" in again.stdout
    assert time.monotonic() - begun < 10


def test_neither_workers_nor_the_cells_beside_it_change_a_cells_predictions(tmp_path: Path, own) -> None:
    common = ("--backbones", "vit:tiny@none", "--recipe", "drop_path=0.2", "--recipe", "dropout=0.5")
    alone = _run(tmp_path / "alone", own, *common, "--strategies", "joint", "--workers", "1", "--cache", "off")
    beside = _run(tmp_path / "beside", own, *common, "--strategies", "frozen,joint,spatial", "--workers", "2")
    assert (alone.returncode, beside.returncode) == (0, 0), alone.stdout + beside.stdout
    assert "2 workers" in beside.stdout
    assert "frame cache: off\n" in alone.stdout and "frame cache: memory" in beside.stdout
    one, two = (next((tmp_path / name).glob("cells/*-joint-*/predictions.npz")) for name in ("alone", "beside"))
    assert one.parent.name == two.parent.name
    first, second = np.load(one), np.load(two)
    assert set(first.files) == set(second.files) >= {"probabilities", "probabilities_reversed"}
    for name in first.files:
        assert np.array_equal(first[name], second[name]), name


# ends a worker as it starts: the first one alone where there is a marker to be made, else every one
EARLY = """
import multiprocessing, os
marker = {marker!r}
if multiprocessing.parent_process() is not None:
    try:
        if marker:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        print("no room for me here", flush=True)
        os._exit(3)
    except FileExistsError:
        pass
"""


def test_a_worker_that_never_comes_up_is_done_without(tmp_path: Path, own) -> None:
    plugin, out = tmp_path / "early.py", tmp_path / "run"
    plugin.write_text(EARLY.format(marker=str(tmp_path / "was-here")))
    arguments = ("--backbones", "vit:tiny@none", "--strategies", "frozen,spatial", "--no-order-test")
    done = _run(out, own, *arguments, "--workers", "2", "--plugin", str(plugin))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "was-here").exists()
    assert list(_table(out)["status"]) == ["done", "done"]


def test_where_no_worker_comes_up_the_command_says_so(tmp_path: Path, own) -> None:
    plugin, out = tmp_path / "early.py", tmp_path / "run"
    plugin.write_text(EARLY.format(marker=""))
    arguments = ("--backbones", "vit:tiny@none", "--strategies", "frozen,spatial")
    ended = _run(out, own, *arguments, "--workers", "2", "--plugin", str(plugin))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    sentence, printed = ended.stderr.strip().splitlines()
    assert sentence.startswith("bench: a worker process ended with exit code 3 before it was ready; ")
    assert "the same command goes on from there" in sentence
    assert printed == "no room for me here"
    assert not list(out.glob("cells/*/result.json"))
