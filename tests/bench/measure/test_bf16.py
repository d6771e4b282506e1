"""bf16 on a CPU that emulates it: found out in little time, and told before and beside every number."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from bench.data.cache import FrameCache
from bench.data.decode_pool import Reading
from bench.errors import UserError
from bench.measure import placement as placed
from bench.measure.placement import Placement
from bench.run.context import WorkerContext
from bench.run.engines.local import local
from bench.spec import Request
from tests.adapters import released as official
from tests.bench import make
from tests.bench.command import Command, quotes
from tests.bench.test_checkpoint import JOINT

CPU = Placement("cpu", None, "bf16")
SLOW = ("bf16", "fp32", "CPU", 110)  # what a note of it quotes


def machine(flops: dict[str, float], asked: list[tuple[str, int]]) -> Callable[[str, int], float]:
    """A machine of so many operations a second in each format; `asked` gets what it is timed on."""

    def seconds(precision: str, size: int) -> float:
        asked.append((precision, size))
        return 2 * 2 * size**3 / flops[precision]

    return seconds


@pytest.mark.parametrize(
    ("fp32", "half"),
    [(55e9, 0.5e9), (55e9, 130e9), (100e9, 37e9), (1e9, 0.01e9)],
    ids=["emulated", "native", "AVX-512", "both slow"],
)
def test_the_ratio_is_the_machines_and_takes_a_tenth_of_a_second(fp32: float, half: float) -> None:
    asked: list[tuple[str, int]] = []
    seconds = machine({"fp32": fp32, "bf16": half}, asked)
    assert placed.bf16_ratio(seconds) == pytest.approx(fp32 / half)
    assert {precision for precision, _ in asked} == {"fp32", "bf16"}
    assert sum(seconds(*one) for one in asked.copy()) < 0.1 or {size for _, size in asked} == {32}


def test_larger_products_are_timed_where_there_is_time() -> None:
    """The cost of a call beside its product counts for less in them."""
    fast: list[tuple[str, int]] = []
    placed.bf16_ratio(machine({"fp32": 55e9, "bf16": 130e9}, fast))
    slow: list[tuple[str, int]] = []
    placed.bf16_ratio(machine({"fp32": 55e9, "bf16": 0.5e9}, slow))
    assert max(size for _, size in fast) == 512
    assert max(size for _, size in slow) == 128


def test_a_disturbed_round_does_not_count() -> None:
    asked: list[tuple[str, int]] = []
    steady = machine({"fp32": 50e9, "bf16": 100e9}, asked)

    def seconds(precision: str, size: int) -> float:
        return steady(precision, size) * (50 if len(asked) % 3 == 0 else 1)

    assert placed.bf16_ratio(seconds) == pytest.approx(0.5)


def test_what_is_timed_are_products_in_the_format_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[torch.dtype, int]] = []

    def product(a: torch.Tensor, b: torch.Tensor) -> None:
        assert a.dtype == b.dtype
        made.append((a.dtype, torch.get_num_threads()))

    monkeypatch.setattr(torch, "mm", product)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        placed.bf16_slowdown.__wrapped__()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(made) == {(torch.float32, 1), (torch.bfloat16, 1)}


def test_it_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[None] = []
    monkeypatch.setattr(placed, "bf16_ratio", lambda _: measured.append(None) or 0.5)
    placed.bf16_slowdown.cache_clear()
    assert [placed.bf16_slowdown() for _ in range(3)] == [0.5] * 3 and len(measured) == 1
    placed.bf16_slowdown.cache_clear()


@pytest.fixture
def emulating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "bf16_slowdown", lambda: 109.7)


@pytest.mark.parametrize(
    ("placement", "times", "told"),
    [
        (CPU, 109.7, 110),
        (CPU, 2.64, 2.6),
        (CPU, 1.1, None),  # of a busy machine
        (CPU, 0.45, None),
        (Placement("cpu", None, "fp32"), 109.7, None),
        (Placement("cuda", 0, "bf16"), 109.7, None),
        (None, 109.7, None),
    ],
)
def test_it_is_told_where_it_is_so_and_asked_for(
    placement: Placement | None, times: float, told: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed, "bf16_slowdown", lambda: times)
    notes = placed.bf16_notes(placement)
    assert len(notes) == (told is not None)
    assert all(quotes(note, "bf16", "fp32", "CPU", told) for note in notes)


def test_nothing_is_measured_where_bf16_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "bf16_slowdown", lambda: 1 / 0)
    assert not placed.bf16_notes(Placement("cpu", None, "fp32")) and not placed.bf16_notes(
        Placement("mps", None, "bf16")
    )


def test_a_plan_tells_it(bench: Command, emulating: None) -> None:
    asked = ("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--device", "cpu", "--dry-run")
    assert quotes(bench(*asked, "--precision", "bf16").out.splitlines()[0], *SLOW)
    assert not quotes(bench(*asked).out, *SLOW)


def test_workers_know_it_and_cells_carry_it_as_a_footnote(emulating: None, monkeypatch: pytest.MonkeyPatch) -> None:
    setups = []
    monkeypatch.setattr("bench.run.engines.local.LocalEngine", lambda found, *_: setups.extend(found))
    local(Request(), CPU, [make.cell(precision="bf16")], "bench run")
    ((note,),) = (setup.notes for setup in setups)
    assert quotes(note, *SLOW)
    context = WorkerContext(torch.device("cpu"), Reading(), "bench run", FrameCache(), device_notes=setups[0].notes)
    assert any(quotes(note, *SLOW) for note in context.notes(make.cell(precision="bf16")))


def test_a_profile_tells_it_before_and_beside_its_numbers(
    bench: Command, emulating: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.run.profile.exclusive_machine_lock", lambda _: nullcontext())
    found = make.measured(batch_size=1, micro_batch=1)
    monkeypatch.setattr("bench.measure.model.measure", lambda *_, **__: found)
    asked = ("profile", "vit:tiny@none", "frozen", "--device", "cpu", "--batch-size", 1, "--format", "json")
    said = bench(*asked, "--precision", "bf16")
    assert quotes(said.err, *SLOW) and any(quotes(note, *SLOW) for note in json.loads(said.out)[0]["footnotes"])
    counted = bench(*asked, "--precision", "bf16", "--no-timing")
    assert counted.code == 0 and not quotes(counted.err + counted.out, *SLOW)


def test_an_evaluation_tells_it_before_it_begins(
    bench: Command, emulating: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(official.vit(JOINT, frames=4), tmp_path / "one.pth")
    asked = ("eval", "--checkpoint", tmp_path / "one.pth", "--dataset", "motion", "--device", "cpu")

    def stopped(*_: object) -> None:
        raise UserError(["far enough"])

    monkeypatch.setattr("bench.data.motion.dataset.Motion.prepare", stopped)
    assert quotes(bench(*asked, "--precision", "bf16").err, *SLOW)
    assert not quotes(bench(*asked).err, *SLOW)
