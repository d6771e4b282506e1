"""Time from the kill of a training to its first step again: the same command given at once, on this machine.

    python -m benchmarks.resume --processes 1,2 --out results/resume-cpu.csv

`bench run` trains one cell, and all its processes are killed (SIGKILL) once it has a checkpoint. The same command is
started at once. Seconds since the kill: until the process that trains has begun with the cell, has built its model, has
read its checkpoint, and has done a step. Beside them, the steps since the checkpoint are lost and done again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.record import provenance, write_csv

ROOT = Path(__file__).resolve().parent.parent
MARKED = """
import os, time
from bench.data.dataset import DATASETS, register_dataset
from bench.run.cell import Execution
from bench.run.training import ResumableTraining
from bench.train.checkpoint import CheckpointFolder
from bench.train.trainer import Trainer


@register_dataset("short")
class Short(DATASETS.get("motion")):
    name = "short"
    recipes = {"short": {"recipe": {"warmup_epochs": 0.0}}}

    def __init__(self, source=None):
        super().__init__(source, train=4, val=1, test=1)


def mark(cls, name, before="", after=""):
    call = getattr(cls, name)

    def marked(self, *arguments, **named):
        tell(before)
        found = call(self, *arguments, **named)
        tell(after)
        return found

    setattr(cls, name, marked)


def tell(what):
    if what and os.environ.get("RANK", "0") == "0":
        with open(os.environ["MARKS"], "a") as file:
            print(what, time.time(), file=file)


mark(Execution, "__init__", "begun")
mark(ResumableTraining, "_resume", "built", "read")
mark(CheckpointFolder, "write", after="kept")
mark(Trainer, "step", after="step")
"""
_AFTER = 3  # steps before the kill at least


def marks(file: Path) -> list[tuple[str, float]]:
    """Those of the cell, without its model's measurement, in which steps are taken too."""
    lines = file.read_text().splitlines() if file.exists() else []
    found = [(what, float(when)) for what, when in map(str.split, lines)]
    return found[[what for what, _ in [*found, ("begun", 0.0)]].index("begun") :]


def killed(process: subprocess.Popen[bytes]) -> float:
    """Kill a command with all that it has started; when that was."""
    everything = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    when = time.time()
    for one in everything:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    process.wait()
    return when


def until(file: Path, wanted: tuple[str, ...], process: subprocess.Popen[bytes]) -> None:
    """Wait for marks, of each as many as are wanted."""
    while not Counter(wanted) <= Counter(what for what, _ in marks(file)):
        if process.poll() is not None:
            raise RuntimeError(f"the command ended with {process.returncode}")
        time.sleep(0.02)


def measured(backbone: str, processes: int, rounds: int, folder: Path) -> dict[str, Any]:
    """One training, killed again and again."""
    (plugin := folder / "marked.py").write_text(MARKED)
    asked = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "bench.cli.main",
        "run",
        "--backbones",
        backbone,
        "--dataset",
        "short",
    ]
    asked += ["--strategies", "joint", "--frames", "4", "--batch-size", "2", "--epochs", "1000", "--device", "cpu"]
    asked += ["--plugin", str(plugin), "--processes-per-cell", str(processes), "--checkpoint-minutes", "0.05"]
    asked += ["--no-order-test", "--out", str(folder / "run")]
    found: list[dict[str, float]] = []

    def start(number: int) -> tuple[subprocess.Popen[bytes], Path]:
        file = folder / f"marks-{number}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MARKS": str(file)}
        with (folder / "output.txt").open("ab") as output:
            return subprocess.Popen(asked, env=environment, cwd=folder, stdout=output, stderr=output), file

    process, file = start(0)
    try:
        for number in range(1, rounds + 1):
            until(file, ("kept", *["step"] * _AFTER), process)
            when = killed(process)
            process, file = start(number)
            until(file, ("step",), process)
            first: dict[str, float] = {}
            for what, moment in marks(file):
                first.setdefault(what, moment)
            found.append({f"{what}_s": first[what] - when for what in ("begun", "built", "read", "step")})
    finally:
        killed(process)
    steps = [each["step_s"] for each in found]
    medians = {name: statistics.median(each[name] for each in found) for name in found[0]}
    return {**medians, "step_s_least": min(steps), "step_s_most": max(steps)}


def main(
    backbones: Annotated[str, typer.Option(help="Comma list.")] = "vit:tiny@none,vit:vit_base_patch16_224@none",
    processes: Annotated[str, typer.Option(help="Comma list of processes a cell.")] = "1,2",
    rounds: Annotated[int, typer.Option(help="Kills of each.")] = 3,
    out: Annotated[Path | None, typer.Option(help="CSV file.")] = None,
) -> None:
    """Measure and print."""
    rows: list[dict[str, Any]] = []
    about = provenance("cpu")
    for backbone in backbones.split(","):
        for number in map(int, processes.split(",")):
            load = os.getloadavg()[0]
            with tempfile.TemporaryDirectory(prefix="aim-bench-resume-") as folder:
                found = measured(backbone, number, rounds, Path(folder))
            row = {"backbone": backbone, "strategy": "joint", "processes": number, **found}
            print("  ".join(f"{name} {v:.3g}" if isinstance(v, float) else f"{name} {v}" for name, v in row.items()))
            rows.append({**row, "rounds": rounds, "load": load, **about})
            if out is not None:
                write_csv(out, rows)


if __name__ == "__main__":
    typer.run(main)
