"""Plugin: in the first process of a Slurm job each step takes SLOW_STEP seconds more, for a test to stop it in time."""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import Any

from tests.bench.plugins import hasty, small  # noqa: F401  # quick measurements, the data set

_seconds = float(os.environ.get("SLOW_STEP", 0))
_first = "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_RESTART_COUNT", 0)) == 0

if _seconds and _first and multiprocessing.parent_process() is not None:
    from bench.train.trainer import Trainer

    _step = Trainer.step

    def _slowly(self: Trainer, *batch: Any) -> Any:
        time.sleep(_seconds)
        return _step(self, *batch)

    Trainer.step = _slowly  # type: ignore[method-assign]
