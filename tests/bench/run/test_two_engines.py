"""Two commands at once in one run directory, of one engine or of two: no cell runs twice."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measure.machine import device_name
from bench.plugins import load as load_plugins
from bench.run.engines.ray_cluster import ENVIRONMENT
from bench.run.matrix import expand
from bench.run.store import Run
from bench.spec import Matrix
from tests.bench import make
from tests.bench.conftest import nothing_stays_registered

ROOT = Path(__file__).parents[3]
PLUGIN = ROOT / "benchmarks" / "trivial.py"
SEEDS = tuple(range(8))
_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # two commands start, and a Ray cluster


@pytest.mark.parametrize("engines", [("local", "local"), pytest.param(("ray", "local"), marks=_RAY)], ids="+".join)
def test_two_engines_on_one_run_run_no_cell_twice(engines: tuple[str, str], tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    asked = [
        "run", "--plugin", PLUGIN, "--backbones", "trivial", "--strategies", "frozen", "--dataset", "trivial",
        "--seeds", ",".join(map(str, SEEDS)), "--device", "cpu", "--cache", "off", "--workers", "1",
        "--out", run.folder,
    ]  # fmt: skip
    with nothing_stays_registered():
        load_plugins([str(PLUGIN)])
        matrix = Matrix(
            backbones=("trivial",), strategies=("frozen",), datasets=("trivial",), seeds=SEEDS, device="cpu"
        )
        cells = expand(matrix).cells
    run.open(matrix, cells, "bench run", {})
    measured = make.measured(batch_size=16, micro_batch=16, device=device_name("cpu"))
    run.write_measured(cells[0], measured)  # so that both begin to train at once
    begun = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "bench.cli.main", *map(str, asked), "--engine", engine],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, "RAY_ADDRESS": "local", "COLUMNS": "200"},
        )
        for engine in engines
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=1000)[0] for process in begun]
    finally:
        for process in begun:
            process.kill()
    assert [process.returncode for process in begun] == [0, 0], said
    done = [re.findall(r"^[\d:]+ done \d+ of \d+: .* seed (\d+)", text, re.MULTILINE) for text in said]
    assert sorted(done[0] + done[1]) == [str(seed) for seed in SEEDS], said
    assert [result.status for result in run.results()] == ["done"] * len(SEEDS)
