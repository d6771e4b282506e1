"""Questions to a GPU's driver and uses of its answers: nvidia-ml-py's own functions, with answers made up."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from bench.measure import gpu
from bench.measure.result import Gpu, Measured, footnotes
from tests.bench import make
from tests.bench.command import Wording, quotes

UUID = "GPU-01234567-89ab-cdef-0123-456789abcdef"
CUDA = torch.device("cuda")
GIB = 2**30


class Nvml:
    """The driver's answers, by function; what has none raises what the library raises. A list is an answer a call."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.answers: dict[str, Any] = {
            "nvmlDeviceGetHandleByUUID": "the handle",
            "nvmlDeviceGetClockInfo": 1980,
            "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetTemperature": 61,
        }

    def answer(self, **answers: Any) -> None:
        self.answers |= {f"nvmlDeviceGet{name}": value for name, value in answers.items()}

    def busy(self, *percents: int) -> None:
        self.answer(UtilizationRates=[SimpleNamespace(gpu=percent) for percent in percents])

    def processes(self, *held: tuple[int, int | None]) -> None:
        self.answer(ComputeRunningProcesses=[[SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in held]] * 9)

    def function(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.asked.append((name, arguments))
            if name not in self.answers:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            found = self.answers[name]
            return found.pop(0) if isinstance(found, list) else found

        return call


NAMES = (
    "HandleByUUID",
    "UtilizationRates",
    "ComputeRunningProcesses",
    "ClockInfo",
    "MaxClockInfo",
    "Temperature",
    "CurrentClocksEventReasons",
    "CurrentClocksThrottleReasons",
)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU as far as torch is asked about it."""

    def silent(device: torch.device) -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    properties = SimpleNamespace(uuid=UUID.removeprefix("GPU-"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "utilization", silent)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 17 * GIB)
    for pause in ("_BETWEEN", "_WINDOW", "_LOAD"):
        monkeypatch.setattr(gpu, pause, 0.0)


@pytest.fixture
def nvml(cuda: None, monkeypatch: pytest.MonkeyPatch) -> Nvml:
    found = Nvml()
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    for name in NAMES:  # fails where the library has no such function
        monkeypatch.setattr(pynvml, f"nvmlDeviceGet{name}", found.function(f"nvmlDeviceGet{name}"))
    return found


def _driver() -> gpu.Driver:
    found = gpu.driver_of(CUDA)
    assert found is not None
    return found


def test_utilisation_is_the_median_of_samples_of_this_very_gpu(nvml: Nvml) -> None:
    nvml.busy(100, 40, 30, 0, 35)
    assert gpu.utilisation(_driver().utilisation) == 35.0
    assert nvml.asked[0] == ("nvmlDeviceGetHandleByUUID", (UUID,))
    assert nvml.asked[1:] == [("nvmlDeviceGetUtilizationRates", ("the handle",))] * 5


def test_a_driver_that_does_not_tell_is_not_taken_for_an_idle_gpu(nvml: Nvml) -> None:
    assert gpu.utilisation(_driver().utilisation) is None
    assert gpu.before(CUDA).utilisation is None


@pytest.mark.parametrize("why", ["no library", "no driver", "another GPU"])
def test_where_no_driver_is_asked_torch_tells_the_memory_alone(
    cuda: None, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def raises(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    if why == "no library":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        monkeypatch.setattr(pynvml, "nvmlInit", raises if why == "no driver" else lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", raises)
    assert gpu.driver_of(CUDA) is None
    found = gpu.before(CUDA)
    assert found == Gpu(utilisation=None, others_memory_bytes=3 * GIB)
    assert gpu.during(found, lambda: pytest.fail("nothing is to be asked"), CUDA) == found


def test_a_gpu_of_amd_tells_torch_how_busy_it_is(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 12)
    assert gpu.before(CUDA).utilisation == 12.0


def test_memory_is_of_the_other_processes(nvml: Nvml) -> None:
    nvml.processes((os.getpid(), 700), (4242, 1024), (4243, 512), (4242, 1))
    assert _driver().others_memory() == 1024 + 512 + 1
    nvml.processes((os.getpid(), 700))
    assert _driver().others_memory() == 0


@pytest.mark.parametrize("processes", [(), ((4242, 1024),), ((os.getpid(), None),), None])
def test_memory_is_a_sum_where_this_process_goes_by_another_number(nvml: Nvml, processes: Any) -> None:
    if processes is not None:
        nvml.processes(*processes)
    assert _driver().others_memory() is None
    assert gpu.before(CUDA).others_memory_bytes == 3 * GIB


@pytest.mark.parametrize("name", ["CurrentClocksEventReasons", "CurrentClocksThrottleReasons"])
def test_clocks_are_asked_for_while_the_gpu_works_by_whatever_name_the_driver_has(
    nvml: Nvml, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.answer(ClockInfo=1410, **{name: pynvml.nvmlClocksEventReasonSwThermalSlowdown})
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("wait"))
    ask = pynvml.nvmlDeviceGetClockInfo
    monkeypatch.setattr(pynvml, "nvmlDeviceGetClockInfo", lambda *given: (done.append("ask"), ask(*given))[1])
    found = gpu.during(Gpu(utilisation=3.0), lambda: done.append("step"), CUDA)
    assert done[:3] == ["step", "ask", "wait"]
    assert found == Gpu(
        utilisation=3.0,
        clock_mhz=1410,
        max_clock_mhz=1980,
        temperature=61,
        slowed_by=("its temperature (software limit)",),
    )


def test_of_several_samples_the_middle_clock_and_all_that_slowed_the_gpu_is_told(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter((0.0, 0.2, 0.4, 0.6))
    monkeypatch.setattr(gpu, "_LOAD", 0.5)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(times))
    software, hardware = pynvml.nvmlClocksEventReasonSwThermalSlowdown, pynvml.nvmlClocksEventReasonHwSlowdown
    nvml.answer(
        ClockInfo=[900, 1980, 1500], CurrentClocksEventReasons=[0, software, hardware], Temperature=[60, 62, 61]
    )
    found = gpu.during(Gpu(), lambda: None, CUDA)
    assert (found.clock_mhz, found.temperature) == (1500, 62)
    assert found.slowed_by == ("its temperature (software limit)",)


def test_a_slowdown_that_is_explained_is_told_once(nvml: Nvml) -> None:
    both = pynvml.nvmlClocksEventReasonHwSlowdown | pynvml.nvmlClocksEventReasonHwThermalSlowdown
    nvml.answer(CurrentClocksEventReasons=both)
    assert gpu.during(Gpu(), lambda: None, CUDA).slowed_by == ("its temperature (hardware limit)",)
    nvml.answer(CurrentClocksEventReasons=pynvml.nvmlClocksEventReasonHwSlowdown)
    assert gpu.during(Gpu(), lambda: None, CUDA).slowed_by == ("a hardware slowdown (power brake or heat)",)


def test_a_driver_without_reasons_still_tells_its_clocks(nvml: Nvml) -> None:
    del nvml.answers["nvmlDeviceGetTemperature"]
    found = gpu.during(Gpu(), lambda: None, CUDA)
    assert found == Gpu(clock_mhz=1980, max_clock_mhz=1980, temperature=None, slowed_by=())


def test_this_process_own_work_of_a_moment_ago_is_not_taken_for_others(nvml: Nvml) -> None:
    nvml.busy(99, 99, 80, 60, 20, *[0] * 5)
    assert gpu.before(CUDA).utilisation == 0.0
    nvml.busy(*[0] * 5)
    assert gpu.before(CUDA).utilisation == 0.0


def _notes(**values: object) -> list[str]:
    return footnotes(make.measured(busy_cores=0.0, gpu=values))


def test_a_quiet_machine_has_no_footnote() -> None:
    assert footnotes(make.measured(busy_cores=0.5, gpu=None)) == []
    quiet = {"clock_mhz": 1200, "max_clock_mhz": 1980, "temperature": 50}
    assert _notes(utilisation=5.0, others_memory_bytes=10**9, **quiet) == []
    assert _notes(utilisation=0.0, others_memory_bytes=None, **quiet) == []


def test_a_machine_that_is_not_quiet_is_footnoted(wording: Wording) -> None:
    hot = {"slowed_by": ["heat", "power"], "clock_mhz": 900, "max_clock_mhz": 1980, "temperature": 91}
    noted: list[tuple[list[str], tuple[object, ...]]] = [
        (footnotes(make.measured(busy_cores=1.44)), (1.4,)),
        (_notes(utilisation=37.0, others_memory_bytes=12_340_000_000), ("GPU", 37, "12.3 GB")),
        (_notes(utilisation=37.0), ("GPU", 37)),
        (_notes(utilisation=0.0, others_memory_bytes=2 * 10**9), ("GPU", "2.0 GB")),
        (_notes(), ("GPU", "nvidia-ml-py", "gpu")),
        (_notes(others_memory_bytes=2 * 10**9), ("GPU", "2.0 GB", "nvidia-ml-py")),
        (_notes(utilisation=0.0, **hot), ("GPU", "heat", "power", 900, 1980, 91)),
    ]
    for notes, values in noted:
        assert len(notes) == 1 and quotes(notes[0], *values)
    wording(note for notes, _ in noted for note in notes)


def test_measurements_of_older_runs_can_still_be_read() -> None:
    new = {"gpu", "train_ms", "infer_ms", "compiled", "compile_seconds"}
    older = make.measured().model_dump(exclude=new)
    assert Measured.model_validate(older).model_dump(exclude=new) == older
