"""A request for the engine of a Slurm cluster: what its jobs ask for, and what is wrong with that.

Imports submitit when Slurm is asked for.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import psutil

from backbones.registry import did_you_mean
from bench.measure.placement import Placement
from bench.processes import search_path
from bench.run.store import RESULTS
from bench.spec import Request

# submitit's names that are this engine's own affair: a job is one process on one machine
_OURS = {"additional_parameters", "dependency", "job_name", "nodes", "ntasks_per_node", "num_gpus", "setup"}
_OURS |= {"srun_args", "stderr_to_stdout", "teardown", "use_srun"}
_GPUS = ("gpus_per_node", "gpus_per_task", "gres")  # which ask for GPUs
_NUMBERS = ("array_parallelism", "signal_delay_s")
_COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")
_WARNING = 90  # seconds before the time limit at which Slurm sends SIGUSR1
_ANSWER = 10.0  # seconds within which Slurm's commands answer
# sbatch's words for what is so now and may pass; the second ones stand for it where a machine is out of use
_PASSING = ("not available (down", "not available now", "are busy")
_UNCLEAR = "configuration is not available"
_IN_USE = ("idle", "mixed", "allocated", "completing")
_LOCAL = ("tmpfs", "ramfs")  # kinds of file systems that no other machine can see


def problems(request: Request) -> list[str]:
    """Return what is wrong with a request for this engine. Slurm is asked; nothing is submitted."""
    found = []
    if find_spec("submitit") is None:
        found.append("engine is 'slurm': it needs submitit, which is not installed: pip install 'aim-bench[slurm]'")
    if missing := [name for name in _COMMANDS if which(name) is None]:
        found.append(
            f"engine is 'slurm': there is no {' nor '.join(missing)} on the PATH, expected a machine that submits to "
            "a Slurm cluster"
        )
    if found:
        return found
    known = sorted(_names())
    for name, value in request.slurm.items():
        if name not in known:
            found.append(f"slurm names {name!r}: expected one of {', '.join(known)}{did_you_mean(name, known)}")
        elif not isinstance(value, str | int) or str(value).strip() == "":
            found.append(f"slurm.{name} is {value!r}: expected a text or a whole number")
        elif name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            found.append(f"slurm.{name} is {value!r}: expected a whole number of at least 1")
    found += _too_few(request)
    said = call("sinfo", "--noheader", "--format=%R|%n|%T")
    if isinstance(said, Exception):
        return [*found, f"engine is 'slurm': Slurm does not answer: {told(said)}"]
    nodes: dict[str, dict[str, str]] = {}
    for line in said.splitlines():
        partition, node, state = line.strip().split("|")
        nodes.setdefault(partition, {})[node] = state
    asked = [name for name in str(request.slurm.get("partition", "")).split(",") if name]
    for name in asked:
        if name not in nodes:
            found.append(
                f"slurm.partition is {name!r}: expected one of {', '.join(sorted(nodes))}{did_you_mean(name, nodes)}"
            )
    if found:
        return found
    ours = {node: state for name in asked or nodes for node, state in nodes[name].items()}
    others = ours.keys() - {socket.gethostname().partition(".")[0]}
    folder = request.out or RESULTS
    if others and (kind := _file_system(folder)) in _LOCAL:
        found.append(
            f"out is {str(folder)!r}: it lies on {kind}, which other machines do not see, and the jobs may run on "
            f"{', '.join(sorted(others)[:3])}; expected a folder on a shared file system"
        )
    return [*found, *_refusal(request, all(state in _IN_USE for state in ours.values()))]


def _refusal(request: Request, in_use: bool) -> list[str]:
    """Ask Slurm whether it would take a job, but for what may be otherwise later; a sentence where it would not.

    Args:
        in_use: all the machines are; else Slurm says of those that are not that there are none.
    """
    script = executor(Path(), request)._make_submission_file_text("true", "")
    said = call("sbatch", "--test-only", input=script)
    passing = _PASSING if in_use else (*_PASSING, _UNCLEAR)
    if not isinstance(said, Exception) or any(words in told(said) for words in passing):
        return []
    asked = ",".join(f"{name}={value}" for name, value in request.slurm.items())
    return [f"slurm is {asked!r}: Slurm would not take such a job: {told(said)}"]


def placement(request: Request) -> Placement | None:
    """Return the device of the jobs, which this machine may lack: the GPUs that they ask for, in bf16 unless told.

    None where they ask for no GPU.
    """
    asks = any("gpu" in name or "gpu" in str(value) for name, value in request.slurm.items() if name != "partition")
    if request.device == "cpu" or not (asks or request.device.startswith("cuda")):
        return None
    _, _, index = request.device.partition(":")
    precision = "bf16" if request.precision == "auto" else request.precision
    return Placement("cuda", int(index) if index else None, precision)


def _too_few(request: Request) -> list[str]:
    """The sentences on GPUs or CPUs of a job that are fewer than the processes of a cell."""
    size, on_gpus = request.processes_per_cell, placement(request) is not None
    cpus = str(request.slurm.get("cpus_per_task", ""))
    there = {name: _gpus(request.slurm, name) for name in _GPUS} if on_gpus else {}
    there |= {"cpus_per_task": int(cpus)} if cpus.isdigit() and not on_gpus else {}
    return [
        f"slurm.{name} is {request.slurm[name]!r}: processes_per_cell is {size}, expected at least as many"
        for name, count in there.items()
        if count is not None and count < size
    ]


def _gpus(asked: Mapping[str, Any], name: str) -> int | None:
    """The GPUs that one of `_GPUS` asks for, such as 2, "a100:2" or, in a gres, "gpu:a100:2,shard:1"."""
    parts = [part for part in str(asked.get(name, "")).split(",") if part]
    counts = [part.rpartition(":")[2] for part in parts if name != "gres" or part.split(":")[0] == "gpu"]
    return sum(int(count) if count.isdigit() else 1 for count in counts) if counts else None


def _asked(request: Request) -> dict[str, Any]:
    """The options of a job: those of the user, and a CPU and a GPU for each of a cell's processes where none are told.

    They are a job's and not a process's: several cells may run side by side in one job.
    """
    found: dict[str, Any] = {"time": None, **request.slurm}
    if request.processes_per_cell > 1:
        if not {"cpus_per_task", "cpus_per_gpu", "exclusive"} & found.keys():
            found["cpus_per_task"] = request.processes_per_cell
        if placement(request) is not None and all(_gpus(found, name) is None for name in _GPUS):
            found["gpus_per_node"] = request.processes_per_cell
    return found


def _names() -> set[str]:
    from submitit.slurm.slurm import _get_default_parameters

    return set(_get_default_parameters()) - _OURS


def executor(folder: Path, request: Request) -> Any:
    """Return submitit's writer of jobs that put what they print into `folder`."""
    from submitit.slurm.slurm import SlurmExecutor

    # one Python process in place of the batch shell: signals to "B:" reach it and none of its children
    found = SlurmExecutor(folder, python=f"exec {shlex.quote(sys.executable)}")
    asked = _asked(request)
    plain: dict[str, Any] = {"requeue": True, "signal": f"B:USR1@{asked.pop('signal_delay_s', _WARNING)}"}
    if "mem" in asked:  # submitit takes gigabytes alone
        plain["mem"] = asked.pop("mem")
    found.update_parameters(
        job_name="aim-bench",
        use_srun=False,
        stderr_to_stdout=True,
        setup=[f"export {name}={shlex.quote(value)}" for name, value in search_path().items()],
        additional_parameters=plain,
        **asked,
    )
    return found


def _file_system(folder: Path) -> str:
    """The kind of the file system that a folder, made yet or not, lies on; empty where the system does not tell."""
    place = os.path.realpath(folder)
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    while place not in mounts and place != os.path.dirname(place):
        place = os.path.dirname(place)
    return mounts.get(place, "")


def call(*command: str, input: str | None = None) -> str | Exception:
    """The standard output of one of Slurm's commands, or why there is none."""
    try:
        # in a group of its own: a terminal's Ctrl-C is for us, who put it off
        done = subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=_ANSWER, check=True, process_group=0
        )
    except (OSError, subprocess.SubprocessError) as error:
        return error
    return done.stdout


def told(error: Exception) -> str:
    """The words of a command that failed, in a line, without its name."""
    text = getattr(error, "stderr", None) or str(error)
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("sbatch: ").removeprefix("error: ") if lines else type(error).__name__
