"""The processes of the suite: how many, one thread each, and what they share or keep to themselves."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.bench.command import Wording

# Before torch is imported, here and in what the tests start: several threads a process only wait for each other where
# every core has a process, and where a test asks for several they should not wait in a loop.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"

_MOST = 8
_MEMORY = 4e9  # bytes that a process of the suite and those that it starts may need


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process a core, as far as memory goes; none beside this one where single files or tests were asked for."""
    asked = config.getoption("file_or_dir")
    if asked and all(Path(argument.partition("::")[0]).suffix == ".py" for argument in asked):
        return 0
    from bench.measure.machine import cores

    return max(1, min(cores(), _MOST, int(psutil.virtual_memory().available / _MEMORY)))


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep off the user's cache and off the lock of whoever measures on this machine.

    The cache folder is one for all processes of the suite, whose locks are the product's own. Temporary files, and
    with them the lock of measurements, are each process's own.
    """
    base = tmp_path_factory.getbasetemp()
    get_temp_dir()  # of multiprocessing, which clears it away itself, at the very end
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (
        # of a short name: sockets lie in it
        tempfile.TemporaryDirectory(prefix="aim-bench-", ignore_cleanup_errors=True) as own,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AIM_BENCH_CACHE", str(shared / "cache"))
        patch.setenv("TMPDIR", own)
        patch.setattr(tempfile, "tempdir", own)
        # the server that processes are forked from is one for all tests: it knows from the start what most of them need
        preload = forkserver.set_forkserver_preload
        patch.setattr(forkserver, "set_forkserver_preload", lambda _: preload(["bench.run.engines.worker"]))
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Torch is back at one thread when a test ends that asked for more."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


@pytest.fixture
def wording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wording]:
    """The snapshot of the test's messages."""
    from tests.bench.command import Wording  # after the processes' threads are set

    test = request.node.nodeid.removeprefix("tests/bench/")
    if (parameters := getattr(request.node, "callspec", None)) is not None:  # among which may be a file's text
        test = f"{test.partition('[')[0]}[{'-'.join(map(str, dict.fromkeys(parameters.indices.values())))}]"
    snapshot = Wording(test, tmp_path_factory.getbasetemp())
    yield snapshot
    snapshot.close()
