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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.data.cache.choose import CacheFolders, CacheSettings, choose
from bench.data.dataset import DATASETS
from bench.measure.machine import cores, exclusive_machine_lock
from bench.plugins import load as load_plugins
from bench.run.engines.base import Job, WorkerFailed
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

# "started", "progress", "noted" and "checkpoint" any number of times, then the kind of an event that ends a job
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


def work(common: list[Any], job: Job, checkpoint: Files, storage: str | None, stop: Any) -> Iterator[Message]:
    """Execute a job; the body of a Ray task that yields.

    Args:
        common: a reference to the run's NodeSetup, in a list, as Ray would fetch it for every job otherwise.
        checkpoint: that the driver has of a training.
        storage: URL of the cell's folder there.
        stop: actor whose `wait` answers when the jobs are to stop.
    """
    import ray

    stopped = stop.wait.remote()
    node = ray.get_runtime_context().get_node_id()
    yield "started", {"host": socket.gethostname(), "pid": os.getpid(), "node": node}
    try:
        if not _nodes:
            _nodes.append(_Node(ray.get(common[0])))
        kept = None if storage is None else Storage(storage)
        yield from _execute(_nodes[0], job, checkpoint, kept, stopped)
    except Exception as error:  # of the node: a job's own errors come as messages
        printed = error.printed if isinstance(error, WorkerFailed) else traceback.format_exc()
        line = f"{type(error).__name__} on {socket.gethostname()}: {' '.join(str(error).split())}"
        yield "failed", {"status": "failed", "error": line, "traceback": printed}


def _execute(node: _Node, job: Job, checkpoint: Files, storage: Storage | None, stopped: Any) -> Iterator[Message]:
    import ray

    if storage is not None:
        checkpoint = max(checkpoint, storage.read(), key=step_of)
    sent, next_time, asked = step_of(checkpoint), 0.0, False
    measuring = job.kind == "measure"
    threads = min(job.threads, cores()) if measuring else job.threads
    # nothing else is measured on this machine meanwhile; that nothing else runs is up to what the task asks Ray for
    alone = exclusive_machine_lock(lambda: None) if measuring else contextlib.nullcontext()
    with alone, node.engine() as engine, tempfile.TemporaryDirectory(prefix="cell-", dir=engine.folder) as made:
        folder = Path(made)
        write_files(folder, checkpoint)
        engine.submit(replace(job, folder=folder, threads=threads, cache=node.cache))
        while True:
            if not asked and ray.wait([stopped], timeout=0)[0]:
                engine.preempt()
                asked = True
            for event in engine.events(_TICK):
                if event.kind == "progress":
                    yield "progress", dict(event.values)
                    continue
                if event.kind == "preempted":
                    for message in _sent(folder, storage, sent)[0]:
                        yield message
                names = (LOG, PREDICTIONS, ADAPTER, SKIPPED) if event.kind == "trained" else (LOG,)
                yield event.kind, {**event.values, "files": read_files(folder, *names)}
                return
            if not measuring and time.monotonic() >= next_time:
                begun = time.monotonic()
                messages, sent = _sent(folder, storage, sent)
                for message in messages:  # not `yield from`: Ray sends to the generator, which a list cannot take
                    yield message
                next_time = time.monotonic() + (time.monotonic() - begun) / _SHARE


def _sent(folder: Path, storage: Storage | None, before: int) -> tuple[list[Message], int]:
    """Send the checkpoint, where its step is another one than the one sent before; the messages to send, and its step.

    A storage that fails costs the checkpoint and not the training.
    """
    if checkpoint_step(folder) == before or not (files := read_checkpoint(folder)):
        return [], before
    if storage is None:
        return [("checkpoint", {"files": files})], step_of(files)
    try:
        storage.write(files)
    except Exception as error:  # of whatever package the protocol has
        return [("noted", {"note": f"a checkpoint could not be kept in {storage.url}: {error}"})], before
    return [], step_of(files)
