"""Accuracy against plain counting, views averaged, frames in another order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.data.dataset import DataError
from bench.data.transforms import normalise
from bench.train.evaluate import Predictor, mean_class, predict, shuffled_order, top_5, top_k
from bench.train.trainer import Diverged
from tests.models import CLASSES, FRAMES, awaken, model

CPU = torch.device("cpu")


def _videos(count: int, views: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, views, FRAMES, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_accuracy_is_what_counting_says() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.random((40, 7)), rng.integers(0, 5, 40)
    for k in (1, 3, 5, 7, 9):
        right = sum(
            label in sorted(range(7), key=lambda c: -row[c])[:k]
            for row, label in zip(probabilities, labels, strict=True)
        )
        assert top_k(probabilities, labels, k) == pytest.approx(100 * right / 40)
    by_class = []
    for wanted in set(labels.tolist()):
        rows = [row for row, label in zip(probabilities, labels, strict=True) if label == wanted]
        by_class.append(sum(int(row.argmax()) == wanted for row in rows) / len(rows))
    assert mean_class(probabilities, labels) == pytest.approx(100 * sum(by_class) / len(by_class))


def test_mean_class_differs_from_top1_where_classes_differ_in_size() -> None:
    probabilities = np.array([[0.9, 0.1]] * 9 + [[0.8, 0.2]])
    labels = np.array([0] * 9 + [1])
    assert top_k(probabilities, labels, 1) == pytest.approx(90.0)
    assert mean_class(probabilities, labels) == pytest.approx(50.0)


def test_a_class_that_is_predicted_and_never_occurs_does_not_count_unlike_in_mmaction() -> None:
    """mmaction's mean is over the rows of a confusion matrix of all classes that occur or are predicted."""
    probabilities = np.eye(3)[[0, 0, 1, 2]]
    labels = np.array([0, 0, 1, 1])
    assert mean_class(probabilities, labels) == pytest.approx(100 * (1 + 1 / 2) / 2)
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (labels, probabilities.argmax(1)), 1)
    theirs = np.mean([row[index] / row.sum() if row.sum() else 0 for index, row in enumerate(confusion)])
    assert 100 * theirs == pytest.approx(50.0)


@pytest.mark.parametrize("classes", [2, 5, 6, 9])
def test_top_5_of_five_classes_or_fewer_tells_nothing(classes: int) -> None:
    probabilities = np.random.default_rng(classes).random((30, classes))
    labels = np.arange(30) % classes
    found = top_5(probabilities, labels)
    if classes <= 5:
        assert found is None and top_k(probabilities, labels, 5) == 100
    else:
        right = sum(
            label in sorted(range(classes), key=lambda c: -row[c])[:5]
            for row, label in zip(probabilities, labels, strict=True)
        )
        assert found == pytest.approx(100 * right / 30) and found < 100


def test_a_prediction_is_the_mean_of_its_views_probabilities() -> None:
    adapted = model("vit", "joint").eval()
    awaken(adapted)
    videos = _videos(3, 4)
    found = Predictor(adapted, CPU, "fp32", micro_batch=5)(videos)
    mean, std = adapted.backbone.mean, adapted.backbone.std
    with torch.no_grad():
        for video, row in zip(videos, found, strict=True):
            expected = sum(adapted(normalise(view[None], mean, std)).softmax(1)[0] for view in video) / 4
            torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-4)


def test_running_out_of_memory_halves_the_views_computed_at_once(monkeypatch) -> None:
    adapted = model("vit", "frozen").eval()
    predictor, videos = Predictor(adapted, CPU, "fp32", micro_batch=8), _videos(4, 2)
    expected = predictor(videos)
    forward = adapted.forward

    def starved(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    monkeypatch.setattr(adapted, "forward", starved)
    torch.testing.assert_close(predictor(videos), expected, atol=1e-6, rtol=1e-5)
    assert predictor.micro_batch == 2


@pytest.mark.parametrize("strategy", ["frozen", "full", "timesformer", "spatial", "temporal", "joint"])
def test_frames_in_another_order_change_predictions_only_where_order_is_seen(strategy: str) -> None:
    adapted = model("vit", strategy).eval()
    awaken(adapted)
    predictor = Predictor(adapted, CPU, "fp32", micro_batch=8)
    batches = [(_videos(4, 1, seed), torch.arange(4) % CLASSES, [f"{seed}-{i}" for i in range(4)]) for seed in (0, 1)]
    found = predict(predictor, batches, order_test=True)
    assert found.names == [f"{seed}-{i}" for seed in (0, 1) for i in range(4)]
    assert set(found.reordered) == {"reversed", "shuffled"}
    for order in found.reordered.values():
        change = np.abs(order - found.probabilities).max(axis=1)
        if strategy in ("timesformer", "temporal", "joint"):
            assert change.min() > 1e-5
        else:
            assert change.max() < 1e-5
            assert (order.argmax(1) == found.probabilities.argmax(1)).all()


def test_a_shuffled_order_is_neither_straight_nor_reversed() -> None:
    generator = torch.Generator().manual_seed(0)
    for frames in (2, 3, 8):
        for _ in range(50):
            order = shuffled_order(frames, generator).tolist()
            assert sorted(order) == list(range(frames))
            assert order != list(range(frames))
            if frames > 2:
                assert order != list(range(frames))[::-1]


@pytest.mark.parametrize("frames", ["straight", "reordered"])
def test_a_prediction_that_is_no_number_ends_the_cell(frames: str) -> None:
    """A NaN sorts like any number, and a table would show an accuracy of it."""
    calls = iter([0.5, 0.5, float("nan")] if frames == "reordered" else [float("nan"), 0.5, 0.5])
    batches = [(_videos(2, 1), torch.arange(2), ["a", "b"])]

    def predictor(views: torch.Tensor) -> torch.Tensor:
        found = torch.full((len(views), 2), 0.5)
        found[1, 1] = next(calls)
        return found

    with pytest.raises(Diverged):
        predict(predictor, batches, order_test=True)


def test_weights_that_are_no_numbers_are_noticed_in_evaluation() -> None:
    adapted = model("vit", "frozen")
    with torch.no_grad():
        adapted.head.linear.bias[3] = float("nan")
    predictor = Predictor(adapted, CPU, "fp32", micro_batch=8)
    with pytest.raises(Diverged):
        predict(predictor, [(_videos(2, 1), torch.arange(2), ["a", "b"])], order_test=False)


def test_a_test_of_which_nothing_can_be_read_is_an_error_of_the_data() -> None:
    predictor = Predictor(model("vit", "frozen"), CPU, "fp32", micro_batch=8)
    for order_test in (True, False):
        with pytest.raises(DataError):
            predict(predictor, [], order_test=order_test)
