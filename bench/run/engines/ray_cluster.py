"""A Ray cluster: reaching it, its nodes, and the needs of a cell. Imports Ray when it is asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from bench.errors import UserError
from bench.files import reason
from bench.measure.machine import cores
from bench.measure.placement import Placement
from bench.processes import STOP_SIGNALS, search_path
from bench.run.engines.local import threads_of
from bench.run.engines.storage import Storage
from bench.spec import Cell, Request
from bench.text import counted

_ANSWER = 10.0  # seconds that a cluster is given to answer
_STARTS = 4  # of one of this machine, whose processes Ray gives half a minute: too little where the machine is busy
# Ray's ways that are not wanted here: telling its makers of its use, packing this folder up for the nodes where the
# command was started by `uv run`, a warning on the GPUs of tasks that ask for none
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Needs:
    """CPUs and GPUs of a job, all of one node."""

    cpus: int
    gpus: int = 0

    def fit(self, node: Needs) -> int:
        """Number of such jobs that a node has room for."""
        return min(node.cpus // self.cpus, node.gpus // self.gpus if self.gpus else node.cpus)

    def __str__(self) -> str:
        return counted(self.cpus, "CPU") + (f" and {counted(self.gpus, 'GPU')}" if self.gpus else "")


def address_of(request: Request) -> str | None:
    """The cluster's address; None for one of this machine that ends with the run."""
    return request.ray_address or os.environ.get("RAY_ADDRESS") or None


def why_unusable(url: str) -> str | None:
    try:
        return None if (told := Storage(url).why_not_writable()) is None else f"it cannot be written ({told})"
    except (ValueError, ImportError) as error:
        return f"expected a folder or a URL that fsspec can write to ({' '.join(str(error).split())})"


def why_unreachable(address: str) -> str | None:
    """Return why a cluster does not answer within ten seconds; None where it does."""
    if address.startswith("ray://"):
        return "expected HOST:PORT of the cluster's head, or auto, and the command given on a node of the cluster"
    if address not in ("auto", "local"):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            return "expected HOST:PORT of the cluster's head, auto or local"
        try:
            socket.create_connection((host, int(port)), timeout=_ANSWER).close()
        except OSError as error:
            return f"nothing answers there ({reason(error)})"
    if address == "local":
        return None
    # in a process of its own, as Ray waits for minutes and cannot be told not to; its import is not the cluster's time
    code = "import sys, ray; print(flush=True); ray.init(sys.argv[1], log_to_driver=False, logging_level='CRITICAL')"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, address],
        env={**os.environ, **ENVIRONMENT, **search_path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        try:
            _, said = asking.communicate(timeout=_ANSWER)
        except subprocess.TimeoutExpired:
            asking.kill()
            return f"no Ray cluster answered within {_ANSWER:.0f} seconds"
    if asking.returncode == 0:
        return None
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"no Ray cluster can be used there ({lines[-1][:300] if lines else 'it said nothing'})"


def connect(address: str | None, placement: Placement, opened: contextlib.ExitStack) -> None:
    import ray

    options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "CRITICAL"}
    if options["address"] == "local":
        # in a folder of a short name, as sockets lie in it, which goes away with it
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
        opened.callback(remove, folder)
        options |= {
            "num_cpus": cores(),
            "num_gpus": gpus_asked(placement),
            "include_dashboard": False,
            "_temp_dir": folder,
        }
    handlers = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGINT)}
    opened.callback(ray.shutdown)
    starts = _STARTS if options["address"] == "local" else 1
    others = set(psutil.Process().children(recursive=True))
    for left in reversed(range(starts)):
        try:
            ray.init(**options)
            break
        except Exception as error:  # Ray's own is a bare one where its processes did not come up in time
            if not left:
                told = " ".join(str(error).split())[:300]
                raise UserError([f"engine is 'ray': Ray does not start ({told})"]) from error
            ray.shutdown()
            for process in set(psutil.Process().children(recursive=True)) - others:  # Ray leaves them until the end
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    if threading.current_thread() is threading.main_thread():  # Ray has put its own in their place
        for number, handler in handlers.items():
            signal.signal(number, handler)


def remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def gpus_asked(placement: Placement) -> int:
    if placement.type != "cuda":
        return 0
    import torch

    return torch.cuda.device_count()


def nodes_of_cluster() -> dict[str, Needs]:
    """CPUs and GPUs of each node that is alive, by its id."""
    import ray

    return {
        node["NodeID"]: Needs(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()
        if node["Alive"]
    }


def needs_of(cell: Cell, nodes: Sequence[Needs], processes: int = 1) -> Needs:
    """CPUs and GPUs that a cell takes: on a CPU its threads, which its processes divide among them, one for each at
    least; on GPUs one for each process, with the CPUs that come with each of a node's GPUs.
    """
    if cell.device != "cuda":
        return Needs(max(processes, threads_of(cell)))
    share = max(1, min((node.cpus // node.gpus for node in nodes if node.gpus), default=1))
    return Needs(processes * share, processes)


def too_much(needs: Needs, nodes: Sequence[Needs], processes: int = 1) -> str:
    most = max(nodes, key=lambda node: (node.gpus if needs.gpus else 0, node.cpus), default=None)
    has = f"the largest has {most}" if most is not None else "there is no node"
    asked = "engine is 'ray'" if processes == 1 else f"processes_per_cell is {processes}"
    return f"{asked}: a cell takes {needs}, all on one node, but {has}"
