"""Questions to a GPU's driver and uses of its answers: a made-up nvidia-smi stands on the PATH."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from bench.measure import gpu
from bench.measure.result import Gpu, Measured, footnotes
from tests.bench import make

UUID = "GPU-01234567-89ab-cdef-0123-456789abcdef"
SMI = """#!{python}
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
said = json.loads((folder / "answers.json").read_text())
with (folder / "asked.txt").open("a") as asked:
    asked.write(" ".join(sys.argv[1:]) + "\\n")
kind, _, fields = sys.argv[1].partition("=")
if kind == "--query-compute-apps":
    print("\\n".join(said["processes"]))
    sys.exit(0)
values = []
for field in fields.split(","):
    if field not in said:
        print(f'Field "{{field}}" is not a valid field to query.')
        sys.exit(2)
    value = said[field]
    values.append(value.pop(0) if isinstance(value, list) else value)
(folder / "answers.json").write_text(json.dumps(said))
print(", ".join(values))
"""
CLOCKS = {"clocks.sm": "1980", "clocks.max.sm": "1980", "temperature.gpu": "61"}


class Smi:
    """The made-up nvidia-smi: what it answers, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.answer()

    def answer(self, processes: tuple[str, ...] = (), **fields: object) -> None:
        dotted = {name.replace("__", "."): value for name, value in fields.items()}
        (self._folder / "answers.json").write_text(json.dumps({"processes": processes, **CLOCKS, **dotted}))

    @property
    def asked(self) -> list[str]:
        return (self._folder / "asked.txt").read_text().splitlines()


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for pause in ("_BETWEEN", "_WINDOW"):
        monkeypatch.setattr(gpu, pause, 0.0)
    return Smi(tmp_path)


def test_utilisation_is_the_median_of_samples_of_this_very_gpu(smi: Smi) -> None:
    smi.answer(utilization__gpu=["100", "40", "30", "0", "35"])
    assert gpu.utilisation(lambda: None, UUID) == 35.0
    assert smi.asked == [f"--query-gpu=utilization.gpu --format=csv,noheader,nounits -i {UUID}"] * 5


def test_another_way_to_ask_goes_first(smi: Smi) -> None:
    assert gpu.utilisation(lambda: 12.0, None) == 12.0
    assert gpu.utilisation(lambda: 0.0, UUID) == 0.0
    assert not (smi._folder / "asked.txt").exists()


@pytest.mark.parametrize("answer", ["[N/A]", "[Not Supported]", ""])
def test_a_driver_that_does_not_tell_is_not_taken_for_an_idle_gpu(smi: Smi, answer: str) -> None:
    smi.answer(utilization__gpu=answer)
    assert gpu.utilisation(lambda: None, UUID) is None


def test_no_driver_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu, "_BETWEEN", 0.0)
    assert gpu.utilisation(lambda: None, UUID) is None
    assert gpu.others_memory(UUID) is None
    assert gpu.clocks(UUID, lambda: None, lambda: None) == {}


def test_memory_is_of_the_other_processes(smi: Smi) -> None:
    smi.answer(processes=(f"{os.getpid()}, 700", "4242, 1024", "4243, 512", "4242, 1"))
    assert gpu.others_memory(UUID) == (1024 + 512 + 1) * 2**20
    smi.answer(processes=(f"{os.getpid()}, 700",))
    assert gpu.others_memory(UUID) == 0


@pytest.mark.parametrize("processes", [(), ("4242, 1024",), ("4242, [N/A]",)])
def test_memory_is_not_known_where_this_process_goes_by_another_number(smi: Smi, processes: tuple[str, ...]) -> None:
    smi.answer(processes=processes)
    assert gpu.others_memory(UUID) is None


@pytest.mark.parametrize("group", ["clocks_event_reasons", "clocks_throttle_reasons"])
def test_clocks_are_asked_for_while_the_gpu_works_by_whatever_name_the_driver_has(smi: Smi, group: str) -> None:
    reasons = {"hw_slowdown": "Not Active", "hw_thermal_slowdown": "Not Active", "sw_thermal_slowdown": "Active"}
    smi.answer(clocks__sm="1410", **{f"{group}__{name}": value for name, value in reasons.items()})
    steps: list[str] = []
    found = gpu.clocks(UUID, lambda: steps.append("step"), lambda: steps.append("wait"))
    assert steps[:2] == ["step", "wait"] and steps.count("step") == steps.count("wait")
    assert found == {
        "clock_mhz": 1410,
        "max_clock_mhz": 1980,
        "temperature": 61,
        "slowed_by": ("its temperature (software limit)",),
    }


def test_a_slowdown_that_is_explained_is_told_once(smi: Smi) -> None:
    smi.answer(
        clocks_event_reasons__hw_slowdown="Active",
        clocks_event_reasons__hw_thermal_slowdown="Active",
        clocks_event_reasons__sw_thermal_slowdown="Not Active",
    )
    assert gpu.clocks(UUID, lambda: None, lambda: None)["slowed_by"] == ("its temperature (hardware limit)",)


def test_a_driver_without_reasons_still_tells_its_clocks(smi: Smi) -> None:
    smi.answer(temperature__gpu="[N/A]")
    found = gpu.clocks(UUID, lambda: None, lambda: None)
    assert found == {"clock_mhz": 1980, "max_clock_mhz": 1980, "temperature": None, "slowed_by": ()}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU as far as torch is asked about it."""

    class Properties:
        uuid = UUID.removeprefix("GPU-")

    def silent(device: torch.device) -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "utilization", silent)
    return torch.device("cuda")


def test_this_process_own_work_of_a_moment_ago_is_not_taken_for_others(smi: Smi, device: torch.device) -> None:
    smi.answer(utilization__gpu=["99", "99", "80", "60", "20", *["0"] * 5])
    assert gpu.before(device).utilisation == 0.0
    smi.answer(utilization__gpu=["0"] * 5)
    assert gpu.before(device).utilisation == 0.0


def test_a_gpu_is_asked_before_and_during_by_its_uuid(smi: Smi, device: torch.device) -> None:
    smi.answer(processes=(f"{os.getpid()}, 1", "7, 3000"), utilization__gpu="20")
    found = gpu.during(gpu.before(device), lambda: None, device)
    expected = Gpu(
        utilisation=20.0,
        others_memory_bytes=3000 * 2**20,
        clock_mhz=1980,
        max_clock_mhz=1980,
        temperature=61,
    )
    assert found == expected
    assert all(line.endswith(f"-i {UUID}") for line in smi.asked)


def _notes(**values: object) -> list[str]:
    return footnotes(make.measured(busy_cores=0.0, gpu=values))


def test_a_quiet_machine_has_no_footnote() -> None:
    assert footnotes(make.measured(busy_cores=0.5, gpu=None)) == []
    quiet = {"clock_mhz": 1200, "max_clock_mhz": 1980, "temperature": 50}
    assert _notes(utilisation=5.0, others_memory_bytes=10**9, **quiet) == []
    assert _notes(utilisation=0.0, others_memory_bytes=None, **quiet) == []


def test_a_machine_that_is_not_quiet_is_footnoted() -> None:
    assert footnotes(make.measured(busy_cores=1.44)) == ["speed measured while 1.4 cores were busy with something else"]
    assert _notes(utilisation=37.0, others_memory_bytes=12_340_000_000) == [
        "speed measured while something else kept the GPU busy for 37 % of the time "
        "(other processes held 12.3 GB of its memory)"
    ]
    assert _notes(utilisation=37.0) == ["speed measured while something else kept the GPU busy for 37 % of the time"]
    assert _notes(utilisation=0.0, others_memory_bytes=2 * 10**9) == [
        "speed measured on a GPU that was idle, while other processes held 2.0 GB of its memory"
    ]
    assert _notes() == [
        "speed measured on a GPU of which neither nvidia-ml-py nor nvidia-smi tells whether something else used it"
    ]
    hot = {"slowed_by": ["heat", "power"], "clock_mhz": 900, "max_clock_mhz": 1980, "temperature": 91}
    assert _notes(utilisation=0.0, **hot) == [
        "speed measured while the GPU was slowed by heat and power at 900 of 1980 MHz, 91 °C"
    ]


def test_measurements_of_older_runs_can_still_be_read() -> None:
    new = {"gpu", "train_ms", "infer_ms", "compiled", "compile_seconds"}
    older = make.measured().model_dump(exclude=new)
    assert Measured.model_validate(older).model_dump(exclude=new) == older
