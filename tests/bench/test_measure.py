"""Throughput, memory and the machine: what is timed, what is counted."""

from __future__ import annotations

import os
import time

import pytest
import torch

from bench.measure.machine import cores, describe, device_name
from bench.measure.memory import held, peak
from bench.measure.params import count
from bench.measure.throughput import timed
from tests.models import FAMILIES, NAMES, model

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", NAMES)
def test_parameters_are_counted_once_each(family: str, strategy: str) -> None:
    adapted = model(family, strategy)
    sizes = {p.data_ptr(): p.numel() for p in adapted.parameters()}
    trained = {p.data_ptr(): p.numel() for p in adapted.parameters() if p.requires_grad}
    assert count(adapted) == (sum(sizes.values()), sum(trained.values()))


def test_a_timing_is_the_median_of_calls_after_the_warm_up() -> None:
    calls = []

    def call() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.05 if len(calls) <= 2 else 0.01)

    timing = timed(call, CPU, warmup=2, least=5, most=9, seconds=0.0)
    assert len(calls) == 7
    assert timing.repeats == 5
    assert 0.009 < timing.median < 0.04
    assert timing.warmup_seconds > 0.09
    assert timing.spread >= 0


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
    from bench.evaluate import Predictor
    from bench.spec import Recipe
    from bench.train import Trainer

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
