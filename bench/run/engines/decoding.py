"""The process of the decoding that an engine's workers share, and its end."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from bench.data.dataset import DATASETS
from bench.data.decode_pool import Reading
from bench.data.decode_server import DecodeServer
from bench.data.decode_sharing import PATIENCE
from bench.measure.machine import cores
from bench.processes import STOP_SIGNALS, end_with_parent, processes_starting

_END = 5.0  # seconds that the process is given to end
_MOST = 2 * 2**30  # bytes of clips that wait for cells, at most
_SHARE = 0.05  # of the free memory, likewise


def shared_processes(how: Reading, readers: int, datasets: Iterable[str]) -> int:
    """Decoding processes for all cells of a machine: as many as they would have together, but no more than cores, or
    than one of them would have by itself. 0 where its cells decode in their own processes.

    Args:
        how: settings of each cell.
        readers: cells that run side by side, each process of a cell counted.
        datasets: their names.
    """
    each = max((how.processes(DATASETS.get(name).small) for name in datasets), default=0)
    return min(each * readers, max(each, cores()))


@dataclass(frozen=True)
class _Settings:
    count: int
    limit: float
    budget: int
    patience: float


class SharedDecoding:
    """A decode server in a process of its own, which ends with this one.

    Args:
        processes: the multiprocessing context that it is started with.
        folder: takes its socket.
        count, limit, budget, patience: see `DecodeServer`; by default the budget follows from the free memory.
    """

    def __init__(
        self,
        processes: Any,
        folder: Path,
        count: int,
        limit: float,
        budget: int | None = None,
        patience: float = PATIENCE,
    ) -> None:
        if budget is None:
            budget = min(_MOST, int(psutil.virtual_memory().available * _SHARE))
        self.path: Path | None = folder / "decoding"
        self._process: Any = None
        try:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.path))
            listener.listen(128)
        except (OSError, AttributeError):  # the folder's name is too long for it, or the system has none
            self.path = None
            return
        self._connection, theirs = processes.Pipe()
        settings = _Settings(count, limit, budget, patience)
        with processes_starting(processes):
            # no daemon, which could have no processes of its own
            self._process = processes.Process(
                target=_main, args=(theirs, listener, folder, settings), name="bench-decoding", daemon=False
            )
            self._process.start()
        theirs.close()
        listener.close()  # else cells could connect that nobody hears once the process is gone

    def used_by(self, how: Reading) -> Reading:
        """The settings of cells that share its processes."""
        return replace(how, server=self.path)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End it and its processes."""
        if self._process is None:
            return
        self._connection.close()
        self._process.join(_END)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _main(connection: Connection, listener: socket.socket, folder: Path, settings: _Settings) -> None:
    from bench.run.engines.local import settle

    settle(folder / "decoding.txt")
    # a scheduler signals every process of a job: the trainings decide, and need their clips until then
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(folder)
    server = DecodeServer(listener, settings.count, settings.limit, settings.budget, settings.patience)

    def follow() -> None:
        with contextlib.suppress(EOFError, OSError):
            connection.recv()
        server.close()

    threading.Thread(target=follow, daemon=True).start()
    server.run()
