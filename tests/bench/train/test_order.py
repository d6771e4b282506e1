"""Predictions of a trained model on frames in another order, on movements to the right and to the left."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.families import build, resolve
from bench.data.motion.render import render_clip
from bench.data.transforms import TestTransform, normalise
from bench.run.footnotes import of_order
from bench.spec import Recipe
from bench.train.evaluate import Predictions, Predictor, predict, top_k
from bench.train.optimiser import lr_scale
from bench.train.trainer import Trainer
from tests.bench import make

CPU = torch.device("cpu")
FRAMES = list(range(1, 17, 2))  # what uniform sampling takes of 17 frames, symmetric about the middle
BATCH = 16


@functools.cache
def _clips(count: int, stream: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, T, 3, 32, 32) uint8 and labels: 0 to the right, 1 to the left."""
    labels = torch.arange(count) % 2
    names = ("move-right", "move-left")
    videos = [render_clip(names[label], np.random.default_rng((stream, i)))[FRAMES] for i, label in enumerate(labels)]
    frames = torch.from_numpy(np.stack(videos)).permute(0, 1, 4, 2, 3)
    return torch.stack([TestTransform(32)(clip)[0] for clip in frames]), labels


def _trained(strategy: str, steps: int) -> VideoClassifier:
    torch.manual_seed(0)
    chosen = STRATEGIES.get(strategy)
    model = VideoClassifier(
        build(resolve("vit", "tiny")), chosen, chosen.options(), classes=2, frames=len(FRAMES), dropout=0.0
    )
    recipe = Recipe(epochs=1, batch_size=BATCH, lr=6e-3, head_lr=6e-3, betas=(0.9, 0.98), warmup_epochs=0.1)
    recipe = recipe.model_copy(update={"schedule": "step"})
    clips, labels = _clips(steps * BATCH, stream=0)
    model.body.start(normalise(clips[:BATCH], model.backbone.mean, model.backbone.std), 0.3)
    trainer = Trainer(model, recipe, CPU, "fp32")
    for step in range(steps):
        trainer.scale_lr(lr_scale(recipe, step, steps))
        part = slice(step * BATCH, (step + 1) * BATCH)
        trainer.step(clips[part], labels[part])
    return model


def _predictions(model: VideoClassifier) -> Predictions:
    clips, labels = _clips(100, stream=1)
    names = [str(index) for index in range(len(labels))]
    return predict(Predictor(model, CPU, "fp32", 50), [(clips[:, None], labels, names)], order_test=True)


@pytest.mark.parametrize("strategy", ["frozen", "spatial", "full"])
def test_a_space_only_model_predicts_the_same_of_frames_in_any_order(strategy: str) -> None:
    found = _predictions(_trained(strategy, steps=8) if strategy == "spatial" else _untrained(strategy))
    assert found.reordered.keys() == {"reversed", "shuffled"}
    for other in found.reordered.values():
        assert np.abs(other - found.probabilities).max() < 1e-5
        assert (other.argmax(1) == found.probabilities.argmax(1)).all()


def test_a_method_that_is_not_as_blind_as_it_says_is_footnoted() -> None:
    found, cell = _predictions(_untrained("frozen")), make.cell(strategy="frozen", options={})
    assert of_order(cell, False, found) == []
    other = Predictions(found.names, found.labels, found.probabilities, {"reversed": found.probabilities[:, ::-1]})
    assert of_order(cell, True, other) == []
    (note,) = of_order(cell, False, other)
    assert "frozen" in note


def _untrained(strategy: str) -> VideoClassifier:
    torch.manual_seed(0)
    chosen = STRATEGIES.get(strategy)
    return VideoClassifier(build(resolve("vit", "tiny")), chosen, chosen.options(), classes=2, frames=len(FRAMES))


def test_aim_learns_the_direction_and_takes_the_reversed_clip_for_its_twin() -> None:
    found = _predictions(_trained("joint", steps=60))
    straight = top_k(found.probabilities, found.labels, 1)
    assert straight > 85
    assert top_k(found.reordered["reversed"], found.labels, 1) < 100 - straight + 10
    assert 25 < top_k(found.reordered["shuffled"], found.labels, 1) < 75
