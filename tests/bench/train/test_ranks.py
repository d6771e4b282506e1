"""Ranks: shares, sums, agreement and gathered predictions, with threads of this process in the place of processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.data.augment import MixupCutmix
from bench.data.dataset import DataError
from bench.spec import Recipe
from bench.train.evaluate import Predictions, predict
from bench.train.ranks import ALONE, Ranks, _buckets, share
from bench.train.trainer import Trainer
from tests.models import CLASSES, FRAMES, model

CPU = torch.device("cpu")
Found = TypeVar("Found")


class _Threads(Ranks):
    """A rank that is a thread: what it gathers, sums and exchanges goes through a list that all of them share."""

    def __init__(self, rank: int, size: int, meeting: threading.Barrier, table: list[Any]) -> None:
        super().__init__(rank, size, seed=0)
        object.__setattr__(self, "meeting", meeting)
        object.__setattr__(self, "table", table)

    def seed_generators(self, step: int) -> None: ...  # which threads share

    def gather(self, value: Any) -> list[Any]:
        self.table[self.rank] = value
        self.meeting.wait(20)
        found = list(self.table)
        self.meeting.wait(20)
        return found

    def any(self, flag: bool) -> bool:
        return any(self.gather(flag))

    def sum(self, tensors: Sequence[Tensor]) -> int:
        gathered = self.gather([tensor.clone() for tensor in tensors])
        for place, tensor in enumerate(tensors):
            tensor.copy_(sum(each[place] for each in gathered))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _together(size: int, work: Callable[[Ranks], Found]) -> list[Found]:
    """Return what each of so many ranks makes of the work; the first error of one is raised."""
    meeting, table = threading.Barrier(size), [None] * size
    found: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(_Threads(rank, size, meeting, table))
        except BaseException as error:
            errors.append(error)
            meeting.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 15])
def test_shares_follow_one_another_and_differ_by_one(count: int, size: int) -> None:
    shares = [share(count, rank, size) for rank in range(size)]
    assert [index for each in shares for index in each] == list(range(count))
    lengths = [len(each) for each in shares]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1


def test_one_process_exchanges_nothing() -> None:
    """None of these asks torch.distributed, which is not initialised here."""
    one = torch.ones(2)
    assert ALONE.any(True) and not ALONE.any(False)
    assert ALONE.gather("a") == ["a"] and ALONE.sum([one]) == 0 and one.tolist() == [1.0, 1.0]
    before = torch.get_rng_state()
    ALONE.seed_generators(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_rank_and_step_draws_anew_and_the_same_again() -> None:
    def drawn(rank: int, step: int) -> float:
        Ranks(rank, 2, seed=4).seed_generators(step)
        return float(torch.rand(()))

    with torch.random.fork_rng(devices=[]):
        draws = [drawn(rank, step) for rank in (0, 1) for step in (0, 1)]
        assert len(set(draws)) == 4 and drawn(1, 0) == draws[2]


def test_buckets_hold_every_tensor_once_and_one_number_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.train.ranks._BUCKET", 16)
    tensors = [torch.zeros(2), torch.zeros(2), torch.zeros(9), torch.zeros(1), torch.zeros(1, dtype=torch.float16)]
    found = [[id(tensor) for tensor in bucket] for bucket in _buckets(tensors)]
    ids = [id(tensor) for tensor in tensors]
    assert found == [ids[:2], ids[2:3], ids[3:4], ids[4:]]


def _batches(count: int, size: int, bad: int | None = None) -> Callable[[Ranks], Iterator[Any]]:
    """Videos v0, v1, ... in batches; video `bad` cannot be read. A video's views tell its number."""

    def of(ranks: Ranks) -> Iterator[Any]:
        for start in range(0, count, size):
            chunk = range(start, min(start + size, count))
            own = [chunk[place] for place in ranks.share(len(chunk)) if chunk[place] != bad]
            views = torch.stack([_view(number) for number in own]) if own else torch.empty(0, dtype=torch.uint8)
            if own or not ranks.alone:
                yield views, torch.tensor([number % 3 for number in own]), [f"v{number}" for number in own]

    return of


def _view(number: int) -> Tensor:
    return (torch.arange(4, dtype=torch.uint8) + 10 * number).view(1, 4, 1, 1, 1)


class _Predictor:
    """Probabilities that tell a view's frames and their order."""

    def __call__(self, views: Tensor) -> Tensor:
        return views.flatten(1).float()


@pytest.mark.parametrize("bad", [None, 0, 3, 6])
@pytest.mark.parametrize(("size", "batch"), [(2, 2), (3, 3), (3, 6), (5, 10)])
def test_seven_videos_on_several_ranks_are_predicted_once_in_order(size: int, batch: int, bad: int | None) -> None:
    """The orders of frames that the order test draws are those of one process as well."""

    def work(ranks: Ranks) -> Predictions:
        seen: list[int] = []
        found = predict(
            _Predictor(),  # type: ignore[arg-type]
            _batches(7, batch, bad)(ranks),
            order_test=True,
            on_batch=seen.append,
            ranks=ranks,
        )
        assert seen[-1] == len(found.names) and seen == sorted(seen)
        return found

    expected = work(ALONE)
    assert expected.names == [f"v{number}" for number in range(7) if number != bad]
    for found in _together(size, work):
        assert found.names == expected.names and np.array_equal(found.labels, expected.labels)
        assert np.array_equal(found.probabilities, expected.probabilities)
        assert found.reordered.keys() == expected.reordered.keys()
        assert all(np.array_equal(found.reordered[order], expected.reordered[order]) for order in found.reordered)


def test_no_video_on_any_rank_is_an_error_on_all() -> None:
    with pytest.raises(DataError):
        _together(2, lambda ranks: predict(_Predictor(), _batches(1, 1, 0)(ranks), order_test=True, ranks=ranks))  # type: ignore[arg-type]


def _trainer(ranks: Ranks, batch: int) -> Trainer:
    recipe = Recipe(batch_size=batch, lr=1e-3, head_lr=1e-2, drop_path=0.0, dropout=0.0, label_smoothing=0.1)
    torch.manual_seed(0)
    trainer = Trainer(model("vit", "joint"), recipe, CPU, "fp32", ranks=ranks)
    trainer.expect(batch)
    return trainer


def _steps(trainer: Trainer, count: int, batch: int) -> list[tuple[float, float]]:
    found = []
    for step in range(count):
        rng = torch.Generator().manual_seed(step)
        clips = torch.randint(256, (batch, FRAMES, 3, 32, 32), dtype=torch.uint8, generator=rng)
        labels = torch.randint(CLASSES, (batch,), generator=rng)
        own = list(trainer.ranks.share(batch))
        loss, right = trainer.step(clips[own], labels[own])
        trainer.steps = step + 1
        found.append((float(loss), float(right)))
    return found


@pytest.mark.parametrize(("size", "batch"), [(2, 4), (3, 4), (3, 2)])
def test_steps_on_several_ranks_are_those_of_one_process(size: int, batch: int) -> None:
    """Shares of 2 and 2 clips, of 2, 1 and 1, and of 1, 1 and none."""
    alone = _trainer(ALONE, batch)
    expected = _steps(alone, 3, batch)
    trainers = [_trainer(ALONE, batch) for _ in range(size)]  # one after the other: they draw from one generator

    def work(ranks: Ranks) -> list[tuple[float, float]]:
        trainers[ranks.rank].ranks = ranks
        trainers[ranks.rank]._agree = ranks.any
        trainers[ranks.rank].expect(batch)
        return _steps(trainers[ranks.rank], 3, batch)

    for found in _together(size, work):
        assert np.allclose(found, expected, atol=1e-5)
    bytes_expected = sum(4 * parameter.numel() for _, parameter in alone.model.trained())
    assert {trainer.gradient_bytes for trainer in trainers} == {bytes_expected}
    assert len({trainer.digest() for trainer in trainers}) == 1
    # not the parameters: Adam's step has the size of the lr where a gradient is nothing but rounding
    for (name, parameter), (_, reference) in zip(trainers[0].model.trained(), alone.model.trained(), strict=True):
        assert parameter.grad is not None and reference.grad is not None
        assert torch.allclose(parameter.grad, reference.grad, atol=1e-4), name


def test_memory_of_one_rank_halves_the_parts_of_all() -> None:
    expected = _steps(_trainer(ALONE, 8), 1, 8)
    trainers = [_trainer(ALONE, 8) for _ in range(2)]

    def work(ranks: Ranks) -> list[tuple[float, float]]:
        trainer = trainers[ranks.rank]
        trainer.ranks, trainer._agree = ranks, ranks.any
        trainer.expect(8)
        computed = trainer.computation

        def limited(clips: Tensor, whole: int) -> Tensor:
            if len(clips) > 1 and ranks.rank == 1:
                raise torch.OutOfMemoryError
            return computed(clips, whole)

        limited.fall_back_to_eager = computed.fall_back_to_eager  # type: ignore[attr-defined]
        limited.device, limited.shared = CPU, None  # type: ignore[attr-defined]
        trainer.computation = limited  # type: ignore[assignment]
        return _steps(trainer, 1, 8)

    for found in _together(2, work):
        assert np.allclose(found, expected, atol=1e-5)
    assert [trainer.micro_batch for trainer in trainers] == [1, 1]


def test_a_state_of_two_ranks_goes_on_in_one_process() -> None:
    trainer = _trainer(Ranks(0, 2), 8)
    assert trainer.micro_batch == 4
    alone = _trainer(ALONE, 8)
    alone.load_state_dict(trainer.state_dict())
    assert alone.micro_batch == 8  # a share of half a batch was not a lack of memory
    trainer.micro_batch = 2
    alone.load_state_dict(trainer.state_dict())
    assert alone.micro_batch == 2


@pytest.mark.parametrize("kind", [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_a_share_with_the_clip_before_it_is_mixed_as_in_the_whole_batch(kind: dict[str, float]) -> None:
    mixing = MixupCutmix(**kind, classes=5, seed=3)
    clips = torch.randint(256, (7, 2, 3, 8, 8), dtype=torch.uint8)
    labels = torch.arange(7) % 5
    whole, shares = mixing(clips, labels, 1, 4)
    for rank in range(3):
        own = list(share(7, rank, 3))
        before = [own[0] - 1, *own]
        mixed, mixed_labels = mixing(clips[before], labels[before], 1, 4)
        assert torch.equal(mixed[1:], whole[own]) and torch.equal(mixed_labels[1:], shares[own])
