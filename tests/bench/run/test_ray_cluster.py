"""The engine of a Ray cluster, on several nodes of this machine, one of which is killed while it trains a cell."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
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
from bench.measure.placement import Placement
from bench.plugins import load as load_plugins
from bench.run.cell import execute
from bench.run.context import WorkerContext
from bench.run.engines.base import ENGINES, Event, Job
from bench.run.engines.ray_cluster import ENVIRONMENT
from bench.run.engines.storage import Storage, read_checkpoint, step_of, write_files
from bench.run.matrix import expand
from bench.run.result import Result
from bench.spec import Cell, Matrix, Request
from tests.bench import make
from tests.bench.command import Command
from tests.bench.conftest import nothing_stays_registered

PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")
ROOT = Path(__file__).parents[3]
STEPS = 20  # 40 training videos in batches of 8, 4 epochs
CPU = Placement("cpu", None, "fp32")
pytestmark = [
    pytest.mark.slow,  # a cluster is started, which takes its time on a busy machine
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra ray"),
    pytest.mark.timeout(900),
]
# of Ray's own limits, which a busy machine's processes need longer than
PATIENT = {
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_timeout_ms": "60000",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One node of one CPU; a driver that connects before a second one joins is on it."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # of a short name: sockets lie in it
    own = {"RAY_TMPDIR": folder, "RAY_enable_worker_prestart": "0", "PYTHONPATH": str(ROOT)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, **PATIENT, **own}.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster  # reads the environment once, when it is imported

        found = Cluster()
        try:
            _add(found, include_dashboard=False, no_monitor=True, include_log_monitor=False)
            yield found
        finally:
            found.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def _add(cluster: Any, cpus: int = 1, **options: Any) -> Any:
    """Start a node. Ray waits half a minute for it, which on a busy machine is not enough every time."""
    for attempt in range(4):
        try:
            return cluster.add_node(num_cpus=cpus, **options)
        except Exception:  # Ray's own is a bare one
            if attempt == 3:
                raise
    raise AssertionError


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
    until = time.monotonic() + 600
    while time.monotonic() < until:
        for event in engine.events(0.5):
            assert event.kind in ("progress", kind), event.values
            if event.kind == kind and wanted(event):
                return event
    raise AssertionError("it never came")


def test_a_cell_whose_node_is_killed_goes_on_elsewhere_to_the_same_predictions(
    cluster: Any, cell: Cell, uninterrupted: Path, tmp_path: Path
) -> None:
    import ray

    (folder := tmp_path / "cell").mkdir()
    with _engine(cluster, cell) as engine:
        assert engine.slots == 1
        busy = _keep_busy(cluster.head_node)
        node = _add(cluster)
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
        until = time.monotonic() + 300
        while engine.slots != 1 and time.monotonic() < until:  # the cluster notices a death in its own time
            assert list(engine.events(0.5)) == []
        assert engine.slots == 1
        (note,) = engine.notes
        assert cell.label in note
    result = ended.values["value"]
    assert kept > 0 and len(result.provenance.attempts) == 2
    _as_uninterrupted(folder, uninterrupted)
    assert (folder / "adapter.safetensors").is_file()
    steps = re.findall(r'"step": (\d+)', (folder / "log.jsonl").read_text())
    assert list(map(int, steps)) == sorted(set(map(int, steps))) and int(steps[-1]) == STEPS


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


def test_two_processes_a_cell_on_one_node_give_the_numbers_of_one(
    cluster: Any, cell: Cell, bench: Command, tmp_path: Path
) -> None:
    recipe = cell.recipe.model_copy(update={"dropout": 0.0, "drop_path": 0.0, "epochs": 2})  # drawn anew on each rank
    plain = cell.model_copy(update={"recipe": recipe})
    (once := tmp_path / "once").mkdir()
    (folder := tmp_path / "cell").mkdir()
    expected = _execute(plain, once)
    node = _add(cluster, cpus=2)
    try:
        asked = ("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--device", "cpu", "--engine", "ray")
        refused = bench(*asked, "--ray-address", cluster.address, "--processes-per-cell", 3, "--out", tmp_path / "run")
        assert refused.code == 2 and not (tmp_path / "run").exists()
        (told,) = refused.problems
        assert "3 CPUs" in told and "the largest has 2 CPUs" in told
        with _engine(cluster, plain, processes_per_cell=2) as engine:
            assert engine.slots == 1
            engine.submit(Job("train", plain, folder, 1, FrameCache(), _measured()))
            where = _until(engine, lambda event: "id" in event.values).values["id"].partition(":")[0]
            assert node.node_id.startswith(where)  # the only one with both CPUs
            result = _until(engine, lambda _: True, "trained").values["value"]
    finally:
        cluster.remove_node(node)
    assert result.status == "done" and result.metrics == expected.metrics
    assert (expected.provenance.world_size, result.provenance.world_size) == (1, 2)
    one, two = (dict(np.load(each / "predictions.npz")) for each in (once, folder))
    assert one.keys() == two.keys()
    for name in one:
        same = np.allclose if one[name].dtype.kind == "f" else np.array_equal
        assert same(two[name], one[name], **({"atol": 1e-4} if one[name].dtype.kind == "f" else {})), name


def test_a_cell_that_fits_on_no_node_is_refused(cluster: Any, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.run.engines.ray_cluster.threads_of", lambda cell: 64)
    with pytest.raises(UserError) as refused, _engine(cluster, cell):
        pass
    assert "64 CPUs" in str(refused.value) and "the largest has" in str(refused.value)
