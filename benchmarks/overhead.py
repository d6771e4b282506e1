"""Cost of the harness itself over the number of cells: `bench run` on cells that cost next to nothing.

    python -m benchmarks.overhead --cells 10,100,1000 --out results/overhead-cpu.csv --plot
    python -m benchmarks.overhead --engine ray --cells 10,100,1000 --out ray.csv
    SLURM_CONF=... python -m benchmarks.overhead --engine slurm --jobs 10 --out slurm.csv

Each number of cells is run by the command line in a process of its own, with one worker, into a fresh folder; then
`bench report` renders the run (cells that differ in the seed alone: one row), also with as many rows as cells, the same
`bench run` finds all done, and `bench status` tells the cells' states. Seconds a cell are the wall time between the
lines that tell of ended cells, over the first and the last tenth of them: equal where the cost of a cell does not grow
with those before it. Processor seconds are those of the command's own process, the driver, from its first cell's end to
its last one's: what they divide into is the number of cells that it can keep up with. Memory is the resident set of the
process that was started, and the largest of those that it started, after the first cell, half of them and the last one.
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.run.store import PREDICTIONS, Run
from bench.spec import Matrix
from benchmarks.record import provenance, pyplot, save, write_csv

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "benchmarks" / "trivial.py"
_ENDED = re.compile(r"^[\d:]+ (done|failed|oom) [\d,]+ of [\d,]+: ")
_MIB = 2**20


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "bench.cli.main", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def config(folder: Path, cells: int, workers: int, engine: str, jobs: int) -> Path:
    """The matrix as a file: a list of 1,000 seeds does not belong into a command that each result repeats."""
    file = folder / f"{cells}.yaml"
    of_slurm = f"slurm: {{time: 600}}\ncells_per_job: {-(-cells // jobs)}\n" if engine == "slurm" else ""
    file.write_text(
        f"backbones: trivial\nstrategies: frozen\ndataset: trivial\nseeds: {list(range(cells))}\ndevice: cpu\n"
        f"plugin: {PLUGIN}\nworkers: {workers}\norder_test: false\ncache: ram\n"
        f"engine: {engine}\nout: {folder / f'run-{cells}'}\n{of_slurm}"
    )
    return file


def resident(process: psutil.Process) -> tuple[float, float]:
    """MiB of a process, and of the largest of those below it."""
    below = [0]
    for child in process.children(recursive=True):
        try:
            below.append(child.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return process.memory_info().rss / _MIB, max(below) / _MIB


def run(file: Path, cells: int) -> dict[str, Any]:
    """Run the matrix: seconds and memory over the cells. Raises RuntimeError where a cell was not done."""
    begun = time.perf_counter()
    ends: list[float] = []
    memory: dict[int, tuple[float, float]] = {}
    busy: list[float] = []
    looks = (1, (cells + 1) // 2, cells)
    printed = []
    # the command as a user starts it, whose memory is watched from outside
    with subprocess.Popen(
        command("run", "--config", file), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment(), cwd=ROOT,
    ) as process:  # fmt: skip
        watched = psutil.Process(process.pid)
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if _ENDED.match(line):
                ends.append(time.perf_counter())
                if len(ends) in looks:
                    memory[len(ends)] = resident(watched)
                    busy.append(sum(watched.cpu_times()[:2]))
    total = time.perf_counter() - begun
    if process.returncode or len(ends) != cells:
        raise RuntimeError(
            f"the run ended with {process.returncode}, {len(ends)} of {cells} cells:\n{''.join(printed)}"
        )
    tenth = max(1, (cells - 1) // 10)
    first, middle, last = (memory[look] for look in looks)
    return {
        "seconds": total,
        "cell_seconds": (ends[-1] - ends[0]) / (cells - 1),
        "first_tenth": (ends[tenth] - ends[0]) / tenth,
        "last_tenth": (ends[-1] - ends[-1 - tenth]) / tenth,
        "first_cell": ends[0] - begun,
        "parent_cpu_cell": (busy[-1] - busy[0]) / (cells - 1),
        "parent_mib_start": first[0],
        "parent_mib_middle": middle[0],
        "parent_mib_end": last[0],
        "worker_mib_start": first[1],
        "worker_mib_middle": middle[1],
        "worker_mib_end": last[1],
    }


def inside(folder: Path) -> float:
    """Median seconds that a cell spends in its worker, from its result: building, training, evaluating, writing."""
    found = [json.loads(file.read_text())["seconds"] for file in folder.glob("cells/*/result.json")]
    return statistics.median(sum(seconds.values()) for seconds in found)


def costs_of(name: str, *arguments: object, times: int = 3) -> dict[str, float]:
    """Median wall and CPU seconds of a command, the start of Python included, as columns called after `name`."""
    taken, worked = [], []
    for _ in range(times):
        begun, before = time.perf_counter(), _cpu_of_children()
        subprocess.run(command(*arguments), env=environment(), cwd=ROOT, check=True, capture_output=True)
        taken.append(time.perf_counter() - begun)
        worked.append(_cpu_of_children() - before)
    return {f"{name}_seconds": statistics.median(taken), f"{name}_cpu_seconds": statistics.median(worked)}


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def in_rows(folder: Path, found: Path) -> Path:
    """The run's results once more, each with a learning rate of its own, so that each is a row of the table."""
    copied = Run(folder)
    results = Run(found).results()
    recipes = [result.cell.recipe.model_copy(update={"lr": 1e-3 * (1 + i / 1024)}) for i, result in enumerate(results)]
    cells = [
        r.cell.model_copy(update={"recipe": recipe, "seed": 0}) for r, recipe in zip(results, recipes, strict=True)
    ]
    copied.open(Matrix(), cells, "a copy", {})
    for cell, result in zip(cells, results, strict=True):
        copied.put(result.model_copy(update={"cell": cell}))
        _copy_predictions(Run(found).cell_folder(result.cell), copied.cell_folder(cell))
    copied.write_csv()
    return folder


def measured(folder: Path, cells: int, workers: int, engine: str, jobs: int) -> dict[str, Any]:
    file = config(folder, cells, workers, engine, jobs)
    found = run(file, cells)
    # the commands on a finished run are the same whatever executed its cells
    others = commands(folder, file, cells) if engine == "local" else {"load": os.getloadavg()[2]}
    return {"cells": cells, **found, "worker_seconds": inside(folder / f"run-{cells}"), **others}


def copied(folder: Path, cells: int, found: Path) -> dict[str, Any]:
    """Return what commands take on a run of so many cells, whose results are copies of another run's first."""
    file = config(folder, cells, 1, "local")
    made, first = Run(folder / f"run-{cells}"), Run(found).results()[0]
    results = [first.model_copy(update={"cell": first.cell.model_copy(update={"seed": i})}) for i in range(cells)]
    made.open(Matrix(), [result.cell for result in results], "copies", {})
    begun = time.process_time()
    for result in results:
        made.put(result)
    put = (time.process_time() - begun) / cells
    for result in results:
        _copy_predictions(Run(found).cell_folder(first.cell), made.cell_folder(result.cell))
    return {"cells": cells, "copied": True, "put_cpu_seconds": put, **commands(folder, file, cells)}


def _copy_predictions(source: Path, target: Path) -> None:
    """Copy what `bench report` takes its intervals from."""
    shutil.copyfile(source / PREDICTIONS, target / PREDICTIONS)


def commands(folder: Path, file: Path, cells: int) -> dict[str, float]:
    """Costs of the commands on a finished run."""
    run_folder = folder / f"run-{cells}"
    return {
        **costs_of("report", "report", run_folder),
        **costs_of("report_rows", "report", in_rows(folder / f"rows-{cells}", run_folder)),
        **costs_of("again", "run", "--config", file),
        **costs_of("status", "status", run_folder),
        "load": os.getloadavg()[2],
    }


def main(
    cells: Annotated[str, typer.Option(help="Comma list of numbers of cells, each at least 2.")] = "10,100,1000",
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    engine: Annotated[str, typer.Option(help="What executes the cells: local, ray or slurm.")] = "local",
    jobs: Annotated[int, typer.Option(help="Slurm's jobs, among which the cells are divided.")] = 10,
    copies: Annotated[int, typer.Option(help="Also the commands on a run of so many copied results.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the rows as CSV.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw them, into a PNG beside the CSV.")] = False,
) -> None:
    """Print what `bench run` and `bench report` take on so many trivial cells."""
    if plot and out is None:
        raise typer.BadParameter("--plot draws beside --out, which is not given")
    numbers = [int(number) for number in cells.split(",")]
    if min(numbers) < 2:
        raise typer.BadParameter(f"cells is {cells}: expected numbers of at least 2")
    about = {"engine": engine, "workers": workers, **provenance("cpu")}
    if engine == "slurm":
        about["jobs"] = jobs
    console = Console(width=150)
    console.print(
        f"{about['device']}, torch {about['torch']}, engine {engine}, {workers} worker{'s' * (workers > 1)}, "
        f"commit {about['commit']}"
    )
    rows = []
    with tempfile.TemporaryDirectory(prefix="aim-bench-overhead-") as folder:
        for number in numbers:
            rows.append({**measured(Path(folder), number, workers, engine, jobs), **about})
            if out is not None:
                write_csv(out, rows)  # what there is, should the next number be stopped
            console.print(f"{number} cells: {rows[-1]['seconds']:.1f} s", style="dim")
        if copies:
            of_copies = {**copied(Path(folder), copies, Path(folder) / f"run-{numbers[-1]}"), **about}
            numbers_told = (f"{name} {value:.4g}" for name, value in of_copies.items() if isinstance(value, float))
            console.print(f"{copies} copies: {', '.join(numbers_told)}")
    console.print(_table(rows))
    rows += [of_copies] if copies else []
    if out is not None:
        write_csv(out, rows)
        if plot:
            _draw([row for row in rows if not row.get("copied")], out.with_suffix(".png"))


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="the harness over the number of cells", title_justify="left")
    for column in (
        "cells", "run s", "s a cell", "first tenth", "last tenth", "in the worker", "driver's CPU", "parent MiB",
        "worker MiB",
        "report s", "of rows s", "run again s", "status s",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for row in rows:
        times = [
            row[name] for name in ("cell_seconds", "first_tenth", "last_tenth", "worker_seconds", "parent_cpu_cell")
        ]
        memory = [
            ", ".join(f"{row[f'{who}_mib_{when}']:.0f}" for when in ("start", "middle", "end"))
            for who in ("parent", "worker")
        ]
        table.add_row(
            f"{row['cells']:,}",
            f"{row['seconds']:.1f}",
            *(f"{seconds:.4f}" for seconds in times),
            *memory,
            f"{row.get('report_seconds', math.nan):.2f}",
            f"{row.get('report_rows_seconds', math.nan):.2f}",
            f"{row.get('again_seconds', math.nan):.2f}",
            f"{row.get('status_seconds', math.nan):.2f}",
        )
    return table


def _draw(rows: list[dict[str, Any]], file: Path) -> None:
    figure, (left, middle, right) = pyplot().subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    numbers = [row["cells"] for row in rows]
    for name, label in (
        ("first_tenth", "first tenth"),
        ("last_tenth", "last tenth"),
        ("worker_seconds", "in the worker"),
    ):
        left.plot(numbers, [1000 * row[name] for row in rows], "o-", label=label)
    left.set(title="a cell", ylabel="ms", ylim=(0, None))
    for who in ("parent", "worker"):
        middle.plot(numbers, [row[f"{who}_mib_end"] for row in rows], "o-", label=f"{who}, at the end")
        middle.plot(numbers, [row[f"{who}_mib_start"] for row in rows], "x--", label=f"{who}, after the first cell")
    middle.set(title="resident memory", ylabel="MiB", ylim=(0, None))
    for name, label in (
        ("report_seconds", "bench report, one row"),
        ("report_rows_seconds", "bench report, as many rows"),
        ("again_seconds", "bench run, all done"),
    ):
        right.plot(numbers, [row[name] for row in rows], "o-", label=label)
    right.set(title="commands on the finished run", ylabel="s", ylim=(0, None))
    for axes in (left, middle, right):
        axes.set_xscale("log")
        axes.set_xlabel("cells")
        axes.legend(fontsize=7)
    figure.suptitle(f"{rows[0]['device']}, {rows[0]['workers']} worker{'s' * (rows[0]['workers'] > 1)}", fontsize=9)
    save(figure, file)


if __name__ == "__main__":
    typer.run(main)
