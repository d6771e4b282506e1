"""Renders many videos side by side, in processes that import numpy and PyAV and nothing else.

They are plain subprocesses that run this module, rather than `multiprocessing`'s: those would run the user's own script
again where it has no `__main__` guard, or fork a process that already holds threads and a GPU. Threads would not do, as
the work is many small steps between which they wait for each other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from bench.data.dataset import DataError, Progress
from bench.data.motion.encode import write_h264
from bench.data.motion.scenes import Scene, render_clip
from bench.processes import search_path

_WORTH_A_PROCESS = 200  # videos; fewer are rendered before a process has started
_MOST = 8


@dataclass(frozen=True)
class Job:
    """One video to render: where to, of which class, and the numbers its random generator starts from."""

    path: str
    class_name: str
    seed: tuple[int, ...]


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def _render(job: Job, scene: Scene, fps: int, qp: int) -> None:
    write_h264(Path(job.path), render_clip(job.class_name, np.random.default_rng(job.seed), scene), fps, qp)


def run_jobs(
    jobs: Sequence[Job], scene: Scene, fps: int, qp: int, progress: Progress | None = None, workers: int | None = None
) -> None:
    """Render every job's video. What is drawn does not depend on the number of workers.

    Args:
        workers: processes to use; None for as many as the cores and the number of videos call for.

    Raises OSError or av.FFmpegError where a file cannot be written, DataError with a worker's words where it failed.
    """
    if workers is None:
        workers = min(_cores(), _MOST, len(jobs) // _WORTH_A_PROCESS)
    if workers <= 1:
        for done, job in enumerate(jobs, start=1):
            _render(job, scene, fps, qp)
            if progress:
                progress(done, len(jobs))
        return
    # one BLAS thread each: the products are small, and the cores are taken
    environment = {**os.environ, **search_path(), "OPENBLAS_NUM_THREADS": "1"}
    # a line for every finished video, None at a worker's end
    lines: SimpleQueue[str | None] = SimpleQueue()
    processes: list[subprocess.Popen[str]] = []
    try:
        for first in range(workers):
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.data.motion.render_jobs"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            )  # fmt: skip
            processes.append(process)
            work = {"scene": asdict(scene), "fps": fps, "qp": qp, "jobs": [asdict(j) for j in jobs[first::workers]]}
            Thread(target=_converse, args=(process, json.dumps(work), lines), daemon=True).start()
        done, running = 0, workers
        while running:
            line = lines.get()
            if line is None:
                running -= 1
            elif line == "done":
                done += 1
                if progress:
                    progress(done, len(jobs))
            else:
                raise DataError(f"rendering failed: {line}")
        if done < len(jobs):
            raise DataError(f"rendering failed: a worker process died, {done} of {len(jobs)} videos are written")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _converse(process: subprocess.Popen[str], work: str, lines: SimpleQueue[str | None]) -> None:
    """Hand a worker its work and pass on what it says."""
    assert process.stdin is not None and process.stdout is not None
    try:
        with process.stdin as stdin:
            stdin.write(work)
        with process.stdout as stdout:
            for line in stdout:
                lines.put(line.strip())
    except (OSError, ValueError):  # the worker died; that it is missing is told by the count
        pass
    finally:
        lines.put(None)


def main() -> None:
    """A worker: work in JSON on standard input, a line on standard output for every video or for what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then ends this process
    work = json.load(sys.stdin)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in work["scene"].items()}
    scene = Scene(**values)
    try:
        for job in work["jobs"]:
            _render(Job(job["path"], job["class_name"], tuple(job["seed"])), scene, work["fps"], work["qp"])
            print("done", flush=True)
    except BrokenPipeError:  # nobody waits for the videos any more
        os._exit(1)
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()
