"""A tuned run whose trainings a test holds by a file, and what must come of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.run.status import CellStatus, status
from bench.run.store import LOG, Run
from bench.tune.record import records
from tests.bench.run.test_tensorboard import logged, read

ROOT = Path(__file__).parents[3]
TRIALS = 3
PLUGIN = """
import time
from pathlib import Path

from bench.train.trainer import Trainer

_step, _here = Trainer.step, Path(__file__).parent


def _held(self, *batch):
    while (_here / "held").exists():
        time.sleep(0.1)
    return _step(self, *batch)


Trainer.step = _held
"""


def command(folder: Path, *more: object) -> tuple[object, ...]:
    """Return a command whose run is in `folder`. Its trainings wait while a file `held` is there beside it."""
    (plugin := folder / "held.py").write_text(PLUGIN)
    return (
        *("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--dataset", "small", "--frames", "4"),
        *("--batch-size", "8", "--device", "cpu", "--plugin", ROOT / "tests" / "slurm" / "slow.py", "--no-order-test"),
        *("--plugin", plugin, "--tune", TRIALS, "--tune-space", "weight_decay=fixed", "--track", "tensorboard"),
        *("--out", folder / "run", *more),
    )


def cells_of(run: Path, trials: bool) -> list[CellStatus]:
    """The states of a run's trials or of the others of its cells, once it is there."""
    return [cell for cell in status(Run(run)) if cell.trial == trials] if (run / "run.json").exists() else []


def check_all(run: Path, seeds: int) -> None:
    """Check the choice, the results of the table and that TensorBoard's files have the numbers of every log."""
    found = Run(run)
    trials, results = found.trials(), found.results()
    assert [result.status for result in (*trials, *results)] == ["done"] * (TRIALS + seeds)
    (record,) = records(found)
    accuracies = [trial.metrics.top1 for trial in trials if trial.metrics]
    assert record.tuning is not None and record.tuning.chosen == accuracies.index(max(accuracies))
    for result in results:
        assert result.cell.tuning == record.tuning == result.provenance.tuning
        assert result.cell.recipe.head_lr == trials[record.tuning.chosen].cell.recipe.head_lr
    for result in (*trials, *results):
        lines = [json.loads(text) for text in (found.cell_folder(result.cell) / LOG).read_text().splitlines()]
        scalars, parameters = read(run / "tensorboard" / result.cell.folder)
        assert parameters["cell"] == result.cell.key
        for name, rows in logged(lines).items():
            assert scalars[name] == rows, name
        assert result.metrics is not None
        ((_, top1),) = scalars["top1"]
        assert top1 == pytest.approx(result.metrics.top1, rel=1e-6)
    assert {folder.name for folder in (run / "tensorboard").iterdir()} == {
        each.cell.folder for each in (*trials, *results)
    }
