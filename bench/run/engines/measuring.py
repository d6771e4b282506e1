"""The phase of a run before its trainings: each model is measured once, one after the other, by the run's engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

from bench.data.cache import FrameCache
from bench.measure.machine import cores, exclusive_machine_lock
from bench.measure.result import Measured
from bench.run.engines.base import Engine, Event, Job
from bench.run.events import ExpectedTime, Listener
from bench.run.store import Run
from bench.spec import Cell


class ModelMeasurements:
    """Measurements of the models of a run's cells, those of before among them.

    Args:
        run: keeps them.
        engine: makes them.
        device: name of the device that measurements of before must be of.
        cache: of decoded frames.
        listener: is told what is measured, and how long cells are expected to take.
        look: called from time to time; may raise KeyboardInterrupt.

    Attributes:
        failures: how it ended for models that could not be measured, by `Cell.model_key`.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        device: str,
        cache: FrameCache,
        listener: Listener,
        look: Callable[[], None],
    ) -> None:
        self._run, self._engine, self._device, self._cache = run, engine, device, cache
        self._listener, self._look = listener, look
        self._known: dict[str, Measured] = {}
        self.failures: dict[str, Event] = {}

    def of(self, cell: Cell) -> Measured:
        """Return the measurements of a cell's model. Raises KeyError where it has none."""
        return self._known[cell.model_key()]

    def failure(self, cell: Cell) -> Event | None:
        """Return how measuring a cell's model failed; None where it did not."""
        return self.failures.get(cell.model_key())

    def make(self, cells: Iterable[Cell], ahead: Mapping[Cell, int]) -> dict[Cell, float]:
        """Measure the models that have no measurements yet, and tell how long cells will take.

        Args:
            cells: whose models are measured.
            ahead: cells whose times are told, with the number of cells that each shares its forward pass with, itself
                among them.

        Returns:
            The seconds that those of `ahead` are expected to take, as far as that can be told.
        """
        durations: dict[Cell, float] = {}
        models: dict[str, list[Cell]] = {}
        for cell in cells:
            models.setdefault(cell.model_key(), []).append(cell)
        expected = ExpectedTime()
        for index, (key, alike) in enumerate(models.items(), start=1):
            cell = alike[0]
            if (known := self._run.measured(cell, self._device)) is None:
                self._listener.measuring(cell, index, len(models))
                with self._alone():
                    known = self._run.measured(cell, self._device)  # another run may have measured it while we waited
                    if known is None:
                        event = self._measure(cell)
                        if event.kind != "measured":
                            self.failures[key] = event
                            continue
                        known = event.values["value"]
                        with contextlib.suppress(OSError):  # a full disk: whether the result fits shows later
                            self._run.write_measured(cell, known)
            self._known[key] = known
            for cell in alike:
                if cell in ahead and (seconds := expected(cell, known, ahead[cell])) is not None:
                    durations[cell] = seconds
                    self._listener.expected(cell, seconds)
        return durations

    def _alone(self) -> AbstractContextManager[None]:
        """The lock of the machine that measures, where that is this one."""
        if not getattr(self._engine, "measures_here", True):
            return contextlib.nullcontext()
        return exclusive_machine_lock(lambda: self._listener.waiting("another run's measurements"), self._look)

    def _measure(self, cell: Cell) -> Event:
        # all the cores: nothing else runs
        self._engine.submit(Job("measure", cell, self._run.cell_folder(cell), cores(), self._cache))
        while True:
            for event in self._engine.events(timeout=1.0):
                if event.job.cell == cell and event.kind != "progress":
                    if event.kind == "failed":
                        self._look()  # for what may have ended the worker as well
                    return event
            self._look()
