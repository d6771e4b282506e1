"""Jobs on a real Slurm: submitted, preempted, requeued, at their time limit, in the queue of a drained node."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.dataset import DATASETS
from bench.plugins import load as load_plugins
from bench.run.engines.jobs import JobState
from bench.run.engines.jobs import read as read_job
from bench.run.result import Result
from bench.run.status import status
from bench.run.store import Run
from tests.bench.command import Command
from tests.bench.conftest import nothing_stays_registered

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
STEPS = 15  # 40 training videos in batches of 8, 3 epochs
ASKED = (
    *("run", "--backbones", "vit:tiny@none", "--strategies", "joint", "--dataset", "small", "--frames", "4"),
    *("--epochs", "3", "--batch-size", "8", "--device", "cpu", "--plugin", str(HERE / "slow.py")),
    *("--checkpoint-minutes", "0.01"),
)

missing = [name for name in PROGRAMS if shutil.which(name) is None]
missing += [] if importlib.util.find_spec("submitit") else ["submitit"]
missing += [] if hasattr(os, "getuid") and os.getuid() == 0 else ["root's rights"]
pytestmark = [
    pytest.mark.slow,  # a cluster is started, and jobs wait in its queue
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: see tests/slurm/start.sh"),
    pytest.mark.timeout(1800),  # where other things keep the machine busy; alone each takes less than a minute
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cluster's folder; its daemons end with the module."""
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("SLURM_TEST_PORT", str(_free_ports()))
            said = folder / "start.txt"  # a file, as daemons may keep what they inherit
            with said.open("w") as file:
                code = subprocess.run([HERE / "start.sh", folder], timeout=300, stderr=file, check=False).returncode
            if code:  # a container that does not let its root do what daemons need
                pytest.skip(f"Slurm's daemons do not start here: {said.read_text()[-2000:]}")
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield folder
        finally:
            subprocess.run([HERE / "stop.sh", folder], check=False, timeout=60)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same cells by this machine's own workers, which nothing interrupts."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = _bench(*ASKED, "--seeds", "0,1,2", "--out", folder).wait(timeout=900)
    assert done == 0
    return folder


def _bench(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.cli.main", *map(str, arguments)]
    return subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        # a suite that runs in the background of a shell ignores Ctrl-C, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _free_ports() -> int:
    """The first of two ports, one after the other, that nobody uses."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


def _slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def _until(test: Callable[[], Any], seconds: float = 900.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.2)
    return found


def _ended(process: subprocess.Popen[str], seconds: float = 900.0) -> tuple[int, str]:
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(process.communicate()[0]) from None
    return process.returncode, said


def _folders(run: Path) -> list[Path]:
    return [run / "cells" / name for name in Run(run).description()["cells"]]


def _training(run: Path) -> JobState | None:
    """The state of the first cell's job, once its training has a checkpoint."""
    if not (run / "run.json").exists():
        return None
    (folder, *_) = _folders(run)
    state = read_job(folder)
    return state if state and state.stage == "training" and (folder / "checkpoint/checkpoint.json").exists() else None


def _as_alone(run: Path, alone: Path) -> list[Result]:
    """Check that every cell is done and predicts what it predicts in the other run, to the last bit."""
    results = Run(run).results()
    assert [result.status for result in results] == ["done"] * len(_folders(run))
    for folder in _folders(run):
        found, expected = (dict(np.load(each / "predictions.npz")) for each in (folder, alone / "cells" / folder.name))
        for name, array in expected.items():
            assert np.array_equal(found[name], array), name
        steps = [json.loads(line).get("step") for line in (folder / "log.jsonl").read_text().splitlines()]
        steps = [step for step in steps if step is not None]
        assert steps == sorted(set(steps)) and steps[-1] == STEPS
        assert read_job(folder) is None and not (folder / "checkpoint").exists()
    return results


def test_an_array_of_jobs_beside_another_engine_runs_each_cell_once(cluster: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    asked = ("--seeds", "0,1,2", "--engine", "slurm", "--cells-per-job", "2", "--slurm", "partition=normal,time=5")
    jobs, beside = _bench(*ASKED, *asked, "--out", run), _bench(*ASKED, "--seeds", "0,1,2", "--out", run)
    (code, said), (code_beside, said_beside) = _ended(jobs), _ended(beside)
    assert code == code_beside == 0, said + said_beside
    _as_alone(run, alone)
    printed = [file.read_text() for file in (run / "slurm").glob("*_log.out")]
    assert len(printed) == 2
    assert "".join(printed).count("\ndone: ") + len(re.findall(r" done \d of \d: ", said_beside)) == 3
    assert (run / "results.csv").read_text().count("\n") == 4
    _until(lambda: _slurm("squeue", "--noheader") == "")  # jobs take a moment to end after their last result


def test_a_preempted_job_is_requeued_and_goes_on(
    cluster: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_STEP", "2")
    run = tmp_path / "run"
    process = _bench(*ASKED, "--engine", "slurm", "--slurm", "partition=normal", "--out", run)
    state = _until(lambda: _training(run))
    assert state.engine == "slurm" and state.id
    until = f"until [ -e {tmp_path / 'seen'} ]; do sleep 0.2; done"
    _slurm("sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", f"--wrap={until}")
    _until(lambda: [cell.state for cell in status(Run(run))] == ["queued"])
    (cell,) = status(Run(run))
    assert cell.job is not None and cell.job.id == state.id and cell.step is not None
    (tmp_path / "seen").touch()
    code, said = _ended(process)
    assert code == 0, said
    (result,) = _as_alone(run, alone)
    assert len(result.provenance.attempts) == 2


def test_a_job_has_a_cpu_for_each_process_of_its_cell(cluster: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    several = ("--processes-per-cell", "2", "--engine", "slurm", "--slurm", "partition=normal", "--detach")
    code, said = _ended(_bench(*ASKED, *several, "--out", run))
    assert code == 0, said
    (script,) = (run / "slurm").glob("*_submission.sh")
    (id, _) = script.name.split("_")
    assert "NumCPUs=2 " in _slurm("scontrol", "show", "job", id)
    _until(lambda: [cell.state for cell in status(Run(run))] == ["done"])
    (result,) = Run(run).results()
    assert result.provenance.world_size == 2


def test_a_job_waits_for_a_drained_node_and_goes_on_after_its_time_limit(
    cluster: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_STEP", "4")
    run = tmp_path / "run"
    host = _slurm("hostname", "-s")
    _slurm("scontrol", "update", f"NodeName={host}", "State=DRAIN", "Reason=test")
    try:
        asked = ("--engine", "slurm", "--slurm", "partition=normal,time=60", "--detach")
        code, said = _ended(_bench(*ASKED, *asked, "--out", run))
        assert code == 0, said
        (cell,) = status(Run(run))
        assert cell.state == "queued" and cell.job is not None and cell.job.engine == "slurm"
        id = str(cell.job.id)
        assert _slurm("squeue", "--noheader", f"--jobs={id}", "--format=%T") == "PENDING"
    finally:
        _slurm("scontrol", "update", f"NodeName={host}", "State=RESUME")
    _until(lambda: _training(run))
    minutes = 1 + int(_slurm("squeue", "--noheader", f"--jobs={id}", "--format=%M").split(":")[-2])
    _slurm("scontrol", "update", f"JobId={id}", f"TimeLimit={minutes}")  # over within 60 s: a warning is due
    _until(lambda: "Restarts=1" in _slurm("scontrol", "show", "job", id))
    _slurm("scontrol", "update", f"JobId={id}", "TimeLimit=60")  # a busy machine may not even start in a minute
    _until(lambda: [each.state for each in status(Run(run))] == ["done"])
    (result,) = _as_alone(run, alone)
    assert len(result.provenance.attempts) == 2


def test_an_interrupt_ends_the_jobs_and_leaves_their_checkpoints(
    cluster: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_STEP", "2")
    run = tmp_path / "run"
    one = "partition=normal,array_parallelism=1"
    process = _bench(*ASKED, "--seeds", "0,1", "--engine", "slurm", "--slurm", one, "--out", run)
    _until(lambda: _training(run))
    process.send_signal(signal.SIGINT)
    code, said = _ended(process)
    assert code == 130, said
    _until(lambda: _slurm("squeue", "--noheader") == "")
    assert [cell.state for cell in status(Run(run))] == ["interrupted", "waiting"]
    assert status(Run(run))[0].step is not None
    # another engine goes on from there
    code, said = _ended(_bench(*ASKED, "--seeds", "0,1", "--out", run))
    assert code == 0, said
    first, second = _as_alone(run, alone)
    assert len(first.provenance.attempts) == 2 and second.provenance.attempts == ()


def test_what_slurm_would_not_take_is_refused(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Command(monkeypatch, capsys)
    asked = ("run", "--backbones", "vit:tiny@none", "--strategies", "joint", "--engine", "slurm")
    said = bench(*asked, "--slurm", "partition=norml,tme=3", "--precision", "fp8", "--out", tmp_path / "run")
    assert said.code == 2
    assert len(said.problems) == 3
    assert any("'norml'" in line and "did you mean 'normal'" in line for line in said.problems)
    assert any("'tme'" in line and "did you mean 'time'" in line for line in said.problems)
    said = bench(*asked, "--slurm", "cpus_per_task=3", "--out", tmp_path / "run")
    assert said.code == 2 and len(said.problems) == 1 and "cpus_per_task=3" in said.problems[0]
    assert not (tmp_path / "run").exists()


def test_jobs_decode_a_data_set(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nothing_stays_registered():
        load_plugins([str(ROOT / "tests" / "bench" / "plugins" / "small.py")])
        dataset = DATASETS.get("small")(None)
        dataset.prepare()
        found = [video.path for video in dataset.videos("test")][:12]
    for index, video in enumerate(found):
        place = tmp_path / "data" / ("train", "val")[index % 2] / f"class {index // 2 % 2}" / f"{index}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(video.read_bytes())
    monkeypatch.setenv("AIM_BENCH_CACHE", str(tmp_path / "cache"))
    asked = ("data", "prepare", "folder", "--data-root", tmp_path / "data", "--engine", "slurm", "--tasks", "3")
    code, said = _ended(_bench(*asked, "--workers", "1", "--slurm", "partition=normal"))
    assert code == 0, said
    assert f"holds {len(found)} of {len(found)} videos" in said
    assert f"{len(found)} of them new" in said
    assert len(list((tmp_path / "cache" / "frames").glob("??/*.raw"))) == len(found) == 12
    assert not (tmp_path / "cache" / "frames" / "preparing").exists()
    assert _slurm("squeue", "--noheader") == ""
