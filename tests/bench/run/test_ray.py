"""The engine of a Ray cluster, on several nodes of this machine, one of which is killed while it trains a cell."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.data.cache import FrameCache
from bench.data.dataset import DATASETS
from bench.data.decode_pool import Reading
from bench.errors import UserError
from bench.measure.machine import device_name
from bench.measure.placement import Placement
from bench.plugins import load as load_plugins
from bench.run.cell import execute
from bench.run.context import WorkerContext
from bench.run.engines.base import ENGINES, Event, Job
from bench.run.engines.ray_cluster import Needs, needs_of
from bench.run.engines.storage import Storage, read_checkpoint, step_of, write_files
from bench.run.matrix import expand
from bench.run.result import Result
from bench.run.store import Run
from bench.spec import Cell, Matrix, Request
from tests.bench import make
from tests.bench.command import Command
from tests.bench.conftest import nothing_stays_registered

PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")
ROOT = Path(__file__).parents[3]
STEPS = 20  # 40 training videos in batches of 8, 4 epochs
CPU = Placement("cpu", None, "fp32")
ASKED = ("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--device", "cpu", "--engine", "ray")
_HAS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra ray")


def with_ray(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of a real cluster: starting one takes its time."""
    return pytest.mark.slow(_HAS_RAY(test))


# --- without a cluster ---


@pytest.mark.parametrize(
    ("needs", "node", "jobs"),
    [
        (Needs(2), Needs(7), 3),
        (Needs(2), Needs(1, 8), 0),
        (Needs(4, 1), Needs(32, 8), 8),
        (Needs(4, 1), Needs(6, 8), 1),
        (Needs(1, 2), Needs(64, 3), 1),
        (Needs(1, 1), Needs(64), 0),
    ],
)
def test_a_node_has_room_for_what_both_its_cpus_and_its_gpus_allow(needs: Needs, node: Needs, jobs: int) -> None:
    assert needs.fit(node) == jobs


def test_a_cell_takes_its_threads_or_a_gpu_with_its_share_of_the_cpus() -> None:
    tiny, on_gpu = make.cell(), make.cell(device="cuda")
    assert needs_of(tiny, [Needs(64, 8)]) == Needs(1)
    # what every node with GPUs can give each of them
    assert needs_of(on_gpu, [Needs(64, 8), Needs(2), Needs(48, 4)]) == Needs(8, 1)
    assert needs_of(on_gpu, [Needs(2, 4)]) == Needs(1, 1)


def _checkpoint(step: int) -> dict[str, bytes]:
    state = f"state-{step:09d}.pt"
    manifest = f'{{"step": {step}, "state": "{state}"}}'.encode()
    return {f"checkpoint/{state}": b"s" * step, "log.jsonl": b"l" * step, "checkpoint/checkpoint.json": manifest}


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_storage_keeps_the_last_checkpoint(scheme: str, tmp_path: Path) -> None:
    storage = Storage(f"{scheme}{tmp_path}/store").of("run", "cell")
    assert storage.read() == {} and storage.why_not_writable() is None
    assert scheme == "memory://" or list(tmp_path.iterdir()) == []
    for step in (5, 10):
        storage.write(_checkpoint(step))
        assert storage.read() == _checkpoint(step) and step_of(storage.read()) == step
    if scheme != "memory://":
        names = sorted(file.name for file in (tmp_path / "store" / "run" / "cell").iterdir())
        assert names == ["checkpoint.json", "log.jsonl", "state-000000010.pt"]
    storage.clear()
    assert storage.read() == {}
    storage.clear()


def test_a_storage_that_fails_midway_has_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write(_checkpoint(5))
    with pytest.MonkeyPatch.context() as patch:

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(storage._system, "mv", full)
        with pytest.raises(OSError):
            storage.write(_checkpoint(10))
    assert storage.read() == _checkpoint(5)


def test_a_checkpoint_travels_from_folder_to_folder(tmp_path: Path) -> None:
    (there := tmp_path / "there").mkdir()
    assert read_checkpoint(there) == {} and step_of({}) == -1
    for step in (5, 10):
        write_files(there, _checkpoint(step))
        assert read_checkpoint(there) == _checkpoint(step)
    assert len(list((there / "checkpoint").iterdir())) == 2
    (there / "checkpoint" / "state-000000010.pt").unlink()
    assert read_checkpoint(there) == {}
    (there / "checkpoint" / "checkpoint.json").write_text("{")
    assert read_checkpoint(there) == {}


def _refused(bench: Command, tmp_path: Path, *flags: object) -> list[str]:
    """The problems that the command ends with; it leaves nothing."""
    before = sorted(path.name for path in tmp_path.iterdir())
    said = bench(*ASKED, "--out", tmp_path / "run", *flags)
    assert (said.code, said.out) == (2, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    return said.problems


def test_without_ray_the_extra_is_named(bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    (told,) = _refused(bench, tmp_path)
    assert "aim-bench[ray]" in told


@with_ray
def test_everything_wrong_with_address_and_storage_is_told_at_once(bench: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    flags = ("--ray-address", f"127.0.0.1:{free}", "--storage", tmp_path / "file" / "store", "--precision", "fp8")
    told = _refused(bench, tmp_path, *flags)
    assert sorted(line.split(" ")[0] for line in told) == ["precision", "ray_address", "storage"]


@with_ray
@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "head", "head:port", "head:0", ":6379"])
def test_an_address_that_is_none_is_refused(address: str, bench: Command, tmp_path: Path) -> None:
    (told,) = _refused(bench, tmp_path, "--ray-address", address)
    assert repr(address) in told and "expected HOST:PORT" in told


@with_ray
def test_what_answers_and_is_not_ray_is_given_up(
    bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.run.engines.ray_cluster._ANSWER", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        (told,) = _refused(bench, tmp_path, "--ray-address", f"127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - begun < 10
    assert "ray_address" in told


@with_ray
@pytest.mark.parametrize("url", ["nonsense://store", "s4://store"])
def test_a_storage_of_an_unknown_protocol_is_refused(url: str, bench: Command, tmp_path: Path) -> None:
    (told,) = _refused(bench, tmp_path, "--storage", url)
    assert repr(url) in told


# --- on a cluster ---


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One node of one CPU; a driver that connects before a second one joins is on it."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # of a short name: sockets lie in it
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_enable_worker_prestart": "0",
            "PYTHONPATH": str(ROOT),
        }.items():
            patch.setenv(name, value)
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            yield found
        finally:
            found.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    with nothing_stays_registered():
        load_plugins([PLUGIN])
        DATASETS.get("small")(None).prepare()
        recipe = {"epochs": STEPS // 5, "batch_size": 8, "lr": 1e-3, "head_lr": 1e-3, "mixup": 0.8, "dropout": 0.5}
        asked = {"backbones": ("vit:tiny@none",), "strategies": ("joint",), "datasets": ("small",), "frames": (4,)}
        yield expand(Matrix(**asked, recipe=recipe)).cells[0]


@pytest.fixture(scope="module")
def uninterrupted(cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert _execute(cell, folder).status == "done"
    return folder


def _execute(cell: Cell, folder: Path) -> Result:
    context = WorkerContext(torch.device("cpu"), Reading(), "bench run", FrameCache(), checkpoint_minutes=1e9)
    with context.cleanup:
        return execute(cell, context, measured=_measured(), folder=folder)


def _measured(**changes: Any) -> Any:
    return make.measured(batch_size=8, micro_batch=8, busy_cores=0.0, **changes)


def _as_uninterrupted(folder: Path, expected: Path) -> None:
    once, found = (dict(np.load(each / "predictions.npz")) for each in (expected, folder))
    assert once.keys() == found.keys() and all(np.array_equal(once[name], found[name]) for name in once)


@contextlib.contextmanager
def _engine(cluster: Any, cell: Cell, **changes: Any) -> Iterator[Any]:
    asked = {"engine": "ray", "ray_address": cluster.address, "plugins": (PLUGIN,), "checkpoint_minutes": 0.001}
    with contextlib.closing(ENGINES.get("ray")(Request(**(asked | changes)), CPU, [cell], "bench run")) as engine:
        yield engine


class _Busy:
    """Actor that does nothing, where nothing else can run meanwhile."""

    def here(self) -> None: ...


def _keep_busy(node: Any) -> Any:
    """Take the CPU of a node; what `ray.kill` gets to give it back."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Strategy

    actor = ray.remote(_Busy).options(num_cpus=1, scheduling_strategy=Strategy(node.node_id, soft=False)).remote()
    ray.get(actor.here.remote())
    return actor


def _until(engine: Any, wanted: Callable[[Event], bool], kind: str = "progress") -> Event:
    """The first event of that kind of those that are wanted; nothing that ends the job comes before."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        for event in engine.events(0.5):
            assert event.kind in ("progress", kind), event.values
            if event.kind == kind and wanted(event):
                return event
    raise AssertionError("it never came")


@with_ray
def test_a_cell_whose_node_is_killed_goes_on_elsewhere_to_the_same_predictions(
    cluster: Any, cell: Cell, uninterrupted: Path, tmp_path: Path
) -> None:
    import ray

    (folder := tmp_path / "cell").mkdir()
    with _engine(cluster, cell) as engine:
        assert engine.slots == 1
        busy = _keep_busy(cluster.head_node)
        node = cluster.add_node(num_cpus=1)
        engine.submit(Job("train", cell, folder, 1, FrameCache(), _measured()))
        where = _until(engine, lambda event: "id" in event.values).values["id"].partition(":")[0]
        assert engine.slots == 2
        _until(engine, lambda _: 0 < step_of(read_checkpoint(folder)) < STEPS)
        assert node.node_id.startswith(where)
        cluster.remove_node(node, allow_graceful=False)
        ray.kill(busy)
        elsewhere = _until(engine, lambda event: "id" in event.values).values["id"].partition(":")[0]
        assert elsewhere != where
        kept = step_of(read_checkpoint(folder))
        ended = _until(engine, lambda _: True, "trained")
        assert engine.slots == 1
        (note,) = engine.notes
        assert cell.label in note
    result = ended.values["value"]
    assert kept > 0 and len(result.provenance.attempts) == 2
    _as_uninterrupted(folder, uninterrupted)
    assert (folder / "adapter.safetensors").is_file()
    steps = re.findall(r'"step": (\d+)', (folder / "log.jsonl").read_text())
    assert list(map(int, steps)) == sorted(set(map(int, steps))) and int(steps[-1]) == STEPS


@with_ray
def test_a_cell_that_is_to_stop_leaves_its_checkpoint_in_the_storage(
    cluster: Any, cell: Cell, uninterrupted: Path, tmp_path: Path
) -> None:
    (folder := tmp_path / "run" / "cells" / cell.folder).mkdir(parents=True)
    with _engine(cluster, cell, storage=f"file://{tmp_path}/store", checkpoint_minutes=1e4, workers=1) as engine:
        assert engine.slots == 1
        engine.submit(Job("train", cell, folder, 1, FrameCache(), _measured()))
        _until(engine, lambda event: event.values.get("stage") == "training")
        engine.preempt()
        _until(engine, lambda _: True, "preempted")
    assert read_checkpoint(folder) == {}
    kept = Storage(f"{tmp_path}/store").of("run", cell.folder).read()
    assert 0 < step_of(kept) < STEPS
    write_files(folder, kept)
    assert len(_execute(cell, folder).provenance.attempts) == 2
    _as_uninterrupted(folder, uninterrupted)


@with_ray
def test_a_cell_that_fits_on_no_node_is_refused(cluster: Any, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.run.engines.ray_cluster.threads_of", lambda cell: 64)
    with pytest.raises(UserError) as refused, _engine(cluster, cell):
        pass
    assert "64 CPUs" in str(refused.value) and "1 CPU" in str(refused.value)


@with_ray
def test_two_engines_on_one_run_run_no_cell_twice(cluster: Any, cell: Cell, tmp_path: Path) -> None:
    seeds = range(6)
    run = Run(tmp_path / "run")
    plugin = ROOT / "benchmarks" / "trivial.py"
    asked = [
        "run", "--plugin", plugin, "--backbones", "trivial", "--strategies", "frozen", "--dataset", "trivial",
        "--seeds", ",".join(map(str, seeds)), "--device", "cpu", "--cache", "off", "--out", run.folder,
    ]  # fmt: skip
    with nothing_stays_registered():
        load_plugins([str(plugin)])
        matrix = Matrix(
            backbones=("trivial",), strategies=("frozen",), datasets=("trivial",), seeds=tuple(seeds), device="cpu"
        )
        cells = expand(matrix).cells
    run.open(matrix, cells, "bench run", {})
    run.write_measured(cells[0], _measured(device=device_name("cpu")))  # so that both begin to train at once
    begun = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "bench.cli.main", *map(str, asked), *more],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env={**os.environ, "RAY_ADDRESS": cluster.address, "COLUMNS": "200"},
        )
        for more in (["--engine", "ray"], ["--engine", "local", "--workers", "1"])
    ]  # fmt: skip
    said = [process.communicate(timeout=240)[0] for process in begun]
    assert [process.returncode for process in begun] == [0, 0], said
    done = [re.findall(r"^[\d:]+ done \d+ of \d+: .* seed (\d+)", text, re.MULTILINE) for text in said]
    assert sorted(done[0] + done[1]) == [str(seed) for seed in seeds], said
    assert [result.status for result in run.results()] == ["done"] * len(seeds)
