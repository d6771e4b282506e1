"""A job on a node of a Ray cluster, in a worker process such as the local engine's.

The node need not see the driver's files: what a job reads of them comes with it, what it writes goes back in messages.
A checkpoint does so too, unless there is a storage that every node reaches.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.data.cache.choose import CacheFolders, CacheSettings, choose
from bench.data.dataset import DATASETS
from bench.measure.machine import cores, exclusive_machine_lock
from bench.plugins import load as load_plugins
from bench.run.engines.base import Job, WorkerFailed, joined
from bench.run.engines.local import LocalEngine, Setup
from bench.run.engines.storage import (
    Files,
    Storage,
    checkpoint_step,
    read_checkpoint,
    read_files,
    step_of,
    write_files,
)
from bench.run.store import ADAPTER, LOG, PREDICTIONS, SKIPPED
from bench.spec import Cell

_SHARE = 0.05  # of a job's time, which sending its checkpoints may take at most
_TICK = 0.5  # seconds after which a job looks whether it is to stop

# "started", "progress", "noted" and "checkpoint" any number of times, then the kind of an event that ends a job, each
# of one of its parts, whose number is the value `part`; or "lost", the failure of all that are left
Message = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class NodeSetup:
    """Setup that all jobs of a run have in common.

    Attributes:
        setup: of the worker process.
        cells: one for each data set, draw of its training videos and backbone: what has to be ready on a node, and in
            its cache of frames.
        cache: as asked for. Each node chooses, as its memory and its disks are its own.
        plugins: content of the plugin files, by the name in `setup`.
    """

    setup: Setup
    cells: tuple[Cell, ...]
    cache: CacheSettings
    plugins: Files


class _Node:
    """State that a process keeps from one of Ray's jobs to the next: the cache of frames, plugins that came along, and
    the worker process, which has its libraries imported.

    Args:
        common: of the run.

    Raises:
        UserError: a plugin cannot be imported here, or the cache cannot be written.
        DataError: a data set is not here.
    """

    def __init__(self, common: NodeSetup) -> None:
        from bench.run.start import videos_of

        with contextlib.ExitStack() as opened:
            plugins = tuple(_here(name, common.plugins.get(name), opened) for name in common.setup.plugins)
            self.setup = replace(common.setup, plugins=plugins)
            load_plugins(plugins)
            for name, source in dict.fromkeys((cell.dataset, cell.data) for cell in common.cells):
                DATASETS.get(name)(source).prepare()
            folders = opened.enter_context(CacheFolders())
            videos, short_side = ([], None) if common.cache.mode == "off" else videos_of(common.cells)
            self.cache, _ = choose(common.cache, videos, folders, short_side)
            self._opened = opened.pop_all()
        self._idle: LocalEngine | None = None

    @contextlib.contextmanager
    def engine(self) -> Iterator[LocalEngine]:
        """Lend the engine of one worker process, which is kept for the next job. One that was told to stop or failed is
        not; nor one on a GPU, as Ray ends this process with its job.
        """
        engine, self._idle = self._idle or LocalEngine([self.setup]), None
        try:
            for _ in engine.events(0):  # a worker that died since the last job is replaced
                pass
            yield engine
        except BaseException:
            engine.close()
            raise
        if engine.ending or self.setup.device != "cpu":
            engine.close()
        else:
            self._idle = engine


def _here(name: str, content: bytes | None, opened: contextlib.ExitStack) -> str:
    """The name under which a plugin is imported here: of a file that is not here, that of a copy."""
    if content is None or (Path(name).is_file() and Path(name).read_bytes() == content):
        return name
    copy = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="aim-bench-plugin-"))) / Path(name).name
    copy.write_bytes(content)
    return str(copy)


_nodes: list[_Node] = []  # the one of this process, once there is one


def work(
    common: list[Any], job: Job, checkpoints: Sequence[Files], storages: Sequence[str | None], stop: Any
) -> Iterator[Message]:
    """Execute a job; the body of a Ray task that yields.

    Args:
        common: a reference to the run's NodeSetup, in a list, as Ray would fetch it for every job otherwise.
        checkpoints: that the driver has of each of its trainings.
        storages: URL of each cell's folder there.
        stop: actor whose `wait` answers when the jobs are to stop.
    """
    import ray

    stopped = stop.wait.remote()
    node = ray.get_runtime_context().get_node_id()
    yield "started", {"host": socket.gethostname(), "pid": os.getpid(), "node": node}
    try:
        if not _nodes:
            _nodes.append(_Node(ray.get(common[0])))
        kept = [None if storage is None else Storage(storage) for storage in storages]
        yield from _execute(_nodes[0], job, checkpoints, kept, stopped)
    except Exception as error:  # of the node: a job's own errors come as messages
        printed = error.printed if isinstance(error, WorkerFailed) else traceback.format_exc()
        line = f"{type(error).__name__} on {socket.gethostname()}: {' '.join(str(error).split())}"
        yield "lost", {"status": "failed", "error": line, "traceback": printed}


def _execute(
    node: _Node, job: Job, checkpoints: Sequence[Files], storages: Sequence[Storage | None], stopped: Any
) -> Iterator[Message]:
    import ray

    next_time, asked = 0.0, False
    measuring = job.kind == "measure"
    threads = min(job.threads, cores()) if measuring else job.threads
    # nothing else is measured on this machine meanwhile; that nothing else runs is up to what the task asks Ray for
    alone = exclusive_machine_lock(lambda: None) if measuring else contextlib.nullcontext()
    with alone, node.engine() as engine, contextlib.ExitStack() as opened:
        parts: dict[int, _Part] = {}
        for number, one in enumerate(job.parts):
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="cell-", dir=engine.folder)))
            there = replace(one, folder=folder, threads=threads, cache=node.cache)
            parts[number] = _Part(there, storages[number] if storages else None)
            if checkpoints:
                parts[number].begin(checkpoints[number])
        numbers = {part.job.cell: number for number, part in parts.items()}
        engine.submit(joined([part.job for part in parts.values()]))
        while parts:
            if not asked and ray.wait([stopped], timeout=0)[0]:
                engine.preempt()
                asked = True
            for event in engine.events(_TICK):
                number = numbers[event.job.cell]
                if event.kind == "progress":
                    yield "progress", {**event.values, "part": number}
                    continue
                part = parts.pop(number)
                if event.kind == "preempted":
                    for kind, values in part.sent():
                        yield kind, {**values, "part": number}
                names = (LOG, PREDICTIONS, ADAPTER, SKIPPED) if event.kind == "trained" else (LOG,)
                files = read_files(part.job.files, *names)
                yield event.kind, {**event.values, "files": files, "part": number}
            if not measuring and time.monotonic() >= next_time:
                begun = time.monotonic()
                for number, part in parts.items():
                    for kind, values in part.sent():  # not `yield from`: Ray sends to the generator
                        yield kind, {**values, "part": number}
                next_time = time.monotonic() + (time.monotonic() - begun) / _SHARE


class _Part:
    """One cell's part of a job, in a folder of the node.

    Args:
        storage: of its checkpoints; None where they are sent in messages.
    """

    def __init__(self, job: Job, storage: Storage | None) -> None:
        self.job, self._storage = job, storage
        self._step = -1  # of the checkpoint that was sent last

    def begin(self, checkpoint: Files) -> None:
        """Put the later of the driver's checkpoint and the storage's into the folder."""
        if self._storage is not None:
            checkpoint = max(checkpoint, self._storage.read(), key=step_of)
        self._step = step_of(checkpoint)
        write_files(self.job.files, checkpoint)

    def sent(self) -> list[Message]:
        """Send the checkpoint, where its step is another one than the one sent before; the messages to send.

        A storage that fails costs the checkpoint and not the training.
        """
        folder, storage = self.job.files, self._storage
        if checkpoint_step(folder) == self._step or not (files := read_checkpoint(folder)):
            return []
        if storage is not None:
            try:
                storage.write(files)
            except Exception as error:  # of whatever package the protocol has
                return [("noted", {"note": f"a checkpoint could not be kept in {storage.url}: {error}"})]
        self._step = step_of(files)
        return [("checkpoint", {"files": files})] if storage is None else []
