"""Speed of a training with its loading, and waits of its step: by clocks and events that are made up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench.measure.loading import EventWaits, HostWaits, Loading
from tests.bench.command import quotes

CPU = torch.device("cpu")


class Clock:
    """Seconds that go on only when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "perf_counter", found)
    return found


def _slow(clock: Clock, seconds: list[float]) -> Iterator[int]:
    for index, each in enumerate(seconds):
        clock.now += each
        yield index


def _train(clock: Clock, loading: Loading, waits: list[float], step: float, clips: int = 4) -> list[float]:
    """An epoch whose every step is an interval; the shares that are waited."""
    shares, since = [], clock.now
    for _ in loading.timed(_slow(clock, waits)):
        clock.now += step
        shares.append(loading.interval(clips / (clock.now - since), clock.now - since))
        since = clock.now
    return shares


def test_waits_are_shares_of_the_intervals_and_the_first_is_left_out(clock: Clock) -> None:
    loading = Loading(CPU)
    assert _train(clock, loading, [9.0, 1.0, 3.0], step=1.0) == pytest.approx([90.0, 50.0, 75.0])
    assert _train(clock, loading, [0.0], step=2.0) == [0.0]
    # the others: 4 clips in 2, 4 and 2 seconds, of which 1, 3 and 0 were waited
    assert loading.clips_per_s == pytest.approx(2.0)
    assert loading.wait == pytest.approx(100 * 4 / 8)


def test_a_training_of_one_interval_has_no_rate(clock: Clock) -> None:
    loading = Loading(CPU)
    _train(clock, loading, [1.0], step=1.0)
    assert (loading.clips_per_s, loading.wait, loading.footnotes()) == (None, None, ())


@pytest.mark.parametrize(("wait", "told"), [(0.1, False), (0.2, True)])
def test_a_starved_step_is_told_with_what_to_do(clock: Clock, wait: float, told: bool) -> None:
    loading = Loading(CPU)
    _train(clock, loading, [wait] * 3, step=1.0)  # 9 % and 17 %
    assert bool(loading.footnotes()) == told
    for note in loading.footnotes():
        assert quotes(note, 17, "--loader-workers", "--cache", "bench data prepare")


def test_batches_come_as_they_are_and_errors_too() -> None:
    def batches() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    following = Loading(CPU).timed(batches())
    assert next(following) == 1
    with pytest.raises(ValueError, match="broken"):
        next(following)


def test_a_host_that_waits_does_not_starve_a_gpu_that_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's time: each step takes it 3 s, the host gives it one as soon as a batch has come."""
    host, device = Clock(), Clock()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:  # it happens when the device has done all before, and no earlier than now
            self.at = device.now = max(device.now, host.now)

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, later: Any) -> float:
            return 1e3 * (later.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    waits = EventWaits(torch.device("cuda"))
    for seconds in (2.0, 2.0, 7.0):  # in which the device has nothing to do for 2, 0 and 3
        waits.begin()
        host.now += seconds
        waits.end()
        device.now += 3.0
    assert waits.take() == pytest.approx(5.0)
    assert waits.take() == 0.0


def test_the_devices_own_way_is_taken() -> None:
    assert isinstance(Loading(CPU)._waits, HostWaits)
    assert isinstance(Loading(torch.device("cuda"))._waits, EventWaits)
