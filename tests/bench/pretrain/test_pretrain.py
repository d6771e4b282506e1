"""The image pretraining, on few steps, and the bundled weights that many of them made."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import backbones
from backbones.families import build, resolve
from backbones.weights import digest
from bench.pretrain.card import probe
from bench.pretrain.stills import ATTRIBUTES, StillBatch, StillBatches
from bench.pretrain.train import LOGITS, Captions, PretrainRecipe, attribute_loss, pretrain, recipe_for, split
from tests.bench.command import Command
from tests.models import FAMILIES

CPU = torch.device("cpu")
BUNDLED = Path(backbones.__file__).parent / "bundled"
each_family = pytest.mark.parametrize("family", FAMILIES)


def test_the_loss_is_the_cross_entropy_written_out() -> None:
    batch = StillBatches(1, 32, 32, 0, 1)[0]
    logits = torch.randn(32, LOGITS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = 0.0
    for name, scores in split(logits).items():
        losses = []
        for row, shown in zip(scores, batch.shown[name], strict=True):
            values = [index for index in range(len(shown)) if shown[index]]
            if values:
                chances = row.exp() / row.exp().sum()
                losses.append(-sum(chances[value].log().item() for value in values) / len(values))
        expected += sum(losses) / len(losses)
    shown = {name: values.double() for name, values in batch.shown.items()}
    assert attribute_loss(split(logits), shown).item() == pytest.approx(expected, rel=1e-9)


def test_the_contrast_is_the_symmetric_one_of_the_paper() -> None:
    """Radford et al., 2021, figure 3, written out on the same features."""
    torch.manual_seed(0)
    objective, batch = Captions(12).double().eval(), StillBatches(1, 6, 32, 0, 1)[0]
    features = torch.randn(6, 12, dtype=torch.float64)
    image = nn.functional.normalize(features, dim=1)
    text = nn.functional.normalize(objective.text(batch.captions), dim=1)
    loss = 0.0
    for i in range(6):
        to_texts = torch.stack([image[i] @ text[j] for j in range(6)]) / 0.07
        to_images = torch.stack([image[j] @ text[i] for j in range(6)]) / 0.07
        loss -= (to_texts.log_softmax(0)[i] + to_images.log_softmax(0)[i]).item() / 12
    assert objective(features, batch).item() == pytest.approx(loss, rel=1e-5)


@each_family
def test_a_short_pretraining_learns_and_repeats_itself(family: str) -> None:
    recipe = PretrainRecipe(steps=60, batch_size=16, lr=1e-3)
    first = pretrain(family, recipe, CPU, processes=0)
    assert first.losses[-1] < first.losses[0]
    again = pretrain(family, recipe, CPU, processes=1)
    assert digest(first.backbone) == digest(again.backbone)


@each_family
def test_recipes_take_fewer_steps_and_another_seed(family: str) -> None:
    assert recipe_for(family).steps >= 1000
    short = recipe_for(family, steps=7, seed=3)
    assert (short.steps, short.seed, short.lr) == (7, 3, recipe_for(family).lr)


@each_family
def test_the_command_writes_weights_that_a_run_can_take(
    family: str, tmp_path: Path, bench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.pretrain.card.probe", partial(probe, fit=1, held_out=1, steps=3))
    done = bench("pretrain", family, "--steps", 2, "--out", tmp_path, "--device", "cpu", "--processes", 0)
    assert done.code == 0, done.err
    card = json.loads((tmp_path / f"{family}_tiny.json").read_text())
    opened = build(resolve(f"{family}:tiny@{tmp_path / f'{family}_tiny.safetensors'}", "tiny"))
    assert digest(opened) == card["weights_sha256"]
    assert card["recipe"]["steps"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{family}_tiny.json", f"{family}_tiny.safetensors"]


def test_mistakes_are_told_together(tmp_path: Path, bench: Command) -> None:
    done = bench("pretrain", "vitt", "--out", tmp_path / "nowhere", "--device", "cuda:99")
    assert done.code == 2 and len(done.problems) == 3
    for word in ("did you mean 'vit'?", "nowhere", "cuda:99"):
        assert word in done.err
    assert not list(tmp_path.iterdir())


# ---- what is bundled


@each_family
def test_a_bare_tiny_name_means_the_bundled_weights(family: str) -> None:
    name = resolve(family, "tiny")
    assert str(name) == f"{family}:tiny@bundled"
    opened = build(name)
    assert opened.pretrained == "bundled"
    card = json.loads((BUNDLED / f"{family}_tiny.json").read_text())
    assert digest(opened) == card["weights_sha256"]


@each_family
def test_bundled_files_are_small_and_the_card_tells_their_hash(family: str) -> None:
    card = json.loads((BUNDLED / f"{family}_tiny.json").read_text())
    assert (BUNDLED / f"{family}_tiny.safetensors").stat().st_size < 4e6
    assert card["weights_sha256"] in (BUNDLED / "README.md").read_text()
    recipe = recipe_for(family)
    assert card["recipe"] == vars(recipe), "the recipe in the code is not the one that made the weights"


@functools.cache
def _drawn(*how: int) -> list[StillBatch]:
    return list(StillBatches(*how).drawn(0))


class _DrawnOnce(StillBatches):
    """The same stills for every backbone are drawn once: that takes longer than looking at them."""

    def drawn(self, processes: int) -> Iterator[StillBatch]:
        return iter(_drawn(self.count, self.size, 32, self.seed, self.stream))


@each_family
def test_bundled_features_tell_of_stills_what_random_ones_do_not(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarser probe than the card's: every attribute far better than from random weights, or nearly perfect."""
    monkeypatch.setattr("bench.pretrain.card.StillBatches", _DrawnOnce)
    small = {"fit": 8, "held_out": 4, "steps": 150}
    known = probe(build(resolve(f"{family}:tiny@bundled", "tiny")), **small)
    torch.manual_seed(0)
    guessed = probe(build(resolve(f"{family}:tiny@none", "tiny")), **small)
    assert known.keys() == guessed.keys() == ATTRIBUTES.keys()
    for name in ("colour", "size", "column", "row", "count"):
        assert known[name] > guessed[name] + 15, (name, known[name], guessed[name])
