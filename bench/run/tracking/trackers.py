"""accelerate's trackers, each started so that it is a run of its own for a cell, beside those of other cells."""

from __future__ import annotations

import functools
import json
import os
import secrets
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.run.columns import MEASURES, row
from bench.run.result import Result
from bench.spec import Cell

# several cells start at once, and libraries have states that all threads share
_starting = threading.Lock()
# of a row of results.csv: the numbers that are told when a cell is done
_AT_END = (*MEASURES, "train_clips_per_s_loaded", "adapter_mb", "evaluated", "listed", "wall_seconds")


def configuration(cell: Cell) -> dict[str, bool | int | float | str]:
    """The cell's canonical JSON as one mapping, `recipe.lr` for what is in another one, and its key as `cell`.

    Lists and nulls are JSON texts: not every tracker takes them.
    """
    return {"cell": cell.key, **_flattened(json.loads(cell.canonical()), "")}


def _flattened(values: dict[str, Any], prefix: str) -> dict[str, bool | int | float | str]:
    found: dict[str, bool | int | float | str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flattened(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return found


def final_numbers(result: Result) -> dict[str, float]:
    """Accuracies, counts, speeds and times of a cell that is done, by their columns in results.csv."""
    values = row(result)
    return {name: values[name] for name in _AT_END if values[name] is not None}


class CellTracker:
    """A tracker's run of one cell. Everything may raise whatever the tracker's library raises.

    Args:
        name: of the tracker.
        folder: of the run, below which TensorBoard and wandb have their files.
        cell: whose run it is.
        known: identity of the run of an earlier attempt, which goes on; empty where there is none.

    Attributes:
        identity: of the run, by which a later attempt finds it.
    """

    def __init__(self, name: str, folder: Path, cell: Cell, known: str = "") -> None:
        self._name, self._folder, self._cell = name, folder, cell
        with _starting:
            from accelerate.state import PartialState  # type: ignore[import-untyped]

            PartialState(cpu=True)  # without it accelerate's loggers raise; this process trains nothing
            self._tracker, self.identity = self._started(known)

    def _started(self, known: str) -> tuple[Any, str]:
        from accelerate import tracking  # type: ignore[import-untyped]

        cell, project, config = self._cell, self._folder.resolve().name, configuration(self._cell)
        tracker: Any
        if self._name == "tensorboard":
            # what an earlier attempt wrote is purged, and the whole log told anew: no step is there twice
            keep_writers_quiet()
            tracker = tracking.TensorBoardTracker(cell.folder, self._folder / "tensorboard", purge_step=0)
            tracker.start()
            _write_parameters(tracker.tracker, config)
            return tracker, cell.folder
        if self._name == "mlflow":
            about = {"run_id": known} if known else {"run_name": cell.folder}
            tracker = tracking.MLflowTracker(project, **about)
            tracker.start()
            tracker.store_init_configuration(config)
            return tracker, tracker.tracker.info.run_id
        # the configuration is given at once: the trackers' own way to store it is for one run a process
        if self._name == "wandb":
            wandb = import_module("wandb")  # which is not among the tools for development

            quiet = wandb.Settings(silent=True, console="off")  # and asks nobody for a key
            wandb.setup(settings=quiet)
            identity = known or secrets.token_hex(6)
            tracker = tracking.WandBTracker(
                os.environ.get("WANDB_PROJECT", project),
                id=identity,
                resume="allow",
                name=cell.folder,
                config=config,
                dir=os.environ.get("WANDB_DIR", str(self._folder)),
                reinit="create_new",
                settings=quiet,
            )
        else:
            identity = known or f"{cell.folder}-{secrets.token_hex(2)}"
            tracker = tracking.TrackioTracker(project, name=identity, resume="allow", config=config)
        tracker.start()
        return tracker, identity

    @property
    def tells_anew(self) -> bool:
        """Test that the log is told from its start in each attempt; other trackers cannot take a step back."""
        return self._name == "tensorboard"

    def log(self, values: dict[str, float], step: int) -> None:
        self._tracker.log(values, step=step)

    def finish(self) -> None:
        self._tracker.finish()


def _write_parameters(writer: Any, config: dict[str, bool | int | float | str]) -> None:
    """Store the configuration for TensorBoard's HPARAMS in the writer's own file: its `add_hparams`, which accelerate
    calls, makes another run of it.
    """
    from torch.utils.tensorboard.summary import hparams

    for summary in hparams(config, {}):
        writer.file_writer.add_summary(summary, 0)


@functools.cache
def keep_writers_quiet() -> None:
    """Let TensorBoard's writing threads print no traceback: what ends one, the next write raises, and is told then."""
    others = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard."):
            others(failed)

    threading.excepthook = hook
