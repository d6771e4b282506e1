"""Ctrl-C and a cluster's stop signals: put off to where the process looks for them, and never made another error of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from filelock import FileLock

from bench import processes
from bench.measure import machine
from bench.measure.machine import exclusive_machine_lock
from bench.processes import StopRequested, commands_shielded, interrupts_put_off, raise_on_stop_signals
from tests.bench import make

SIGNALS = (signal.SIGINT, *processes.STOP_SIGNALS)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of `bench run`; the process has its own again afterwards."""
    before = [signal.getsignal(number) for number in SIGNALS]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise_on_stop_signals()
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), *((stop, StopRequested) for stop in SIGNALS[1:])]
)
def test_the_first_is_raised_where_the_process_looks(
    number: signal.Signals, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_ONE_PRESS", 60.0)
    with interrupts_put_off() as signals:
        signals.look()
        assert not signals.came
        os.kill(os.getpid(), number)
        for other in SIGNALS:  # as where a launcher passes on what the terminal has sent as well
            os.kill(os.getpid(), other)
        assert signals.came
        with pytest.raises(KeyboardInterrupt) as raised:
            signals.look()
        os.kill(os.getpid(), number)  # still the same press
        signals.look()
    assert raised.type is error


def test_a_later_one_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_ONE_PRESS", 0.0)
    with interrupts_put_off() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StopRequested):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signals.look()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_one_that_nobody_looked_for_is_raised_at_the_end() -> None:
    with pytest.raises(StopRequested), interrupts_put_off(), interrupts_put_off():
        os.kill(os.getpid(), signal.SIGTERM)

    def fail() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise OSError("a command that the same key has ended")

    with pytest.raises(KeyboardInterrupt), interrupts_put_off():
        fail()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_gets_none_while_they_are_blocked() -> None:
    with interrupts_put_off() as signals:
        with commands_shielded():
            code = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); print('whole')"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signals.look()
    assert (done.returncode, done.stdout) == (0, "whole\n")


def test_other_handlers_are_left_alone_and_set_back() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    with interrupts_put_off() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        signals.look()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_cells_are_written_stays_one() -> None:
    """One inside a function that pydantic calls to write a value would come out as an error of pydantic's."""

    class Interrupt(BaseException): ...

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise Interrupt

    cell = make.cell()
    before = signal.signal(signal.SIGALRM, raise_it)
    came = 0
    try:
        while came < 300:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002)
                for _ in range(100):
                    hash(cell)
                    cell.model_dump_json()
            except Interrupt:
                came += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_the_wait_for_another_measurement_can_be_interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(machine, "_PATIENCE", 0.01)
    with exclusive_machine_lock(lambda: None):
        pass
    waits, looks = [], []

    def look() -> None:
        looks.append(None)
        if len(looks) == 3:
            raise KeyboardInterrupt

    (file,) = os.listdir(tmp_path)
    with (
        FileLock(tmp_path / file),
        pytest.raises(KeyboardInterrupt),
        exclusive_machine_lock(lambda: waits.append(None), look),
    ):
        raise AssertionError("two measure at once")
    assert (len(waits), len(looks)) == (1, 3)
    with exclusive_machine_lock(lambda: waits.append(None), look):
        pass
    assert (len(waits), len(looks)) == (1, 3)
