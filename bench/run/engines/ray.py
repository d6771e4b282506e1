"""The engine of a Ray cluster: each job is a task of Ray's, placed again where its node dies. See `ray_node`.

Imports Ray when an engine starts: it is an extra, and not quick to import.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.data.cache import FrameCache
from bench.data.cache.choose import CacheSettings
from bench.data.decode_pool import reading
from bench.errors import UserError
from bench.files import reason
from bench.measure.placement import Placement, bf16_notes
from bench.run.engines.base import ENGINES, NOT_BEGUN, Event, Job, WorkerFailed, joined
from bench.run.engines.local import Setup
from bench.run.engines.ray_cluster import (
    ENVIRONMENT,
    address_of,
    connect,
    needs_of,
    nodes_of_cluster,
    too_much,
    why_unreachable,
    why_unusable,
)
from bench.run.engines.storage import Files, Storage, read_checkpoint, write_files
from bench.spec import Cell, Request
from bench.text import counted

_ARRIVAL = 1.0  # seconds that a message is waited for before the others have their turn
_LOSSES = 5  # times that a job is placed again after its node died
_LOOK = 2.0  # seconds between two looks at the nodes
_PATIENCE = 60.0  # seconds without any node on which a job fits, after which none is expected any more


class RayFactory:
    """Maker of the engine of a run."""

    def problems(self, request: Request) -> list[str]:
        """Return what a user must change before the run can start. Nothing is left behind."""
        found = []
        if request.storage is not None and (told := why_unusable(request.storage)):
            found.append(f"storage is {request.storage!r}: {told}")
        if importlib.util.find_spec("ray") is None:
            return [*found, "engine is 'ray': Ray is not installed; pip install 'aim-bench[ray]'"]
        address = address_of(request)
        if address is not None and (told := why_unreachable(address)):
            found.append(f"ray_address is {address!r}: {told}")
        return found

    def __call__(self, request: Request, placement: Placement, cells: Sequence[Cell], command: str) -> RayEngine:
        """Connect to the cluster, or start one on this machine.

        Raises:
            UserError: Ray does not start, or no node has what a cell takes.
        """
        os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
        opened = contextlib.ExitStack()
        try:
            connect(address_of(request), placement, opened)
            return RayEngine(request, placement, cells, command, opened)
        except BaseException:
            opened.close()
            raise


@dataclass(eq=False)
class _Placed:
    """A job that was given to Ray.

    Attributes:
        left: parts of it that have not ended, by their number.
        back: those of them that were stopped and are to be placed again.
        stream: of its messages.
        losses: nodes that died under it.
        host, node: that it runs on, once it does; the node by Ray's id.
        message: reference to one that is on its way here.
    """

    job: Job
    left: dict[int, Job] = field(default_factory=dict)
    back: set[int] = field(default_factory=set)
    stream: Any = None
    losses: int = 0
    host: str = ""
    node: str = ""
    message: Any = None

    def failed(self, status: str, error: str, traceback: str | None, *, apart: bool = True) -> Iterator[Event]:
        """The failure of all parts that are left; where there are several, each is to be tried `apart`."""
        values: dict[str, Any] = {"status": status, "error": error, "traceback": traceback}
        if self.job.beside and apart:
            values["apart"] = True
        for part in self.left.values():
            yield Event(part, "failed", values)


class RayEngine:
    """Engine of a cluster that this process is connected to; see `Engine`.

    Args:
        opened: closed with the engine.

    Attributes:
        measures_here: False: a node's machine is locked while it measures, not this one's.
        notes: sentences on nodes that died.
        trains_together: True unless several processes execute a cell.

    Raises:
        UserError: no node has what a cell takes.
    """

    measures_here = False

    def __init__(
        self,
        request: Request,
        placement: Placement,
        cells: Sequence[Cell],
        command: str,
        opened: contextlib.ExitStack,
    ) -> None:
        import ray

        from bench.run.engines.ray_node import NodeSetup, work

        self.notes: list[str] = []
        self._ray = ray
        self._opened = opened
        self._most = None if request.workers == "auto" else request.workers
        self._storage = request.storage
        self._nodes, self._looked, self._missing_since = nodes_of_cluster(), time.monotonic(), 0.0
        nodes, size = list(self._nodes.values()), request.processes_per_cell
        self.trains_together = size == 1
        self._needs_of = lambda cell: needs_of(cell, nodes, size)
        self._largest = max(map(self._needs_of, cells), key=lambda needs: (needs.gpus, needs.cpus))
        if not self._room():
            raise UserError([too_much(self._largest, nodes, size)])
        how = reading(request.loader_workers, self._largest.cpus // size, request.decode_timeout, request.strict)
        # Ray shows a task its own GPUs alone
        devices = tuple(f"cuda:{rank}" if self._largest.gpus else placement.type for rank in range(size))
        setup = Setup(
            devices[0],
            tuple(request.plugins),
            how,
            command,
            Path(),
            bf16_notes(placement),
            request.checkpoint_minutes,
            devices if size > 1 else (),
        )
        alike = {(cell.dataset, cell.data, cell.backbone_name, cell.input_size, *cell.drawn_by): cell for cell in cells}
        asked = CacheSettings(request.cache, request.cache_limit, request.cache_format)
        self._common = ray.put(NodeSetup(setup, tuple(alike.values()), asked, _contents(request.plugins)))
        # the processes of a job see the GPUs that were given to the first one of their parent: it ends with its job
        self._task = ray.remote(max_calls=1)(work) if self._largest.gpus else ray.remote(work)
        self._own_node = ray.get_runtime_context().get_node_id()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(self._own_node, soft=True)
        stop = ray.remote(_Stop).options(num_cpus=0, max_concurrency=100_000, scheduling_strategy=here)
        self._stop = stop.remote()
        self._stopping = False
        self._placed: list[_Placed] = []
        self._ended: list[Event] = []  # to be told

    @property
    def slots(self) -> int:
        room = max(1, self._room())  # of a cluster whose nodes are all gone one may come back
        return room if self._most is None else min(room, self._most)

    def _room(self) -> int:
        return sum(self._largest.fit(node) for node in self._nodes.values())

    def submit(self, job: Job) -> None:
        self._place(_Placed(job))

    def _place(self, placed: _Placed) -> None:
        """Give a job to Ray, with the checkpoint that there is."""
        job = placed.job
        needs, checkpoints, storages = self._needs_of(job.cell), list[Files](), list[str | None]()
        if job.kind == "measure":
            # a whole node, the smallest that will do: what else Ray runs is elsewhere then
            whole = min((n for n in self._nodes.values() if needs.fit(n)), key=lambda n: n.cpus, default=needs)
            needs = replace(needs, cpus=max(needs.cpus, whole.cpus))
        else:
            checkpoints = [read_checkpoint(part.files) for part in job.parts]
            storages = [None if (kept := self._kept(part)) is None else kept.url for part in job.parts]
        sent = [replace(part, folder=Path(), threads=needs.cpus, cache=FrameCache()) for part in job.parts]
        placed.left, placed.back = dict(enumerate(job.parts)), set()
        placed.host, placed.node, placed.message = "", "", None
        others = f" and {counted(len(job.beside), 'other')}" if job.beside else ""
        placed.stream = self._task.options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            num_returns="streaming",
            max_retries=0,
            name=f"{job.kind} {job.cell.label}{others}",
        ).remote([self._common], joined(sent), checkpoints, storages, self._stop)
        self._placed.append(placed)

    def _kept(self, job: Job) -> Storage | None:
        """The storage of a cell's checkpoint: in a folder named after the run and the cell."""
        if self._storage is None:
            return None
        return Storage(self._storage).of(job.files.parent.parent.name, job.files.name)

    def events(self, timeout: float) -> Iterator[Event]:
        yield from self._look()
        ended, self._ended = self._ended, []
        yield from ended
        if ended:
            return
        if not self._placed:
            time.sleep(timeout)
            return
        awaited = {placed.message or placed.stream: placed for placed in self._placed}
        ready, _ = self._ray.wait(list(awaited), num_returns=1, timeout=timeout, fetch_local=False)
        if ready and len(awaited) > 1:
            ready, _ = self._ray.wait(list(awaited), num_returns=len(awaited), timeout=0, fetch_local=False)
        for one in ready:
            yield from self._heard(awaited[one])

    def _look(self) -> Iterator[Event]:
        """See which nodes there are, and place the jobs of those that died again.

        Raises:
            WorkerFailed: ours is gone, or none has been of use for a while.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        try:
            self._nodes, self._looked = nodes_of_cluster(), now
        except (self._ray.exceptions.RayError, RuntimeError, ConnectionError) as error:
            raise WorkerFailed("the Ray cluster does not answer any more", str(error)) from error
        if self._own_node not in self._nodes:  # Ray would wait for it for ever
            raise WorkerFailed("the node of this command has left the Ray cluster", "\n".join(self.notes))
        for placed in [placed for placed in self._placed if placed.node and placed.node not in self._nodes]:
            # its stream may never end: a message that lay on the node is waited for in vain
            self._end(placed)
            yield from self._lost(placed, self._ray.exceptions.RayError("the node died"))
        if self._room():
            self._missing_since = 0.0  # of none that is missing
            return
        self._missing_since = self._missing_since or now
        if now - self._missing_since > _PATIENCE:
            raise WorkerFailed("the Ray cluster has lost every node that a cell fits on", "\n".join(self.notes))

    def _heard(self, placed: _Placed) -> Iterator[Event]:
        """The events that the next message of a job means."""
        try:
            if placed.message is None:
                placed.message = next(placed.stream)
            if not self._ray.wait([placed.message], timeout=_ARRIVAL)[0]:
                return
            message, placed.message = placed.message, None
            kind, values = self._ray.get(message)
        except self._ray.exceptions.RayTaskError as error:  # of our own code, or of a node that does not have it
            self._placed.remove(placed)
            line = str(error.cause).strip().splitlines()[0] if str(error.cause).strip() else "no details"
            line = f"{type(error.cause).__name__}: {line[:300]}"
            yield from placed.failed("failed", line, str(error), apart=False)
            return
        except (StopIteration, self._ray.exceptions.RayError) as error:
            yield from self._lost(placed, error)
            return
        if kind == "started":
            placed.host, placed.node = values["host"], values["node"]
            told = {"host": values["host"], "pid": values["pid"], "id": f"{placed.node[:8]}:{values['pid']}"}
            for part in placed.left.values():
                yield Event(part, "progress", {"stage": "building", "done": 0.0, **told})
        elif kind == "noted":
            self._note(values["note"])
        elif kind == "lost":  # of the node itself, whatever the cell
            self._placed.remove(placed)
            yield from placed.failed(**values, apart=False)
        else:
            yield from self._told(placed, values.pop("part", 0), kind, values)

    def _told(self, placed: _Placed, number: int, kind: Any, values: dict[str, Any]) -> Iterator[Event]:
        """The events that a message on one part of a job means."""
        part = placed.left[number]
        try:
            write_files(part.files, values.pop("files", {}))
        except OSError as error:
            if kind == "checkpoint":
                self._note(f"a checkpoint of {part.cell.label} could not be written: {reason(error)}")
            else:
                kind = "failed"
                line = f"what came back of it cannot be written: {reason(error)}"
                values = {"status": "failed", "error": line, "traceback": None}
        event: Event | None = None
        if kind == "progress":
            event = Event(part, "progress", values)
        elif kind == "preempted" and not self._stopping:  # the node is being taken back
            placed.back.add(number)
        elif kind != "checkpoint":
            del placed.left[number]
            if kind == "trained" and (kept := self._kept(part)) is not None:
                with contextlib.suppress(Exception):  # of whatever package the protocol has: it is only not tidy
                    kept.clear()
            event = Event(part, kind, values)
        again: list[Event] = []
        if len(placed.left) == len(placed.back):  # before it is told: whoever hears of the end may listen no further
            self._placed.remove(placed)
            if placed.back:
                again = list(self._again(placed, f"{placed.host} was taken back"))
        if event is not None:
            yield event
        yield from again

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _lost(self, placed: _Placed, error: Exception) -> Iterator[Event]:
        """A job whose process is gone, with its node or without."""
        self._placed.remove(placed)
        where = placed.host or "a node"
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if self._stopping:
            yield from placed.failed("failed", line, str(error))
        elif isinstance(error, self._ray.exceptions.OutOfMemoryError):
            yield from placed.failed("oom", line, str(error))
        elif placed.losses >= _LOSSES:
            lost = f"lost {counted(placed.losses + 1, 'time')} with its node, the last time {where}: {line}"
            yield from placed.failed("failed", lost, str(error), apart=False)
        else:
            yield from self._again(placed, f"{where} died")

    def _again(self, placed: _Placed, what: str) -> Iterator[Event]:
        """Place what is left of a job again."""
        left = list(placed.left.values())
        placed.losses += 1
        cells = left[0].cell.label if len(left) == 1 else counted(len(left), "cell")
        self._note(f"{what} while it ran {cells}, which {'was' if len(left) == 1 else 'were'} placed again")
        self._looked = 0.0
        placed.job = joined(left)
        self._place(placed)
        for part in left:
            yield Event(part, "progress", {"stage": "queued", "done": 0.0})

    def cancel(self, cell: Cell) -> None:
        for placed in [each for each in self._placed if any(part.cell == cell for part in each.left.values())]:
            self._placed.remove(placed)
            self._end(placed)
            if others := [part for part in placed.left.values() if part.cell != cell]:
                self._place(_Placed(joined(others), losses=placed.losses))  # they go on from their checkpoints

    def _end(self, placed: _Placed) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError, TypeError, ValueError):
            self._ray.cancel(placed.stream, force=True)

    def preempt(self) -> None:
        self._stopping = True
        self._stop.stop.remote()
        for placed in [placed for placed in self._placed if not placed.host]:  # in Ray's queue
            self._placed.remove(placed)
            self._end(placed)
            told = {"error": NOT_BEGUN}
            self._ended += [Event(part, "preempted", told) for part in placed.left.values()]

    def close(self) -> None:
        for placed in self._placed:
            self._end(placed)
        self._placed.clear()
        self._opened.close()


class _Stop:
    """Actor that tells jobs to stop: their calls of `wait` are answered then, and no job needs to ask again."""

    def __init__(self) -> None:
        import asyncio

        self._stopped = asyncio.Event()

    async def wait(self) -> None:
        await self._stopped.wait()

    async def stop(self) -> None:
        self._stopped.set()


def _contents(plugins: Sequence[str]) -> Files:
    """The content of the plugins that are files."""
    return {name: Path(name).read_bytes() for name in plugins if name.endswith(".py") and Path(name).is_file()}


ENGINES.register("ray")(RayFactory())
