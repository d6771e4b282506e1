"""A run as plain lines, for a log file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO

from bench.cli.progress import StageTime
from bench.cli.time_left import RunTimeLeft
from bench.run.result import Result
from bench.spec import Cell
from bench.text import counted, indented, one_line, visible

_QUIET = 30.0  # seconds between two lines on the same thing
_QUIET_LEFT = 60.0  # seconds between two lines on the time left


class PlainListener:
    """One line for each thing that begins or ends, and now and then one on what goes on and on the time left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._left = RunTimeLeft()
        self._preparing = StageTime()
        self._said: dict[str, float] = {}
        self._said_left = -_QUIET_LEFT

    def __enter__(self) -> PlainListener:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _say(self, text: str) -> None:
        self._stream.write(f"{time.strftime('%H:%M:%S')} {indented(visible(text), 9)}\n")
        self._stream.flush()

    def _due(self, topic: str) -> bool:
        now = time.monotonic()
        if now - self._said.get(topic, -_QUIET) < _QUIET:
            return False
        self._said[topic] = now
        return True

    def _say_left(self) -> None:
        now = time.monotonic()
        if now - self._said_left >= _QUIET_LEFT and (sentence := self._left.sentence):
            self._said_left = now
            self._say(sentence)

    def preparing(self, what: str, done: int, total: int) -> None:
        left = self._preparing(what, done, total)
        if done == total or self._due(what):
            self._say(f"preparing {what}: {done:,} of {total:,}{', ' * bool(left)}{left}")

    def noted(self, note: str) -> None:
        self._say(note)

    def begun(self, cells: Sequence[Cell], skipped: int, workers: int) -> None:
        self._left.begun(cells, workers)
        before = f", {skipped:,} done before" if skipped else ""
        self._say(f"{counted(len(cells), 'cell')} to run{before}; {counted(workers, 'worker')}")

    def measuring(self, cell: Cell, index: int, total: int) -> None:
        self._left.measuring(index, total)
        self._say(f"measuring {index:,} of {total:,}: {cell.backbone} {cell.strategy}")
        self._say_left()

    def expected(self, cell: Cell, seconds: float) -> None:
        self._left.expected(cell, seconds)

    def progress(self, cell: Cell, event: dict[str, Any]) -> None:
        self._left.progress(cell, event)
        if event["stage"] == "starting":
            self._said[cell.key] = time.monotonic()
            self._say(f"started {cell.label}")
        elif self._due(cell.key):
            loss = f", loss {event['loss']:.3f}, {event['clips_per_s']:.0f} clips/s" if "loss" in event else ""
            self._say(f"{event['stage']} {cell.label}: {event['done']:.0%}{loss}")
        self._say_left()

    def ended(self, result: Result) -> None:
        self._left.finished(result)
        self._said.pop(result.cell.key, None)
        if result.metrics is not None:
            outcome = f"top-1 {result.metrics.top1:.1f} %, {sum(result.seconds.values()):.0f} s"
        else:
            outcome = one_line(str(result.error))
        which = f"{self._left.ended:,} of {self._left.total:,}"
        self._say(f"{result.status} {which}: {result.cell.label}: {outcome}")
        self._say_left()

    def waiting(self, what: str) -> None:
        self._say(f"waiting for {what}")
