"""A run as plain lines, for a log file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO

from bench.result import Result
from bench.spec import Cell

_QUIET = 30.0  # seconds between two lines on the same thing


class PlainListener:
    """One line for each thing that begins or ends, and now and then one on what goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._total = 0
        self._ended = 0
        self._said: dict[str, float] = {}

    def __enter__(self) -> PlainListener:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _say(self, line: str) -> None:
        self._stream.write(f"{time.strftime('%H:%M:%S')} {line}\n")
        self._stream.flush()

    def _due(self, topic: str) -> bool:
        now = time.monotonic()
        if now - self._said.get(topic, -_QUIET) < _QUIET:
            return False
        self._said[topic] = now
        return True

    def preparing(self, what: str, done: int, total: int) -> None:
        if done == total or self._due(what):
            self._say(f"preparing {what}: {done} of {total}")

    def noted(self, note: str) -> None:
        self._say(note)

    def begun(self, cells: Sequence[Cell], skipped: int, workers: int) -> None:
        self._total = len(cells)
        before = f", {skipped} done before" if skipped else ""
        self._say(f"{len(cells)} cells to run{before}; {workers} worker{'s' if workers > 1 else ''}")

    def measuring(self, cell: Cell, index: int, total: int) -> None:
        self._say(f"measuring {index} of {total}: {cell.backbone} {cell.strategy}")

    def progress(self, cell: Cell, event: dict[str, Any]) -> None:
        if event["stage"] == "starting":
            self._said[cell.key] = time.monotonic()
            self._say(f"started {cell.label}")
        elif self._due(cell.key):
            loss = f", loss {event['loss']:.3f}, {event['clips_per_s']:.0f} clips/s" if "loss" in event else ""
            self._say(f"{event['stage']} {cell.label}: {event['done']:.0%}{loss}")

    def ended(self, result: Result) -> None:
        self._ended += 1
        self._said.pop(result.cell.key, None)
        if result.metrics is not None:
            outcome = f"top-1 {result.metrics.top1:.1f} %, {sum(result.seconds.values()):.0f} s"
        else:
            outcome = str(result.error)
        self._say(f"{result.status} {self._ended} of {self._total}: {result.cell.label}: {outcome}")

    def waiting(self, what: str) -> None:
        self._say(f"waiting for {what}")
