"""The start of the temporal embedding."""

from __future__ import annotations

import math

import pytest

from adapters.body import sinusoids
from tests.models import FAMILIES, FRAMES, clips, model


def test_sinusoids_are_vaswanis() -> None:
    waves = sinusoids(5, 6)
    assert waves.shape == (1, 5, 6)
    for t in range(5):
        for pair in range(3):
            angle = t / 10_000 ** (2 * pair / 6)
            assert waves[0, t, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert waves[0, t, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_scale_is_a_share_of_the_tokens(family: str) -> None:
    adapted, x = model(family, "joint"), clips()
    assert not adapted.body.temporal_embedding.any()
    adapted.body.start(x, 0.3)
    tokens = adapted.backbone.tokens(x.flatten(0, 1), adapted.body.tubelet)
    found = adapted.body.temporal_embedding.pow(2).mean().sqrt() / tokens.pow(2).mean().sqrt()
    assert found.item() == pytest.approx(0.3, rel=1e-4)
    assert len({row.sum().item() for row in adapted.body.temporal_embedding[0]}) == FRAMES // adapted.body.tubelet
    assert adapted.body.temporal_embedding.requires_grad


def test_zero_is_the_published_start_and_nothing_happens_without_attention_over_time() -> None:
    adapted = model("vit", "joint")
    adapted.body.start(clips(), 0.0)
    assert not adapted.body.temporal_embedding.any()
    blind = model("vit", "spatial")
    blind.body.start(clips(), 0.3)
    assert blind.body.temporal_embedding is None
