"""`bench run` as a user types it: broken cells, resuming, interrupts, two at once.

A command has a process of its own here where its end or another one beside it is the point; elsewhere it is called in
this one, whose workers need not import everything anew.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest

from bench.run.engines import local
from tests.bench.command import Command, Said, Wording, quotes
from tests.living import comes, lives

PLUGINS = Path(__file__).parents[1] / "plugins"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A copy of the small data set and the broken strategies: those that misbehave leave their marks beside it."""
    return Path(shutil.copy(PLUGINS / "small.py", tmp_path))


def _arguments(plugin: Path, out: Path, *arguments: str) -> list[str]:
    common = ["run", "--dataset", "small", "--plugin", str(plugin), "--plugin", str(PLUGINS / "hasty.py")]
    return [*common, "--out", str(out), *arguments]


Runner: TypeAlias = Callable[..., Said]


@pytest.fixture
def run(bench: Command, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """`bench run` of the small data set into a folder, with further arguments, in this process."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda out, *arguments: bench(*_arguments(plugin, out, *arguments))


def _table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "results.csv")


def _result(out: Path, strategy: str) -> dict:
    (file,) = out.glob(f"cells/*-{strategy}-*/result.json")
    return json.loads(file.read_text())


def test_one_broken_cell_never_ends_the_others_and_what_is_done_stays_done(tmp_path: Path, run: Runner) -> None:
    out = tmp_path / "run"
    arguments = ("--backbones", "vit", "--strategies", "frozen,raises,dies,joint", "--seeds", "0,1")
    first = run(out, *arguments)
    assert first.code == 1, first.out + first.err
    table = _table(out)
    assert len(table) == 8
    status = table.set_index(["strategy", "seed"])["status"]
    assert all(status[strategy, seed] == "done" for strategy in ("frozen", "joint") for seed in (0, 1))
    assert all(status["raises", seed] == "failed" for seed in (0, 1))
    assert set(status["dies"]) == {"oom"}
    broken = json.loads(next(out.glob("cells/*-raises-*-s0-*/result.json")).read_text())
    assert broken["error"] == "ZeroDivisionError: this strategy is broken"
    assert "small.py" in broken["traceback"]
    assert "SIGKILL" in json.loads(next(out.glob("cells/*-dies-*-s0-*/result.json")).read_text())["error"]
    assert not list(out.rglob("*.tmp"))

    times = {file: file.stat().st_mtime_ns for file in out.glob("cells/*/predictions.npz")}
    assert len(times) == 4
    (tmp_path / "marker-dies").unlink()  # its model is measured, and now it may end
    again = run(out, *arguments, "--workers", "1")
    assert quotes(again.out, "4 done")
    assert again.code == 1
    assert set(_table(out).set_index("strategy")["status"]["dies"]) == {"done", "oom"}
    assert {file: file.stat().st_mtime_ns for file in times} == times


def _start(plugin: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    program = "from bench.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *_arguments(plugin, out, *arguments)],
        env={**os.environ, "COLUMNS": "200"},
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


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_an_interrupt_is_recorded_and_the_same_command_goes_on(
    tmp_path: Path, plugin: Path, run: Runner, kind: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    arguments = ("--backbones", "vit", "--strategies", "frozen,hangs", "--no-order-test", "--workers", "2")
    process = _start(plugin, out, *arguments)
    _wait_for(process, "done 1 of 2")
    os.killpg(process.pid, kind)  # as terminals and schedulers do: the workers get it too
    rest, _ = process.communicate(timeout=240)
    assert process.returncode == code, rest
    assert "Traceback" not in rest
    assert _result(out, "hangs")["status"] == "interrupted"
    assert _result(out, "frozen")["status"] == "done"
    assert "interrupted" in set(_table(out)["status"])
    _nothing_left_of(process.pid)

    (tmp_path / "marker-hangs").unlink()
    again = run(out, *arguments)
    assert again.code == 0, again.out + again.err
    assert quotes(again.out, "1 done")
    assert _result(out, "hangs")["status"] == "done"


@pytest.mark.parametrize(
    ("kind", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 75, marks=pytest.mark.slow)]
)
def test_a_training_that_is_interrupted_leaves_a_checkpoint_and_goes_on_from_it(
    tmp_path: Path, plugin: Path, run: Runner, kind: signal.Signals, code: int
) -> None:
    arguments = ("--backbones", "vit", "--strategies", "joint", "--epochs", "12", "--no-order-test")
    if kind is signal.SIGTERM:  # decoding processes get it as well, and the present step needs them
        arguments += ("--loader-workers", "1")
    whole = run(tmp_path / "whole", *arguments)
    assert whole.code == 0, whole.out + whole.err
    out = tmp_path / "run"
    process = _start(plugin, out, *arguments)
    until = time.monotonic() + 600
    while not any(file.stat().st_size for file in out.glob("cells/*/log.jsonl")):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, kind)  # as a terminal and a scheduler do: the workers get it too
    rest, _ = process.communicate(timeout=240)
    assert process.returncode == code, rest
    assert "Traceback" not in rest
    assert _result(out, "joint")["status"] == "interrupted"
    (manifest,) = out.glob("cells/*/checkpoint/checkpoint.json")
    step = json.loads(manifest.read_text())["step"]
    _nothing_left_of(process.pid)
    again = run(out, *arguments)
    assert again.code == 0, again.out + again.err
    result = _result(out, "joint")
    assert result["status"] == "done" and len(result["provenance"]["attempts"]) == 2
    assert not manifest.parent.exists()
    lines = [json.loads(line) for line in (manifest.parents[1] / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "step" in line]
    assert steps == sorted(set(steps)) and step in steps and steps[-1] == lines[-2]["steps"]
    (there,), (here,) = (folder.glob("cells/*/predictions.npz") for folder in (tmp_path / "whole", out))
    expected, found = np.load(there), np.load(here)
    assert all(np.array_equal(expected[name], found[name]) for name in expected.files)


def _nothing_left_of(session: int) -> None:
    """No process of the session lives on."""
    import psutil

    def alive() -> list[int]:
        return [pid for pid in psutil.pids() if _session(pid) == session and lives(pid)]

    assert comes(lambda: not alive()), f"still running: {alive()}"


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def test_workers_end_when_their_parent_is_killed(tmp_path: Path, plugin: Path) -> None:
    out = tmp_path / "run"
    process = _start(plugin, out, "--backbones", "vit", "--strategies", "frozen,hangs", "--no-order-test")
    _wait_for(process, "done 1 of 2")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    _nothing_left_of(process.pid)
    (file,) = out.glob("cells/*-hangs-*/cell.json")
    assert not (file.parent / "result.json").exists()


def test_two_runs_at_once_share_the_cells(tmp_path: Path, plugin: Path) -> None:
    out = tmp_path / "run"
    arguments = ("--backbones", "vit", "--strategies", "frozen,spatial", "--seeds", "0,1,2", "--workers", "1")
    processes = [_start(plugin, out, *arguments) for _ in range(2)]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "Traceback" not in "".join(outputs)
    table = _table(out)
    assert len(table) == 6
    assert set(table["status"]) == {"done"}
    started = sum(output.count("started vit") for output in outputs)
    assert started == 6, outputs


def test_a_run_without_arguments_for_what_is_done_prints_the_table(
    tmp_path: Path, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    arguments = ("--backbones", "swin:tiny@none", "--strategies", "joint")
    assert run(out, *arguments).code == 0
    monkeypatch.setattr(local, "LocalEngine", lambda *_: pytest.fail("a worker was started"))
    again = run(out, *arguments)
    assert again.code == 0
    assert quotes(again.out, "1 cell") and quotes(again.out, "swin:tiny@none")


def test_neither_workers_nor_the_cells_beside_it_change_a_cells_predictions(tmp_path: Path, run: Runner) -> None:
    common = ("--backbones", "vit:tiny@none", "--recipe", "drop_path=0.2", "--recipe", "dropout=0.5")
    alone = run(tmp_path / "alone", *common, "--strategies", "joint", "--workers", "1", "--cache", "off")
    beside = run(tmp_path / "beside", *common, "--strategies", "frozen,joint,spatial", "--workers", "2")
    assert (alone.code, beside.code) == (0, 0), alone.out + beside.out
    assert quotes(beside.out, "2 workers")
    assert "cache: off\n" in alone.out and quotes(beside.out, "cache: memory")
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


def test_a_worker_that_never_comes_up_is_done_without(tmp_path: Path, run: Runner) -> None:
    early, out = tmp_path / "early.py", tmp_path / "run"
    early.write_text(EARLY.format(marker=str(tmp_path / "was-here")))
    arguments = ("--backbones", "vit:tiny@none", "--strategies", "frozen,spatial", "--no-order-test")
    done = run(out, *arguments, "--workers", "2", "--plugin", str(early))
    assert done.code == 0, done.out + done.err
    assert (tmp_path / "was-here").exists()
    assert list(_table(out)["status"]) == ["done", "done"]


def test_where_no_worker_comes_up_the_command_says_so(tmp_path: Path, run: Runner, wording: Wording) -> None:
    early, out = tmp_path / "early.py", tmp_path / "run"
    early.write_text(EARLY.format(marker=""))
    arguments = ("--backbones", "vit:tiny@none", "--strategies", "frozen,spatial")
    ended = run(out, *arguments, "--workers", "2", "--plugin", str(early))
    assert ended.code == 1, ended.out + ended.err
    sentence, printed = ended.err.strip().splitlines()
    assert quotes(sentence, 3) and printed == "no room for me here"
    wording([sentence])
    assert not list(out.glob("cells/*/result.json"))
