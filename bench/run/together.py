"""Cells that train together: one process, one backbone, one pass over the videos, one forward pass a batch.

Each cell runs the code that it runs alone, in a thread of its own, and one thread runs at a time. A cell waits where it
asks for its next batch. When all of them wait, the earliest request is answered, for all cells that ask for that very
batch; a cell that resumes from an earlier step so catches up with the others. Generators of random numbers and modes of
the process are set back whenever a cell goes on, so that it computes to the bit what it computes alone.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from backbones.base import Backbone
from backbones.kernels.switch import using
from backbones.weights import digest
from bench.measure.loading import Loading
from bench.measure.result import Measured
from bench.run.build import image_model
from bench.run.cell import Execution
from bench.run.context import WorkerContext
from bench.run.loaders import Loaders
from bench.run.repeatable import as_repeatable_as_possible
from bench.run.result import Attempt, Counts, Metrics, Result, Training
from bench.run.shared_batches import START, BatchSource, Delivery, Request, SharedLoaders
from bench.run.sharing import pass_key
from bench.spec import Cell
from bench.train import generators
from bench.train.shared_pass import SharedPass


@dataclass(frozen=True)
class Member:
    """One of the cells that train together.

    Attributes:
        cell: what is done.
        folder: of the cell, there already.
        measured: its measurements, made before; made here where they are None and the cell has that stage.
    """

    cell: Cell
    folder: Path
    measured: Measured | None = None


def execute_together(
    members: Sequence[Member], context: WorkerContext, report: Callable[[Cell, dict[str, Any]], None]
) -> Iterator[tuple[Cell, Result | Exception]]:
    """Run the stages of cells of one `pass_key`, and write their files, all but result.json.

    Args:
        members: at least one.
        context: what the worker keeps. Of a single process: cells on several ranks train by themselves.
        report: gets a cell and its progress, see `bench.run.cell.execute`. What it raises ends that cell.

    Yields:
        A cell as it ends, and its result; or what it raised, see `bench.run.cell.execute`: no other cell ends with it.
        Preempted is among these: where `context.stopping` is set each cell writes its checkpoint and ends.

    Raises:
        ValueError: the cells cannot train together.
    """
    keys = {pass_key(member.cell) for member in members}
    if len(keys) != 1 or None in keys:
        raise ValueError("the cells have no forward pass in common")
    if not context.ranks.alone:
        raise ValueError("cells that train together do so in one process")
    with ExitStack() as cleanup, using(members[0].cell.kernels):
        group = _Group(members, replace(context, cleanup=cleanup), report)
        cleanup.callback(group.close)
        yield from group.run()


class _Group:
    """State that cells that train together have in common, and whose turn it is."""

    def __init__(
        self, members: Sequence[Member], context: WorkerContext, report: Callable[[Cell, dict[str, Any]], None]
    ) -> None:
        self.context = context
        self.report = report
        self.size = len(members)
        self.threads = [_Thread(self, member) for member in members]
        self._image: tuple[Backbone, str, dict[str, Any]] | None = None
        self._pass: SharedPass | None = None
        self._source: BatchSource | None = None
        self.counts: dict[str, tuple[Counts, list[str]]] = {}  # and notes on them, by the model's key

    def run(self) -> Iterator[tuple[Cell, Result | Exception]]:
        """Let the cells go on in turns until all have ended; those that end at once in the order of the members."""
        turns: list[tuple[_Thread, Delivery | BaseException | None]] = [(each, None) for each in self.threads]
        while turns:
            for thread, answer in turns:
                thread.go_on(answer)
                if thread.outcome is not None:
                    yield thread.member.cell, thread.outcome
            waiting = [thread for thread in self.threads if thread.outcome is None]
            turns = self._answered(waiting) if waiting else []

    def _answered(self, waiting: Sequence[_Thread]) -> list[tuple[_Thread, Delivery | BaseException | None]]:
        """The cells that go on, with the answer to their request."""
        first = min((thread.request for thread in waiting), key=lambda request: request.place)
        asking = [thread for thread in waiting if thread.request.content == first.content]
        if self._pass is not None:
            self._pass.forget()
            self._pass.read(name for thread in waiting for name in thread.reads)
        if first == START:
            return [(thread, None) for thread in asking]
        assert self._source is not None
        try:
            answer: Delivery | BaseException = self._source.read(first)
        except Exception as error:  # of the data, not of a cell: all that asked have met it
            answer = error
        return [(thread, answer) for thread in asking]

    def image_model(self, cell: Cell) -> tuple[Backbone, str]:
        """The backbone and the hash of its weights, loaded once; generators stand as after loading it."""
        if self._image is None:
            backbone = image_model(cell)
            self._image = backbone, digest(backbone), generators.states(self.context.device)
        backbone, weights, after = self._image
        generators.restore(self.context.device, after)
        return backbone, weights

    def shared_pass(self, backbone: Backbone) -> SharedPass:
        if self._pass is None:
            self._pass = SharedPass(backbone, self.context.device)
        return self._pass

    @property
    def gave_up(self) -> bool:
        return self._pass is not None and self._pass.gave_up

    def open_source(self, execution: Execution) -> None:
        """Open the loaders that all cells read from, where no cell did before."""
        if self._source is None:
            image, cell = execution.model.backbone, execution.cell
            self._source = BatchSource(Loaders(cell, execution.dataset, image.input_size, image.mean, self.context))

    def mode(self) -> _Mode:
        return _Mode.now(self.context.device, self._image[0] if self._image else None)

    def set_mode(self, mode: _Mode) -> None:
        mode.set(self.context.device, self._image[0] if self._image else None)

    def close(self) -> None:
        """End the threads that are left, and the reading."""
        for thread in self.threads:
            thread.end()
        if self._source is not None:
            self._source.close()


@dataclass(frozen=True)
class _Mode:
    """State of the process that a cell's numbers may depend on."""

    generators: dict[str, Any]
    deterministic: bool
    warns_only: bool
    training: bool

    @staticmethod
    def now(device: torch.device, backbone: Backbone | None) -> _Mode:
        return _Mode(
            generators.states(device),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            backbone is not None and backbone.training,
        )

    def set(self, device: torch.device, backbone: Backbone | None) -> None:
        generators.restore(device, self.generators)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warns_only)
        if backbone is not None and backbone.training != self.training:
            backbone.train(self.training)


class _Ended(BaseException):
    """Ends a thread whose cell is not to go on; no cell's own code takes it for an error of its own."""


class _Thread:
    """The thread of one cell. It runs while `go_on` waits for it, and at no other time.

    Attributes:
        request: what the cell waits for.
        reads: names of the frozen backbone's states that its model reads.
        outcome: its result or its error; None before its end.
    """

    def __init__(self, group: _Group, member: Member) -> None:
        self.group = group
        self.member = member
        self.request = START
        self.reads: tuple[str, ...] = ()
        self.outcome: Result | Exception | None = None
        self._answer: Delivery | BaseException | None = None
        self._go, self._still = threading.Semaphore(0), threading.Event()
        self._computing = torch.get_num_threads()
        self._gpu = torch.cuda.current_device() if group.context.device.type == "cuda" else None
        self._thread = threading.Thread(target=self._run, name=f"bench-{member.cell.key}", daemon=True)

    def go_on(self, answer: Delivery | BaseException | None) -> None:
        """Let the cell go on with what it waits for, and return when it waits again or has ended."""
        self._answer = answer
        self._still.clear()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._still.wait()

    def end(self) -> None:
        """End the thread, wherever its cell is."""
        if self._thread.ident is None:
            return
        self._still.wait()  # whoever waited for it may have been interrupted
        while self.outcome is None:
            self.go_on(_Ended())
        self._thread.join()

    def ask(self, request: Request) -> Any:
        """Wait for the answer to a request; called by the cell."""
        self.request = request
        mode = self.group.mode()
        self._still.set()
        self._go.acquire()
        answer, self._answer = self._answer, None
        self.group.set_mode(mode)
        if isinstance(answer, BaseException):
            raise _own(answer)
        return answer

    def _run(self) -> None:
        try:
            torch.set_num_threads(self._computing)  # as many as in the thread that started this one
            if self._gpu is not None:
                torch.cuda.set_device(self._gpu)
            context = replace(self.group.context, cleanup=ExitStack(), unrepeatable="")
            with context.cleanup:
                self.outcome = as_repeatable_as_possible(context, lambda: _MemberExecution(self, context).result())
        except Exception as error:
            self.outcome = error
        except BaseException as error:
            self.outcome = RuntimeError(f"the cell was ended: {type(error).__name__}")
        finally:
            self.reads = ()
            self._still.set()


def _own(error: BaseException) -> BaseException:
    """An error for one more thread, with a traceback of its own."""
    try:
        found = copy.copy(error)
    except Exception:  # an error whose arguments are not those of its class
        return error
    found.__cause__ = error
    return found


class _MemberExecution(Execution):
    """The execution of a cell beside others."""

    def __init__(self, thread: _Thread, context: WorkerContext) -> None:
        self._thread = thread
        self._group = group = thread.group
        self.together = group.size
        member = thread.member
        cell = member.cell
        super().__init__(cell, context, member.measured, member.folder, lambda event: group.report(cell, event))
        frozen = self.model.frozen_reads
        if frozen is None:
            raise ValueError(f"{cell.method} does not go on from the states of a frozen backbone")
        thread.reads = frozen
        shared = group.shared_pass(self.model.backbone)
        for each in (self.trainer, self.predictor):
            if each is not None:
                each.computation.shared = shared

    def _image_model(self) -> tuple[Backbone, str]:
        return self._group.image_model(self.cell)

    def _counted(self) -> Counts:
        counts, key = self._group.counts, self.cell.model_key()
        if key not in counts:
            before = len(self.notes)
            counts[key] = super()._counted(), self.notes[before:]
            del self.notes[before:]
        found, notes = counts[key]
        self.notes += notes
        return found

    def _watched_loading(self) -> Loading:
        self._waits = _ReadingWaits()
        return Loading(self.context.device, self._waits)

    def _opened_loaders(self) -> Loaders:
        self._group.open_source(self)
        image = self.model.backbone
        return SharedLoaders(
            self.cell, self.dataset, image.input_size, image.mean, self.context, self._thread.ask, self._waits.add
        )

    def run(self) -> tuple[Training | None, Metrics | None, tuple[Attempt, ...]]:
        self._thread.ask(START)  # no training begins before all models are built
        found = super().run()
        if self._group.gave_up:
            self.notes.append("memory had no room for what the cells share: each computed its own forward pass")
        return found


class _ReadingWaits:
    """Waits of a training as long as reading its batches took: the turns of other cells are not among them."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        self._seconds += seconds

    def begin(self) -> None:
        pass

    def end(self) -> None:
        pass

    def take(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds
