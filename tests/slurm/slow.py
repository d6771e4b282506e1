"""Plugin: in the first process of a Slurm job each step takes a second, so that a test has time to stop it."""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import Any

from tests.bench.plugins import hasty, small  # noqa: F401  # quick measurements, the data set

if multiprocessing.parent_process() is not None and os.environ.get("SLURM_JOB_ID"):
    from bench.train.trainer import Trainer

    if int(os.environ.get("SLURM_RESTART_COUNT", 0)) == 0:
        _step = Trainer.step

        def _slowly(self: Trainer, *batch: Any) -> Any:
            time.sleep(1)
            return _step(self, *batch)

        Trainer.step = _slowly  # type: ignore[method-assign]
