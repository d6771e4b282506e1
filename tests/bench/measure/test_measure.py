"""Throughput, memory and the machine: what is timed, what is counted."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
import torch

from bench.measure.machine import cores, describe, device_name
from bench.measure.params import count, count_by_part
from bench.measure.speed import Timing, held, peak, timed
from tests.models import CLASSES, FAMILIES, NAMES, model

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", NAMES)
def test_parameters_are_counted_once_each(family: str, strategy: str) -> None:
    adapted = model(family, strategy)
    sizes = {p.data_ptr(): p.numel() for p in adapted.parameters()}
    trained = {p.data_ptr(): p.numel() for p in adapted.parameters() if p.requires_grad}
    assert count(adapted) == (sum(sizes.values()), sum(trained.values()))
    parts = count_by_part(adapted)
    assert tuple(map(sum, zip(*parts.values(), strict=True))) == count(adapted)
    assert parts["elsewhere"] == (0, 0)


@pytest.mark.parametrize("strategy", ["timesformer", "joint", "spatial", "frozen"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_parameters_of_each_part_follow_from_the_layers_shapes(device: str, strategy: str) -> None:
    with torch.device(device):
        parts = count_by_part(model("vit", strategy, frames=5))
    width, depth = 96, 4
    norm, square = 2 * width, width * width + width
    adapter = 2 * width * 24 + 24 + width
    over_time, own = strategy in ("timesformer", "joint"), strategy == "timesformer"
    adapters = {"timesformer": square, "joint": 3 * adapter, "spatial": adapter, "frozen": 0}[strategy]
    expected = {
        "embedding": 3 * 8 * 8 * width + width + width + 17 * width + (5 * width if over_time else 0),
        "merging": 0,
        "spatial_attention": depth * (norm + 4 * square),
        "temporal_attention": depth * (norm + 4 * square) if own else 0,
        "mlp": depth * (norm + width * 4 * width + 4 * width + 4 * width * width + width),
        "adapters": depth * adapters,
        "head": norm + CLASSES * width + CLASSES,
        "elsewhere": 0,
    }
    assert {part: every for part, (every, _) in parts.items()} == expected
    trained = {part: number for part, (_, number) in parts.items() if number}
    if strategy == "timesformer":
        assert trained == {part: number for part, number in expected.items() if number}
    elif strategy == "frozen":
        assert trained == {"head": CLASSES * width + CLASSES}
    else:
        time = {"embedding": 5 * width} if over_time else {}
        assert trained == {**time, "adapters": depth * adapters, "head": expected["head"]}


def test_parameters_that_nothing_computes_with_are_elsewhere() -> None:
    adapted = model("clip", "joint")
    adapted.body.blocks[1].forgotten = torch.nn.Linear(3, 5, bias=False)
    assert count_by_part(adapted)["elsewhere"] == (15, 15)


class _Clock:
    """Seconds that go on only when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _timed(monkeypatch: pytest.MonkeyPatch, calls: list[float], **how: Any) -> Timing:
    """The timing of calls that take so long; the last number holds for all further ones."""
    clock = _Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    left = list(calls)

    def call() -> None:
        clock.now += left.pop(0) if len(left) > 1 else left[0]

    return timed(call, CPU, **how)


def test_a_timing_is_the_median_of_calls_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = _timed(monkeypatch, [5.0, 5.0, 1.0, 2.0, 9.0, 3.0], warmup=2, least=5, most=9, seconds=0.0)
    assert (timing.warmup_seconds, timing.repeats, timing.median) == (10.0, 5, 3.0)


def test_the_first_call_is_told_beside_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = _timed(monkeypatch, [20.0, 2.0, 1.0], warmup=3, least=4, most=4, seconds=0.0, patience=60.0)
    assert (timing.first, timing.first_beyond, timing.warmup_seconds) == (20.0, 19.0, 23.0)
    assert _timed(monkeypatch, [1.0, 3.0], warmup=0, least=4, most=4).first_beyond == 0.0


def test_the_spread_is_between_the_quartiles(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = _timed(monkeypatch, [5.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], warmup=1, seconds=0.0, patience=60.0)
    assert (timing.median, timing.repeats) == (4.0, 7)
    assert timing.spread == pytest.approx((6.0 - 2.0) / 4.0)


def test_long_calls_are_repeated_less(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = _timed(monkeypatch, [50.0], patience=30.0)
    assert (timing.warmup_seconds, timing.repeats) == (50.0, 3)
    timing = _timed(monkeypatch, [8.0], patience=30.0)
    assert (timing.warmup_seconds, timing.repeats) == (24.0, 4)


def test_a_compiled_model_settles_however_long_it_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = _timed(monkeypatch, [90.0, 5.0, 1.0], patience=30.0, least_warmup=3)
    assert (timing.first_beyond, timing.warmup_seconds, timing.median) == (89.0, 96.0, 1.0)


@pytest.mark.parametrize("compiled", [False, True])
def test_compiling_is_told_apart_from_the_warm_up(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    import bench.measure.model as measuring
    from bench.spec import Recipe

    timings = [Timing(0.2, 0.01, 7, 3.0, first=2.2), Timing(0.5, 0.02, 9, 6.0, first=4.5)]  # inference, training
    monkeypatch.setattr(measuring, "timed", lambda call, device, least_warmup: timings.pop(0))
    monkeypatch.setattr(measuring, "peak", lambda call, device, resident: 1)
    found = measuring.measure(model("vit", "frozen"), Recipe(batch_size=2), CPU, "fp32", compile=compiled)
    assert (found.infer_ms, found.train_ms, found.infer_clips_per_s) == (200.0, 500.0, 10.0)
    assert found.compiled == compiled and found.gpu is None
    assert found.compile_seconds == pytest.approx(6.0 if compiled else 0.0)
    assert found.warmup_seconds + found.compile_seconds == pytest.approx(9.0)


def test_a_timing_goes_on_until_its_time_is_spent_and_no_longer() -> None:
    assert timed(lambda: time.sleep(0.002), CPU, warmup=0, least=2, most=4, seconds=10.0).repeats == 4
    assert timed(lambda: time.sleep(0.02), CPU, warmup=0, least=2, most=100, seconds=0.1).repeats <= 6


def test_peak_memory_on_a_cpu_is_the_highest_sum_of_live_tensors() -> None:
    megabyte = 2**20
    resident = torch.zeros(megabyte // 4)

    def call() -> None:
        first = torch.zeros(10 * megabyte // 4)
        second = torch.zeros(20 * megabyte // 4)
        del first
        third = torch.zeros(5 * megabyte // 4)
        del second, third

    found = peak(call, CPU, [resident])
    assert found == pytest.approx(31 * megabyte, rel=0.01)


def test_a_storage_counts_once() -> None:
    x = torch.zeros(100)
    assert held([x, x[:50], x.view(10, 10)]) == 400


def test_training_takes_more_memory_than_inference_and_less_with_less_to_train() -> None:
    from bench.spec import Recipe
    from bench.train.evaluate import Predictor
    from bench.train.trainer import Trainer

    clips, labels = torch.zeros(4, 4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    found = {}
    for strategy in ("frozen", "full"):
        adapted = model("vit", strategy)
        predictor = Predictor(adapted, CPU, "fp32", 4)
        trainer = Trainer(adapted, Recipe(batch_size=4), CPU, "fp32")
        trainer.step(clips, labels)
        resident = list(adapted.parameters())
        found[strategy] = (
            peak(lambda p=predictor: p(clips[:, None]), CPU, resident),
            peak(lambda t=trainer: t.step(clips, labels), CPU, resident),
        )
    assert found["full"][1] > 1.5 * found["full"][0]
    assert found["frozen"][1] < 0.7 * found["full"][1]


def test_the_machine_is_described() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert describe()["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert device_name("cpu").startswith("CPU: ")
