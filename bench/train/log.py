"""A cell's log.jsonl: a line an interval, readable while the cell runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType


class Log:
    """Appends JSON lines; a new training starts the file anew."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)  # a line at a time reaches the disk whole
        self._begun = time.perf_counter()

    def write(self, values: dict[str, float]) -> None:
        """One line: the values, rounded to six significant digits, and `seconds` since the start."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        self._file.write(json.dumps({"seconds": round(time.perf_counter() - self._begun, 3), **rounded}) + "\n")

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
