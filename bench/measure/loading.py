"""Speed of a training with the loading of its clips, and the part of its time for which the step waits for them.

On a CPU a wait is the time that the next batch takes to come. A GPU works off what it was given while the host waits:
there only the time counts in which it had nothing to do, between two events, one recorded when the host began to wait
and one when the batch had come.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch

Batch = TypeVar("Batch")

_STARVED = 10.0  # percent


class Waits(Protocol):
    """A stopwatch for waits."""

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def take(self) -> float:
        """Seconds of the waits since the last call, which all lie in the past for the device too."""


class HostWaits:
    """Waits by the host's clock."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since = 0.0

    def begin(self) -> None:
        self._since = time.perf_counter()

    def end(self) -> None:
        self._seconds += time.perf_counter() - self._since

    def take(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class EventWaits:
    """Waits by a GPU's own events: time in which it had nothing to do."""

    def __init__(self, device: torch.device) -> None:
        self._kind: Any = torch.mps.Event if device.type == "mps" else torch.cuda.Event
        self._pairs: deque[tuple[Any, Any]] = deque()
        self._open: Any = None

    def _now(self) -> Any:
        event = self._kind(enable_timing=True)
        event.record()
        return event

    def begin(self) -> None:
        self._open = self._now()

    def end(self) -> None:
        if self._open is not None:
            self._pairs.append((self._open, self._now()))
            self._open = None

    def take(self) -> float:
        seconds = 0.0
        while self._pairs:
            begun, ended = self._pairs.popleft()
            ended.synchronize()
            seconds += begun.elapsed_time(ended) / 1e3
        return seconds


class Loading:
    """Rates and waits of a training, an interval of its log after the other. The first is left out: it warms up.

    Args:
        device: that trains.
        waits: measures the waits; by default as the device needs it.
    """

    def __init__(self, device: torch.device, waits: Waits | None = None) -> None:
        self._waits = waits or (HostWaits() if device.type == "cpu" else EventWaits(device))
        self._rates: list[float] = []
        self._waited: list[float] = []
        self._seconds: list[float] = []

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of an epoch; the time that each takes to come counts as a wait."""
        following = iter(batches)
        while True:
            self._waits.begin()
            try:
                batch = next(following)
            except StopIteration:
                return
            self._waits.end()
            yield batch
            del batch  # not held while the next one is made

    def interval(self, clips_per_s: float, seconds: float) -> float:
        """Take note of an interval; returns the percent of it that was waited.

        Args:
            clips_per_s: of the training in it.
            seconds: its length. All that the device was given in it is done.
        """
        waited = self._waits.take()
        self._rates.append(clips_per_s)
        self._waited.append(waited)
        self._seconds.append(seconds)
        return _percent(waited, seconds)

    def state_dict(self) -> dict[str, list[float]]:
        return {"rates": self._rates, "waited": self._waited, "seconds": self._seconds}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self._rates, self._waited, self._seconds = list(state["rates"]), list(state["waited"]), list(state["seconds"])

    @property
    def clips_per_s(self) -> float | None:
        """Median over the intervals; None where there was no second one."""
        return statistics.median(self._rates[1:]) if len(self._rates) > 1 else None

    @property
    def wait(self) -> float | None:
        """Percent of the intervals' time that was waited; None where there was no second one."""
        return _percent(sum(self._waited[1:]), sum(self._seconds[1:])) if len(self._rates) > 1 else None

    def footnotes(self) -> tuple[str, ...]:
        """Return advice where the step waited for more than a tenth of the time."""
        if (wait := self.wait) is None or wait <= _STARVED:
            return ()
        return (
            f"training waited for its clips {wait:.0f} % of the time: more --loader-workers decode more at once, "
            "--cache ram or disk (`bench data prepare`) decodes each video once",
        )


def _percent(part: float, whole: float) -> float:
    return min(100.0, 100 * part / whole) if whole > 0 else 0.0
