"""A training's log, read while it grows."""

from __future__ import annotations

import json
from pathlib import Path


class LogReader:
    """Lines of a log, each given once.

    A training that goes on from a checkpoint cuts off what the log has beyond it and writes those steps again. The
    line that was given last is then not in its place any more, and all lines are given anew.

    Args:
        file: log.jsonl, there already or not.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._position = 0  # in bytes, behind the last whole line that was given
        self._last = b""  # that line
        self._step = 0

    def read(self) -> tuple[bool, list[tuple[int, dict[str, float]]]]:
        """Return whether the log was cut off since, and the whole lines that are new, with the step of each.

        A line that has no step, such as a validation's, has that of the line before.
        """
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._position - len(self._last))
                cut = stream.read(len(self._last)) != self._last
                if cut:
                    self._position, self._step = 0, 0
                stream.seek(self._position)
                *lines, _ = stream.read().split(b"\n")
        except OSError:  # not there yet, or a file system that comes and goes
            return False, []
        self._position += sum(len(line) + 1 for line in lines)
        self._last = lines[-1] + b"\n" if lines else b"" if cut else self._last
        return cut, [found for line in lines if (found := self._parsed(line)) is not None]

    def _parsed(self, line: bytes) -> tuple[int, dict[str, float]] | None:
        """The step and the numbers of a line; None of one that is damaged."""
        try:
            values = json.loads(line)
            self._step = int(values.pop("step", self._step))
        except (ValueError, TypeError, AttributeError):
            return None
        return self._step, {name: value for name, value in values.items() if isinstance(value, int | float)}
